"""What a language model's recorded lists hold beyond counts, titles and item numbers, in nats for each list.

    python -m experiments.information --data released:PATH:Games --json games.json
    python -m experiments.information --run runs/live

Of the lists that hold their session's next item, a conditional logit predicts its place: from nothing, from counts of
the other sessions, from titles, and from item numbers, each with and without the model's ranks. What the ranks add to
lists that were not used to fit it is what they hold beyond the rest. Shuffled ranks are the control.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.sparse import csr_array

import alkd_jax as alkd
from alkd_jax.checks import check_between, check_count
from alkd_jax.data.readers import registry
from alkd_jax.distillation import item_rules
from alkd_jax.evaluation import conditional_logit
from alkd_jax.evaluation.conditional_logit import Choices
from alkd_jax.io import write_json

from .pipeline import light_options, options, teachers
from .pipeline.command_line import parse
from .pipeline.compact_students import has_titles
from .pipeline.console import cli_errors, print_lines
from .pipeline.list_features import ListFeatures, list_features
from .pipeline.run import RunContext
from .pipeline.settings import Settings
from .reporting import information_rows

NESTED = ("counts", "titles", "item number")
"""The sets of features, each beside those before it."""

_LEAST = 50
"""Number of lists from which a stratum is reported."""


@dataclasses.dataclass(frozen=True)
class Information:
    """The options of the command.

    Attributes:
        data: source of the data, whose recorded lists are read; released:PATH:NAME has some, others need rankings.
        rankings: file of recorded lists, by default the authors'.
        folds: number of parts of the lists, each of which is predicted by a fit to the others.
        seed: of the parts and of the shuffled ranks.
        json: also write the numbers to this file.
    """

    data: str | None = None
    run: Annotated[pathlib.Path | None, light_options.RUN_FOLDER] = None
    rankings: options.RankingsFile = None
    folds: int = 5
    seed: int = 0
    json: pathlib.Path | None = None

    def check(self) -> None:
        """Raises ValueError where an option is out of range, or two do not go together."""
        check_count(2, **{"--folds": self.folds})
        check_between(0, 2**32 - 1, **{"--seed": self.seed})
        if (self.data is None) == (self.run is None):
            raise ValueError(f"--data is {self.data} and --run is {self.run}; expected one of them")
        if self.rankings is not None and self.run is not None:
            raise ValueError(f"--rankings is {self.rankings} with --run; expected it with --data")


def lists_of(args: Information) -> tuple[alkd.Dataset, alkd.Rankings]:
    """Reads the data and the lists, of a run or recorded.

    Raises:
        ValueError: the data have no recorded lists, or the run has no lists yet.
    """
    if args.run is not None:
        run = RunContext.reopen(args.run, readonly=True)
        return run.dataset, run.rankings()
    data = str(args.data)
    if args.rankings is None and registry.parse_source(data).kind != "released":
        raise ValueError(f"--data is {data} without --rankings; expected recorded lists, or released:PATH:NAME")
    dataset = registry.read(data)
    settings = Settings(data, "fpmc", pathlib.Path(), rankings=args.rankings)
    return dataset, teachers.load_recorded(settings, dataset)[0]


def measure(args: Information) -> dict[str, Any]:
    """Measures what the lists hold.

    Returns:
        ``{"dataset", "lists", "with_target", "folds", "seed", "gains": [...], "strata": [...], "comparable": [...]}``;
        every entry has "lists", "gain" and "error", a standard error over lists, in nats for each list.
    """
    args.check()
    dataset, rankings = lists_of(args)
    features = list_features(dataset, rankings, word_vectors(dataset), seed=args.seed)
    nested = [name for name in NESTED if name in features.sets]
    measured = [gain_beyond(features, nested[:number], args) for number in range(len(nested) + 1)]
    beyond_all = measured[-1][1]
    found: dict[str, Any] = {"dataset": dataset.name, "lists": len(rankings), "with_target": len(features.chosen)}
    return found | {
        "folds": args.folds,
        "seed": args.seed,
        "gains": [entry for entry, _ in measured],
        "strata": [
            {"by": by, "stratum": name} | mean_and_error(beyond_all[rows])
            for by, name, rows in strata(features)
            if rows.sum() >= _LEAST
        ],
        "comparable": comparable(features, nested, args),
    }


def word_vectors(dataset: alkd.Dataset) -> csr_array | None:
    """Returns the tf-idf vectors of the titles; None where the items have none."""
    return item_rules.word_vectors(dataset.titles) if has_titles(dataset) else None


def gain_beyond(
    features: ListFeatures, known: Sequence[str], args: Information, items: Bool[np.ndarray, "N K"] | None = None
) -> tuple[dict[str, Any], Float[np.ndarray, " N"]]:
    """Returns the gain of the lists' ranks, and of shuffled ones, beyond some sets of features.

    Args:
        features: of the lists.
        known: names of the sets.
        args: the options.
        items: ``[N, K]``, the items among which the target is predicted, by default all of a list; lists without their
            target or without another item among them are left out.

    Returns:
        The entry of a table, and the gain of each list.
    """
    mask = features.mask if items is None else features.mask & items
    kept = mask[np.arange(len(mask)), features.chosen] & (mask.sum(1) > 1)

    def log_likelihood(*names: str) -> Float[np.ndarray, " N"]:
        parts = [features.sets[name][kept] for name in names] or [np.zeros((*mask[kept].shape, 1))]
        choices = Choices(np.concatenate(parts, axis=-1), mask[kept], features.chosen[kept])
        return conditional_logit.cross_fitted(choices, folds=args.folds, seed=args.seed)

    without = log_likelihood(*known)
    gain, shuffled = log_likelihood(*known, "rank") - without, log_likelihood(*known, "shuffled") - without
    control = mean_and_error(shuffled)
    entry = {"beyond": list(known), "log_likelihood": rounded(without.mean())} | mean_and_error(gain)
    return entry | {"shuffled": control["gain"], "shuffled_error": control["error"]}, gain


def strata(features: ListFeatures) -> list[tuple[str, str, Bool[np.ndarray, " N"]]]:
    """Returns the strata: by what, name, and which lists."""
    rows = np.arange(len(features.chosen))
    seen, co_occurs = features.seen[rows, features.chosen], features.co_occurs[rows, features.chosen]
    length = features.history_length
    return [
        *(
            ("target seen elsewhere", name, (seen >= low) & (seen <= high))
            for name, low, high in (("never", 0, 0), ("once", 1, 1), ("2 to 5 times", 2, 5), ("more often", 6, np.inf))
        ),
        *(
            ("items in the history", name, (length >= low) & (length <= high))
            for name, low, high in (("1 to 3", 1, 3), ("4 to 8", 4, 8), ("more", 9, np.inf))
        ),
        ("target and history elsewhere together", "yes", co_occurs),
        ("target and history elsewhere together", "no", ~co_occurs),
    ]


def comparable(features: ListFeatures, known: Sequence[str], args: Information) -> list[dict[str, Any]]:
    """Returns the gain among items like the target, so that a forced target does not stand out in its list."""
    groups = {
        "together with the history elsewhere": features.co_occurs,
        "never together with it, but seen 3 times or more": ~features.co_occurs & (features.seen >= 3),
    }
    found = []
    for name, items in groups.items():
        mask = features.mask & items
        num_lists = int((mask[np.arange(len(mask)), features.chosen] & (mask.sum(1) > 1)).sum())
        if num_lists >= _LEAST:
            found.append({"items": name} | gain_beyond(features, known, args, items)[0])
    return found


def mean_and_error(gain: Float[np.ndarray, " N"]) -> dict[str, Any]:
    """Returns the number of lists, their mean gain, and its standard error."""
    error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.inf
    return {"lists": len(gain), "gain": rounded(gain.mean()), "error": rounded(error)}


def rounded(value: float) -> float:
    """Returns a number of nats with five decimals."""
    return round(float(value), 5)


def run(args: Information) -> dict[str, Any]:
    """Measures, prints and stores.

    Returns:
        As of :func:`measure`.
    """
    found = measure(args)
    print_lines(information_rows.tables([found]))
    if args.json is not None:
        write_json(args.json, found)
    return found


def main() -> None:
    """Runs the command."""
    with cli_errors():
        run(parse(Information, "information", __doc__))


if __name__ == "__main__":
    main()
