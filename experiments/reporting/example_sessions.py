"""Example sessions of the report: the titles in the session, each model's list, and why the session was selected."""

import dataclasses

import jax
import numpy as np

from alkd_jax.io import read_json

from ..pipeline.methods import needed_selections, trained_methods
from ..pipeline.stage_records import checked_output
from ..pipeline.stages import Run
from ..pipeline.teachers import title_of

NUM_SESSIONS = 10
LIST_LENGTH = 5


@dataclasses.dataclass(frozen=True)
class ExampleSession:
    """One training session.

    Attributes:
        history: titles of the session in order.
        target: title of its next item.
        lists: model → titles of the first items of its list; the next item is marked.
        reason: the session's difficulty and its probability under the policy.
    """

    history: list[str]
    target: str
    lists: dict[str, list[str]]
    reason: str


def example_sessions(run: Run) -> list[ExampleSession]:
    """Returns the first answered sessions of ALKDRec's, or of the run's first, selection; models of the first seed."""
    rankings = run.rankings()
    row_of_ranking = {int(session): row for row, session in enumerate(np.asarray(rankings.session_id))}
    selections = needed_selections(run.settings.method_names)
    selection = "ALKDRec" if "ALKDRec" in selections else selections[0]
    selected = read_json(checked_output(run.folder.path, "selection.json"))[selection]
    session_id = [session for session in selected if session in row_of_ranking][:NUM_SESSIONS]
    rows = run.dataset.train.rows_of(np.array(session_id, np.int32))
    sessions = jax.tree.map(lambda leaf: np.asarray(leaf)[rows], run.dataset.train)
    answers = np.asarray(rankings.items)[[row_of_ranking[session] for session in session_id], :LIST_LENGTH]
    items_of = {
        "recommender (Teacher)": np.asarray(run.candidates(sessions, num=LIST_LENGTH).items),
        title_of(run.settings.resolved_teacher): answers,
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
            reason=reasons[n],
        )
        for n in range(len(session_id))
    ]


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
