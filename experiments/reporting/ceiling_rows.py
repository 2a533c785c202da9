"""The tables of `experiments.ceiling`: a re-ranker that does not ship, beside rules and the best student."""

import pathlib
from collections.abc import Mapping
from typing import Any

import tabulate

from alkd_jax.errors import markdown
from alkd_jax.io import read_json

from ..pipeline.compact_students import METRICS
from .comparisons import difference_with_interval

STORED = pathlib.Path(__file__).resolve().parents[1] / "results" / "ceiling"
"""The folder of the stored results, which a wheel does not have."""

RE_RANKER = "Linear re-ranker (no student)"
ITEM_LABELS = "Table of the re-ranker's labels for items"
SESSION_LABELS = "Table of the re-ranker's labels for sessions"


def read(folder: pathlib.Path = STORED) -> dict[str, dict[str, Any]]:
    """Reads the stored results of a folder, name → numbers of `ceiling`."""
    return {file.stem: read_json(file) for file in sorted(folder.glob("*.json"))}


def table(found: Mapping[str, Any]) -> str:
    """Returns recall@10 / ndcg@10 of each method on validation and test, and of seen and unseen targets."""
    parts = ("validation", "test", "seen", "unseen")
    rows = [
        [
            markdown(name),
            *(
                " / ".join(f"{row[part][metric]:.4f}" if metric in row[part] else "–" for metric in METRICS)
                for part in parts
            ),
        ]
        for name, row in sorted(found["methods"].items(), key=lambda each: each[1]["test"]["recall@10"])
    ]
    headings = [found["dataset"], "validation", "test", "seen targets", "unseen targets"]
    return tabulate.tabulate(rows, headings, tablefmt="github", disable_numparse=True)


def differences(found: Mapping[str, Any]) -> str:
    """Returns the differences of the re-ranker from each method, with * where they are significant over sessions."""
    rows: dict[str, list[str]] = {}
    for test in found["tests"]:
        rows.setdefault(test["against"], []).append(difference_with_interval(test))
    headings = [f"{found['dataset']}: re-ranker against", *METRICS]
    return tabulate.tabulate(
        [[markdown(name), *cells] for name, cells in rows.items()], headings, tablefmt="github", disable_numparse=True
    )
