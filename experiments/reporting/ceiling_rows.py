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
TREES = "Re-ranker with trees (no student)"
ITEM_LABELS = {RE_RANKER: "Table of the re-ranker's labels for items", TREES: "Table of the trees' labels for items"}
SESSION_LABELS = {
    RE_RANKER: "Table of the re-ranker's labels for sessions",
    TREES: "Table of the trees' labels for sessions",
}
"""Re-ranker → names of the tables that it teaches."""

_SHORT = {RE_RANKER: "re-ranker", TREES: "re-ranker with trees"}


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
    """Returns a table for each re-ranker: its differences from other methods, with * where they are significant."""
    rows: dict[str, dict[str, list[str]]] = {}
    for test in found["tests"]:
        rows.setdefault(test["method"], {}).setdefault(test["against"], []).append(difference_with_interval(test))
    return "\n\n".join(
        tabulate.tabulate(
            [[markdown(name), *cells] for name, cells in against.items()],
            [f"{found['dataset']}: {_SHORT[method]} against", *METRICS],
            tablefmt="github",
            disable_numparse=True,
        )
        for method, against in rows.items()
    )
