"""Quality and cost of the teacher's lists: how often they hold the next item, beside chance and the recommender."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from alkd_jax.io import read_json

from ..pipeline.llm_settings import sessions_to_rank
from ..pipeline.methods import needed_selections
from ..pipeline.stage_records import checked_output
from ..pipeline.stages import Run
from ..pipeline.teachers import TEACHERS, title_of


def measure_quality(run: Run, *, k: int = 25) -> dict[str, Any]:
    """Compares the lists in `rankings.jsonl` with the held-out items, which no earlier stage has used.

    A list is effective where it holds the next item and the student's own top k does not, similar where both do, and
    incorrect where it does not.

    Args:
        run: with rankings and a trained student.
        k: length of the lists compared.

    Returns:
        "teacher"; "lists", whose lists they are; "asked" and "usable", numbers of sessions; shares of the usable
        lists: "hits@1", "hits@5" and "hits@k", "chance@k" (a random choice of k candidates; None where the candidates
        are unknown), "conventional@k" (the recommender's own top k), "effective", "similar" and "incorrect";
        "selections", these shares by :func:`shares_by_selection`; and the teacher's "report".

    Reference:
        Du et al., ALKDRec, AAAI 2025, Module 3.
    """
    report = read_json(checked_output(run.folder.path, "rankings.report.json"))
    lists = run.rankings()
    sessions, candidates = sessions_to_rank(run.folder.path, run.dataset)
    rows = sessions.rows_of(lists.session_id)
    ranked = sessions.take(rows)
    target = np.asarray(ranked.target)
    teacher_hits = is_hit(np.asarray(lists.items)[:, :k], target)
    student_hits = is_hit(np.asarray(run.candidates(ranked, num=k, name="student").items), target)
    outcomes = {
        "effective": teacher_hits & ~student_hits,
        "similar": teacher_hits & student_hits,
        "incorrect": ~teacher_hits,
    }
    num_candidates = np.maximum((candidates[rows] > 0).sum(axis=1), 1)
    chance = is_hit(candidates[rows], target) * np.minimum(k / num_candidates, 1)
    return {
        "teacher": run.settings.resolved_teacher,
        "lists": title_of(run.settings.resolved_teacher),
        "asked": len(sessions),
        "usable": len(lists),
        "hits@1": share(is_hit(np.asarray(lists.items)[:, :1], target)),
        "hits@5": share(is_hit(np.asarray(lists.items)[:, :5], target)),
        f"hits@{k}": share(teacher_hits),
        f"chance@{k}": share(chance) if TEACHERS.find(run.settings.resolved_teacher).from_candidates else None,
        f"conventional@{k}": share(is_hit(np.asarray(run.candidates(ranked, num=k).items), target)),
        **{name: share(rows) for name, rows in outcomes.items()},
        "selections": shares_by_selection(run, np.asarray(lists.session_id), outcomes),
        "report": report,
    }


def shares_by_selection(
    run: Run, session_id: Int[np.ndarray, " N"], outcomes: Mapping[str, Bool[np.ndarray, " N"]]
) -> dict[str, dict[str, Any]]:
    """Returns, for each selection that a method of the run needs, its sessions, its usable lists, and their shares.

    Args:
        run: the run.
        session_id: of the usable lists.
        outcomes: name → which lists have this outcome.
    """
    selections = read_json(checked_output(run.folder.path, "selection.json"))
    found = {}
    for name in needed_selections(run.settings.method_names):
        of_selection = np.isin(session_id, selections.get(name, []))
        shares = {outcome: share(rows[of_selection]) for outcome, rows in outcomes.items()}
        found[name] = {"sessions": len(selections.get(name, [])), "usable": int(of_selection.sum())} | shares
    return found


def count_sentence(quality: Mapping[str, Any]) -> str:
    """Returns how many sessions were chosen, asked about and answered, as a sentence whose numbers add up."""
    chosen = [f"{part['sessions']:,} by {name}" for name, part in quality["selections"].items()]
    without = quality["asked"] - quality["usable"]
    lists = "all have a usable list" if without == 0 else f"{quality['usable']:,} have a usable list, {without:,} none"
    return f"Chosen: {', '.join(chosen)}; these are {quality['asked']:,} different sessions, of which {lists}."


def is_hit(lists: Int[np.ndarray, "N K"], target: Int[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
    """Returns which rows hold their target."""
    return (lists == target[:, None]).any(axis=1)


def share(hits: np.ndarray) -> float:
    """Returns the mean of hits; 0 where there are none."""
    return float(hits.mean()) if len(hits) else 0.0


def quality_rows(quality: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Formats the result of :func:`measure_quality` as rows of name and value for the report."""
    report = quality["report"]
    rows = [
        ("lists by", f"{quality['lists']} {report.get('model', '')}".strip()),
        *((f"sessions chosen by {name}", f"{part['sessions']:,}") for name, part in quality["selections"].items()),
        ("different sessions among them, asked about", f"{quality['asked']:,}"),
        ("usable lists", f"{quality['usable']:,} ({quality['usable'] / max(1, quality['asked']):.1%})"),
    ]
    for name in ("statuses", "repairs"):
        if report.get(name):
            counts = sorted(report[name].items())
            rows.append((f"{name} of answers", ", ".join(f"{count:,} {kind}" for kind, count in counts)))
    if "cost" in report:
        rows += [
            ("requests answered or possibly billed", f"{report['requests']:,}"),
            ("tokens", f"{report['tokens']:,}"),
            ("money", report["cost"]),
            ("wall time", f"{report['seconds']:,.1f} s"),
        ]
    else:
        rows.append(("money", "none: no answer was paid for in this run"))
    chance = quality["chance@25"]
    hits = " / ".join(f"{quality[f'hits@{k}']:.1%}" for k in (1, 5, 25))
    rows += [
        ("next item in the list: first, first 5, all 25", hits),
        ("the same by chance", "candidates not known" if chance is None else f"{chance:.1%}"),
        ("the same in the recommender teacher's own 25", f"{quality['conventional@25']:.1%}"),
        ("effective / similar / incorrect", _outcomes(quality)),
        *(
            (f"the same for the sessions chosen by {name}", _outcomes(part))
            for name, part in quality["selections"].items()
        ),
    ]
    return rows


def _outcomes(shares: Mapping[str, Any]) -> str:
    return " / ".join(f"{shares[name]:.1%}" for name in ("effective", "similar", "incorrect"))
