"""Line-ups of counting and linear methods, with options that are chosen on validation and never on test.

Each method has a fixed grid of options. Every point of it is fitted on the training sessions and ranks the targets of a
sample of validation sessions; the one with the highest recall@10, the first of several, ranks the test targets.
"""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Int

import alkd_jax as alkd
from alkd_jax import baselines
from alkd_jax.baselines.linear import LinearModel
from alkd_jax.data.sessions import most_recent, take_sequences
from alkd_jax.evaluation import Protocol
from alkd_jax.io import open_arrays, read_json, save_arrays, write_json
from alkd_jax.types import HeldOutSequences

from .console import stage_bar
from .list_metrics import CUT_OFFS, list_metrics
from .protocols import protocol_inputs
from .run_folder import RunFolder
from .stage_records import checked_output

SAMPLE = 500
"""Number of validation sessions, drawn with seed 0, on which options are chosen; all where there are fewer."""

MAX_LINEAR_ITEMS = 30_000
"""The most items of the training sessions with which the linear methods, which take V³ operations, are in a line-up."""

LINEAR = ("ease", "slis", "slit", "slist")
"""Methods that invert a matrix over the items."""

Options: TypeAlias = dict[str, Any]
"""Options of a method by name."""


@dataclasses.dataclass(frozen=True)
class Member:
    """A method of a line-up.

    Attributes:
        method: its name in :data:`alkd_jax.baselines.METHODS`.
        grid: option → values; all combinations are tried.
        timed: options of the grid that need the times of sessions; without times they are None.
        needs_times: whether the method has no meaning without times.
    """

    method: str
    grid: Mapping[str, Sequence[Any]] = dataclasses.field(default_factory=dict)
    timed: tuple[str, ...] = ()
    needs_times: bool = False

    def points(self, has_times: bool) -> list[Options]:
        """Returns the combinations of options."""
        values = [
            (None,) if name in self.timed and not has_times else tuple(values) for name, values in self.grid.items()
        ]
        return [dict(zip(self.grid, point, strict=True)) for point in itertools.product(*values)]


_TIME_AWARE = {"k": (500,), "lambda_spw": (1.02, 4.0), "lambda_snh": (5.0, 80.0)}

FULL: Mapping[str, Member] = {
    "Popularity": Member("popularity"),
    "Recent popularity": Member("recent_popularity", {"days": (1, 7, 30)}, needs_times=True),
    "Session popularity": Member("session_popularity"),
    "Markov": Member("markov"),
    "Co-occurrence": Member("co_occurrence"),
    "Item-kNN": Member("item_knn", {"recency": (0.5, 0.8, 1.0)}),
    "Session-kNN": Member("session_knn", {"neighbors": (50, 100, 500)}),
    "Sequential rules": Member("sequential_rules", {"recency": (0.4, 0.65, 0.85), "backward": (0.0, 0.5)}),
    "AR": Member("ar", {"pruning": (20, 100)}),
    "SR": Member("sr", {"weighting": ("div", "quadratic"), "pruning": (20, 100), "last_in_session": (0, 3)}),
    "SKNN": Member("sknn", {"k": (100, 500), "sample_size": (1000, 5000)}),
    "V-SKNN": Member(
        "vsknn",
        {"k": (100, 500), "sample_size": (5000,), "weighting": ("div", "quadratic"), "idf_weighting": (0, 5)},
    ),
    "STAN": Member("stan", _TIME_AWARE | {"lambda_inh": (2.05, 8.0)}, timed=("lambda_snh",)),
    "V-STAN": Member("vstan", _TIME_AWARE | {"lambda_idf": (None, 5)}, timed=("lambda_snh",)),
    "EASE": Member("ease", {"reg": (100, 300, 1000)}),
    "SLIS": Member("slis", {"predict_decay": (1, 4)}),
    "SLIT": Member("slit", {"predict_decay": (1, 4)}),
    "SLIST": Member("slist", {"alpha": (0.2, 0.8), "predict_decay": (1, 4)}),
}
"""Title → method with its grid."""

SHORT = ("Popularity", "Item-kNN", "SR", "Sequential rules", "V-SKNN", "STAN", "EASE", "SLIST")
"""One method of each kind, for tables that are easy to read."""

LINEUPS: Mapping[str, Mapping[str, Member]] = {"short": {title: FULL[title] for title in SHORT}, "full": FULL}
"""Name → title → method."""


def members_of(lineup: str, dataset: alkd.Dataset) -> tuple[dict[str, Member], dict[str, str]]:
    """Returns the methods of a line-up that the data allow, and the titles of the others with the reason."""
    num_items = len(np.unique(np.asarray(dataset.train_sequences.items)))
    used, left_out = {}, {}
    for title, member in LINEUPS[lineup].items():
        if member.needs_times and dataset.train_sequences.time is None:
            left_out[title] = "the sessions have no times"
        elif member.method in LINEAR and num_items > MAX_LINEAR_ITEMS:
            left_out[title] = f"{num_items:,} items occur in training, more than {MAX_LINEAR_ITEMS:,}"
        else:
            used[title] = member
    return used, left_out


