"""Sessions to look at, in titles: what was seen, what each model lists, and why the session was asked about."""

import dataclasses

import jax
import numpy as np

from alkd_jax.io import read_json

from ..pipeline.methods import chosen_by
from ..pipeline.stages import Run

NUMBER = 10
SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Case:
    """One training session.

    Attributes:
        history: titles of the session in order.
        target: title of its next item.
        lists: who → titles of the first items listed, the next item among them marked.
        why: where the session stands and how likely it was to be drawn.
    """

    history: list[str]
    target: str
    lists: dict[str, list[str]]
    why: str


def cases(run: Run) -> list[Case]:
    """The first answered sessions that ALKDRec, or the run's first selection, drew; models of the first seed."""
    lists = run.rankings()
    answered = {int(session): n for n, session in enumerate(np.asarray(lists.session_id))}
    choices = chosen_by(run.settings.asked_methods)
    by = "ALKDRec" if "ALKDRec" in choices else choices[0]
    drawn = [session for session in read_json(run.folder.path / "selection.json")[by] if session in answered][:NUMBER]
    row_of = {int(session): row for row, session in enumerate(np.asarray(run.dataset.train.session_id))}
    rows = np.array([row_of[session] for session in drawn], int)
    shown = jax.tree.map(lambda leaf: np.asarray(leaf)[rows], run.dataset.train)
    listed = {
        "teacher": run.candidates(shown, num=SHOWN),
        "language model": np.asarray(lists.items)[[answered[session] for session in drawn], :SHOWN],
        "student before": run.candidates(shown, num=SHOWN, name="student"),
    }
    if by in run.settings.asked_methods:
        listed[f"student after ({by})"] = run.candidates(shown, num=SHOWN, name=f"distilled/{by}")
    why = reasons(run, rows)
    return [
        Case(
            history=named(run, shown.items[n][shown.mask[n]]),
            target=run.dataset.titles[int(shown.target[n])],
            lists={who: named(run, items[n], mark=int(shown.target[n])) for who, items in listed.items()},
            why=why[n],
        )
        for n in range(len(drawn))
    ]


def named(run: Run, items: np.ndarray, *, mark: int = -1) -> list[str]:
    """Titles of items, with a tick at the one to be marked."""
    return [f"{run.dataset.titles[item]}{' ✓' if item == mark else ''}" for item in items.tolist() if item > 0]


def reasons(run: Run, rows: np.ndarray) -> list[str]:
    """Where each session stands between the hardest and the easiest, and its probability against an even draw."""
    rank, log_policy = run.array("difficulty.npz", "rank"), run.array("policy.npz", "log_policy")
    told = []
    for row in rows.tolist():
        times = np.exp(float(log_policy[row])) * len(rank)
        drawn = f"drawn {times:.1f} times as often as by an even draw" if times > 0 else "outside this run's policy"
        told.append(f"easier than {(rank[row] - 1) / len(rank):.0%} of the training sessions; {drawn}")
    return told
