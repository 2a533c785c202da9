"""The table of `experiments.steps`: how recall and NDCG change from the published number to ours."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tabulate

from alkd_jax.errors import markdown

from .results import format_cell, mean_and_std

STORED = pathlib.Path(__file__).resolve().parents[1] / "results" / "steps"
"""The folder of the stored results, which a wheel does not have."""

RELEASED_NDCG = "ndcg_released@10"
NOTE = (
    "A step is the change of recall@10 from the row above, so that the steps add up to the difference between the "
    "first row and the last; the interval is that of the paired seeds. The NDCG in hash order is that of the authors' "
    "code, which takes positions from a set."
)


def expected_best(values: Sequence[float], number: int) -> float:
    """Returns the mean, over all choices of so many of the values, of the largest one.

    ``Σ_i x_(i) · C(i − 1, n − 1) / C(S, n)`` over the S values in ascending order.

    Args:
        values: one for each seed.
        number: n, of seeds that are chosen, from 1 to S.
    """
    choices = math.comb(len(values), number)
    return sum(value * math.comb(rank, number - 1) / choices for rank, value in enumerate(sorted(values)))


def rows(result: Mapping[str, Any]) -> list[list[str]]:
    """Returns the rows: what changes, recall@10, its change and the interval of that, the student's, and NDCG@10.

    Args:
        result: as :func:`experiments.steps.make_steps` returns it.
    """
    method, number = result["method"], result["best_of"]
    first, *following = result["points"]
    recall = first["methods"][method]["recall@10"]
    best, published = expected_best(recall, number), result["published"].get(method)
    found = []
    if published is not None:
        of_student = result["published"].get("Student", {}).get("recall@10")
        student = "" if of_student is None else f"{of_student:.4f}"
        found.append(
            ["published", f"{published['recall@10']:.4f}", "", "", student, f"{published['ndcg@10']:.4f} (hash order)"]
        )
    rest = "" if published is None else f"{best - published['recall@10']:+.4f}"
    ndcg = f"{expected_best(first['methods'][method][RELEASED_NDCG], number):.4f} (hash order)"
    found.append([f"best of {number} seeds; {first['change']}", f"{best:.4f}", rest, "", "", ndcg])
    step = f"{np.mean(recall) - best:+.4f}"
    found.append(["mean of the seeds", *_cells(first, method, step, "", RELEASED_NDCG)])
    found.append(["NDCG by rank", "", "", "", "", format_cell(mean_and_std(first["methods"][method]["ndcg@10"]))])
    for point in following:
        interval = "{:+.4f} to {:+.4f}".format(*point["step_interval"])
        found.append([point["change"], *_cells(point, method, f"{point['step']:+.4f}", interval, "ndcg@10")])
    return found


def _cells(point: Mapping[str, Any], method: str, step: str, interval: str, ndcg: str) -> list[str]:
    of_method, of_student = point["methods"][method], point["methods"]["Student"]
    mark = " (hash order)" if ndcg == RELEASED_NDCG else ""
    recalls = [format_cell(mean_and_std(numbers["recall@10"])) for numbers in (of_method, of_student)]
    return [recalls[0], step, interval, recalls[1], format_cell(mean_and_std(of_method[ndcg])) + mark]


def page(result: Mapping[str, Any]) -> str:
    """Returns the table and the sentences about it, as Markdown.

    Args:
        result: as of :func:`rows`.
    """
    headings = ["", f"{result['method']} recall@10", "step", "95 % over seeds", "Student", "NDCG@10"]
    align = ["left"] + ["right"] * 5
    table = tabulate.tabulate(rows(result), headings, tablefmt="pipe", disable_numparse=True, colalign=align)
    about = f"{markdown(result['dataset'])}, {markdown(result['backbone'])}, {result['seeds']} seeds."
    return "\n\n".join([about, table, NOTE, *_released_student(result)]) + "\n"


def _released_student(result: Mapping[str, Any]) -> list[str]:
    """Returns where the authors' own student lies among ours by the same rules."""
    if result["released_student"] is None:
        return []
    own = result["released_student"]["recall@10"]
    (values,) = (point["methods"]["Student"]["recall@10"] for point in result["points"] if point["mode"] == "released")
    deviations, above = (own - np.mean(values)) / np.std(values, ddof=1), sum(value > own for value in values)
    return [
        f"The authors' student has {own:.4f} by their rules: {deviations:+.1f} standard deviations from the mean of "
        f"our students, {format_cell(mean_and_std(values))}. {above} of {len(values)} are above it."
    ]
