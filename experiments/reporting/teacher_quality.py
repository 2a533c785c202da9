"""What the teacher said and what it cost: how often its lists hold the next item, beside chance and the recommender."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

import alkd_jax as alkd
from alkd_jax.io import read_json

from ..pipeline.llm_settings import asked_sessions
from ..pipeline.stages import Run

FROM_CANDIDATES = ("simulated", "openai", "conventional")
"""Teachers that rank the run's candidates, so that chance is known."""


def teacher_account(run: Run, *, k: int = 25) -> dict[str, Any]:
    """Counts what the lists in `rankings.jsonl` are worth; looks at the held-out items, after the fact.

    A list is effective where it holds the next item and the student's own top k does not, similar where both do, and
    incorrect where it does not.

    Returns:
        "asked", "usable", "hits@1", "hits@5", "hits@k" (shares of the usable lists), "chance@k" (a random choice of k
        candidates; None where the candidates are not known), "conventional@k" (the recommender's own top k),
        "effective", "similar", "incorrect", and the teacher's own report.

    Reference:
        Du et al., ALKDRec, AAAI 2025, Module 3.
    """
    report = read_json(run.folder.path / "rankings.report.json")
    lists = run.rankings()
    sessions, candidates = asked_sessions(run.folder.path, run.dataset)
    row_of = {session: row for row, session in enumerate(np.asarray(sessions.session_id).tolist())}
    rows = np.array([row_of[session] for session in lists.session_id.tolist()], int)
    shown = alkd.Sessions(
        *(np.asarray(leaf)[rows] for leaf in (sessions.items, sessions.mask, sessions.target, sessions.session_id))
    )
    target = np.asarray(shown.target)
    taught = holds(np.asarray(lists.items)[:, :k], target)
    known = holds(run.candidates(shown, num=k, name="student"), target)
    sizes = np.maximum((candidates[rows] > 0).sum(axis=1), 1)
    chance = holds(candidates[rows], target) * np.minimum(k / sizes, 1)
    return {
        "teacher": run.settings.ranker,
        "asked": len(sessions),
        "usable": len(lists),
        "hits@1": share(holds(np.asarray(lists.items)[:, :1], target)),
        "hits@5": share(holds(np.asarray(lists.items)[:, :5], target)),
        f"hits@{k}": share(taught),
        f"chance@{k}": share(chance) if run.settings.ranker in FROM_CANDIDATES else None,
        f"conventional@{k}": share(holds(run.candidates(shown, num=k), target)),
        "effective": share(taught & ~known),
        "similar": share(taught & known),
        "incorrect": share(~taught),
        "report": report,
    }


def holds(lists: Int[np.ndarray, "N K"], target: Int[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
    """Which rows hold their target."""
    return (lists == target[:, None]).any(axis=1)


def share(hits: np.ndarray) -> float:
    """Their mean; 0 of none."""
    return float(hits.mean()) if len(hits) else 0.0


def account_rows(account: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The account in words and numbers, for the report."""
    report = account["report"]
    rows = [
        ("teacher", f"{account['teacher']} {report.get('model', '')}".strip()),
        ("sessions asked about", f"{account['asked']:,}"),
        ("usable lists", f"{account['usable']:,} ({account['usable'] / max(1, account['asked']):.1%})"),
    ]
    for name in ("statuses", "repairs"):
        if report.get(name):
            counts = sorted(report[name].items())
            rows.append((name, ", ".join(f"{count:,} {kind}" for kind, count in counts)))
    if "cost" in report:
        rows += [
            ("requests answered or perhaps billed", f"{report['requests']:,}"),
            ("tokens", f"{report['tokens']:,}"),
            ("money", report["cost"]),
            ("wall time", f"{report['seconds']:,.1f} s"),
        ]
    else:
        rows.append(("money", "none: nobody was asked anew"))
    chance = account["chance@25"]
    hits = " / ".join(f"{account[f'hits@{k}']:.1%}" for k in (1, 5, 25))
    rows += [
        ("next item in the list: first, first 5, all 25", hits),
        ("the same by chance", "candidates not known" if chance is None else f"{chance:.1%}"),
        ("the recommender's own 25", f"{account['conventional@25']:.1%}"),
        (
            "effective / similar / incorrect",
            " / ".join(f"{account[name]:.1%}" for name in ("effective", "similar", "incorrect")),
        ),
    ]
    return rows
