"""Example sessions of the report: the titles in the session, each model's list, and why the session was selected."""

import dataclasses

import jax
import numpy as np
from jaxtyping import Int

import alkd_jax as alkd
from alkd_jax.io import read_json

from ..pipeline.methods import needed_selections, trained_methods
from ..pipeline.stage_records import checked_output
from ..pipeline.stages import Run
from ..pipeline.teachers import title_of
from .teacher_quality import is_hit

NUM_SESSIONS = 10
LIST_LENGTH = 5
OUTCOMES = ("effective", "similar", "incorrect")
"""What a list can be, see `teacher_quality.measure_quality`."""

_LENGTH_COMPARED = 25


@dataclasses.dataclass(frozen=True)
class ExampleSession:
    """One training session.

    Attributes:
        history: titles of the session in order.
        target: title of its next item.
        lists: model → titles of the first items of its list; the next item is marked.
        outcome: of the LLM's list, one of :data:`OUTCOMES`.
        reason: the session's difficulty and its probability under the policy.
    """

    history: list[str]
    target: str
    lists: dict[str, list[str]]
    outcome: str
    reason: str


def shown_selection(run: Run) -> str:
    """Returns the selection whose sessions are shown: ALKDRec's, or the run's first."""
    selections = needed_selections(run.settings.method_names)
    return "ALKDRec" if "ALKDRec" in selections else selections[0]


def rule_of(run: Run, *, shown: int) -> str:
    """Returns how the examples are chosen, in a sentence."""
    return (
        f"The {shown} examples are drawn at random, by the run's seed, from the answered sessions of the selection "
        f"{shown_selection(run)}, with effective, similar and incorrect lists in the shares in which they occur there."
    )


def example_sessions(run: Run) -> list[ExampleSession]:
    """Returns answered sessions by :func:`rule_of`, with the lists of the models of the first seed."""
    rankings, selection = run.rankings(), shown_selection(run)
    selected = read_json(checked_output(run.folder.path, "selection.json"))[selection]
    answered = rankings.take(np.isin(np.asarray(rankings.session_id), selected))
    outcome = outcomes_of(run, answered)
    chosen = representative_rows(outcome, NUM_SESSIONS, seed=run.settings.seed)
    answered, outcome = answered.take(chosen), outcome[chosen]
    rows = run.dataset.train.rows_of(np.asarray(answered.session_id))
    sessions = jax.tree.map(lambda leaf: np.asarray(leaf)[rows], run.dataset.train)
    items_of = {
        "recommender teacher": np.asarray(run.candidates(sessions, num=LIST_LENGTH).items),
        title_of(run.settings.resolved_teacher): np.asarray(answered.items)[:, :LIST_LENGTH],
        "student before": np.asarray(run.candidates(sessions, num=LIST_LENGTH, name="student").items),
    }
    if selection in run.settings.method_names:
        distilled = run.candidates(sessions, num=LIST_LENGTH, name=trained_methods((selection,))[selection])
        items_of[f"student after ({selection})"] = np.asarray(distilled.items)
    reasons = selection_reasons(run, rows)
    return [
        ExampleSession(
            history=item_titles(run, sessions.items[n][sessions.mask[n]]),
            target=item_title(run, int(sessions.target[n])),
            lists={
                model: item_titles(run, items[n], marked=int(sessions.target[n])) for model, items in items_of.items()
            },
            outcome=OUTCOMES[outcome[n]],
            reason=reasons[n],
        )
        for n in range(len(rows))
    ]


def outcomes_of(run: Run, lists: alkd.Rankings) -> Int[np.ndarray, " N"]:
    """Returns the outcome of each list, an index of :data:`OUTCOMES`, as `teacher_quality.measure_quality` has it."""
    sessions = run.dataset.train.take(run.dataset.train.rows_of(np.asarray(lists.session_id)))
    target = np.asarray(sessions.target)
    own = np.asarray(run.candidates(sessions, num=_LENGTH_COMPARED, name="student").items)
    is_right = is_hit(np.asarray(lists.items)[:, :_LENGTH_COMPARED], target)
    return np.where(is_right, np.where(is_hit(own, target), 1, 0), 2)


def representative_rows(group: Int[np.ndarray, " N"], size: int, *, seed: int) -> Int[np.ndarray, " M"]:
    """Returns rows drawn at random, so many of each group as its share of all rows gives, in the order of the rows.

    Args:
        group: group of each row.
        size: number of rows; all, where there are fewer.
        seed: of the draw.
    """
    size = min(size, len(group))
    names, counts = np.unique(group, return_counts=True)
    quota = counts * size / max(1, len(group))
    number = np.floor(quota).astype(int)
    # What is left goes to the groups with the largest remainders.
    number[np.argsort(number - quota, kind="stable")[: size - number.sum()]] += 1
    rng = np.random.default_rng(seed)
    rows = [
        rng.permutation(np.flatnonzero(group == name))[:most] for name, most in zip(names, number.tolist(), strict=True)
    ]
    return np.sort(np.concatenate([np.empty(0, int), *rows]))


def item_titles(run: Run, items: np.ndarray, *, marked: int = -1) -> list[str]:
    """Returns the titles of items, or the id of an item without title, with a check mark at the marked one."""
    return [f"{item_title(run, item)}{' ✓' if item == marked else ''}" for item in items.tolist() if item > 0]


def item_title(run: Run, item: int) -> str:
    """Returns the title of an item, or its id where it has none."""
    return run.dataset.titles[item] or run.dataset.item_ids[item]


def selection_reasons(run: Run, rows: np.ndarray) -> list[str]:
    """Returns each session's place in the difficulty order, and its probability relative to uniform sampling."""
    rank, log_policy = run.load_array("difficulty.npz", "rank"), run.load_array("policy.npz", "log_policy")
    reasons = []
    for row in rows.tolist():
        ratio = np.exp(float(log_policy[row])) * len(rank)
        probability = (
            f"{ratio:.1f} times as probable as under uniform sampling" if ratio > 0 else "outside this run's policy"
        )
        reasons.append(f"easier than {(rank[row] - 1) / len(rank):.0%} of the training sessions; {probability}")
    return reasons