def sample_of(held_out: HeldOutSequences) -> HeldOutSequences:
    """Returns :data:`SAMPLE` of the sessions in their order, or all."""
    if len(held_out) <= SAMPLE:
        return held_out
    rows = np.sort(np.random.default_rng(0).choice(len(held_out), SAMPLE, replace=False))
    first, ids = (np.asarray(array)[rows] for array in (held_out.first_target, held_out.session_id))
    return HeldOutSequences(take_sequences(held_out.sequences, rows), first, ids)


@dataclasses.dataclass(frozen=True, eq=False)
class Ranker:
    """Ranks held-out targets by the rules of a protocol.

    Attributes:
        counts: the counts of the training sessions.
        protocol: the rules.
        history: number of most recent known items that methods read and, for the last target, that are not ranked; 0
            for all.
    """

    counts: baselines.Counts
    protocol: Protocol
    history: int

    def places(self, scorer: baselines.Scorer, held_out: HeldOutSequences, ks: Sequence[int] = ()) -> baselines.Places:
        """Returns the places of the targets."""
        length = self.history or int(np.diff(np.asarray(held_out.sequences.offsets)).max())
        sessions = most_recent(held_out, length) if self.protocol.targets == "last" else held_out
        return baselines.target_places(
            scorer,
            self.counts,
            sessions,
            seen=self.protocol.seen,
            targets=self.protocol.targets,
            max_length=length,
            ks=ks,
        )

    def recall(self, scorer: baselines.Scorer, held_out: HeldOutSequences) -> float:
        """Returns recall@10."""
        return float(np.mean(self.places(scorer, held_out).ranks(ties=self.protocol.ties) <= 10))


def rank_lineup(dataset: alkd.Dataset, run_folder: RunFolder, protocol: Protocol, lineup: str, history: int) -> None:
    """Chooses the options of every method of a line-up and ranks the test targets, in one stage for each method.

    Args:
        dataset: the data; at least one validation session.
        run_folder: where ranks and options are stored; methods that are there already are reused.
        protocol: how sessions are evaluated, those of validation too.
        lineup: a key of :data:`LINEUPS`.
        history: see :class:`Ranker`.

    Raises:
        ValueError: there is no validation session.
    """
    if not len(dataset.validation_sequences):
        raise ValueError("number of validation sessions is 0; expected at least 1 to choose the options on")
    validation = sample_of(dataset.validation_sequences)
    counts = baselines.count(dataset.train_sequences, dataset.num_items)
    ranker = Ranker(counts, protocol, history)
    for title, member in members_of(lineup, dataset)[0].items():
        points = member.points(dataset.train_sequences.time is not None)

        def write_outputs(folder: pathlib.Path, title: str, member: Member, points: list[Options]) -> None:
            with stage_bar(f"options of {title}", total=len(points)) as bar:
                trials = []
                for trial in _tried(member.method, points, ranker, validation):
                    trials.append(trial)
                    bar.update(len(trials))
            recall, options = max(trials, key=lambda trial: trial[0])
            # To fit it again takes less than to keep two models in memory.
            scorer = baselines.method(member.method, **options)(counts)
            places = ranker.places(scorer, dataset.test_sequences, CUT_OFFS)
            save_arrays(folder / f"lineup-{member.method}.npz", ranks=places.ranks(ties=protocol.ties))
            of_lists = list_metrics(dataset, [places.exposure])
            stored = {"tied": [places.num_tied], "lists": of_lists, "options": options, "recall@10": round(recall, 6)}
            write_json(folder / f"lineup-{member.method}.json", stored)

        inputs = {"title": title, "points": points, "sample": SAMPLE, "history": history} | protocol_inputs(protocol)
        outputs = [f"lineup-{member.method}.npz", f"lineup-{member.method}.json"]
        run_folder.run_stage(
            f"lineup-{member.method}",
            inputs,
            outputs,
            functools.partial(write_outputs, title=title, member=member, points=points),
        )


def _tried(
    name: str, points: Sequence[Options], ranker: Ranker, validation: HeldOutSequences
) -> Iterator[tuple[float, Options]]:
    """Yields recall@10 on validation and the options of each point of a grid.

    A linear model is solved once for successive points that differ by ``predict_decay`` alone: it weights the history.
    """
    scorer, solved_with = None, None
    for options in points:
        to_solve = {option: value for option, value in options.items() if option != "predict_decay"}
        if isinstance(scorer, LinearModel) and to_solve == solved_with:
            scorer = dataclasses.replace(scorer, decay=options["predict_decay"])
        else:
            scorer, solved_with = None, to_solve  # The memory of the last one is free before the next is solved.
            scorer = baselines.method(name, **options)(ranker.counts)
        yield ranker.recall(scorer, validation), options


def load_lineup(
    dataset: alkd.Dataset, run_folder: RunFolder, lineup: str
) -> tuple[dict[str, Int[np.ndarray, "S P"]], dict[str, Any]]:
    """Returns title → the ranks `[1, P]` of the test targets, and title → what was stored beside them."""
    ranks, stored = {}, {}
    for title, member in members_of(lineup, dataset)[0].items():
        with open_arrays(checked_output(run_folder.path, f"lineup-{member.method}.npz")) as archive:
            ranks[title] = archive["ranks"][None]
        stored[title] = read_json(checked_output(run_folder.path, f"lineup-{member.method}.json"))
    return ranks, stored
