"""The demo on built-in data of other seeds, stored so that a report can show how much one dataset says.

The generator's parameters were fixed before any selection was compared, and no seed was left out. A row is made by
`quickstart --data-seed N` and :func:`record_of` of its `metrics.json`.
"""

import functools
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..pipeline.settings import Settings
from .comparisons import difference_with_interval

METHODS = ("Student", "Shuffled lists", "Random", "ALKDRec", "Sequential rules")
PAIRS = (("ALKDRec", "Student"), ("ALKDRec", "Random"))
HEADINGS = ("data", *METHODS, *(f"{method} − {against}" for method, against in PAIRS))
SAME = ("backbone", "seeds", "budget", "selection", "methods", "accuracy", "seed", "mode", "student_dim", "teacher_dim")
"""Options that a run shares with the stored ones, if these are to be shown beside it."""
_METRIC = "recall@10"


def record_of(results: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is stored of a run: recall@10 of some methods, and differences with their intervals.

    Args:
        results: the content of `metrics.json`.
    """
    tests = {(test["method"], test["against"]): test for test in results["tests"] if test["metric"] == _METRIC}
    names = ("difference", "interval", "p_randomization_holm")
    return {
        "recall@10": {name: results["methods"][name][_METRIC]["mean"] for name in METHODS},
        "differences": [{name: tests[pair][name] for name in names} for pair in PAIRS],
    }


@functools.cache
def stored() -> dict[str, Any]:
    """Returns the stored rows: "settings", and "rows" from data to what :func:`record_of` returns."""
    text = importlib.resources.files(__package__).joinpath("demo_seeds.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def rows_beside(settings: Settings, results: Mapping[str, Any]) -> Sequence[Sequence[str]]:
    """Returns the run's row and the stored rows of other data; none where the run is not one of the demo.

    Args:
        settings: of the run.
        results: of the run, as of :func:`record_of`.
    """
    held = stored()
    same = {name: getattr(settings, name) for name in SAME}
    if not settings.data.startswith("synthetic") or same != held["settings"]:
        return []
    own = settings.data if ":" in settings.data else f"{settings.data}:0"
    rows = {own: record_of(results)} | {data: row for data, row in held["rows"].items() if data != own}
    return [
        [
            f"{data} (this page)" if data == own else data,
            *(f"{row['recall@10'][name]:.4f}" for name in METHODS),
            *map(difference_with_interval, row["differences"]),
        ]
        for data, row in rows.items()
    ]
