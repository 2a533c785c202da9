"""The stored results of runs of `experiments.train`, as `experiments.record` writes them."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from alkd_jax.io import read_json

STORED = pathlib.Path(__file__).resolve().parents[1] / "results" / "sequential"
"""The folder of those that are stored beside the code; it need not exist."""
_OF_SEEDS = frozenset({"seed", "seeds"})


def read(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Reads the stored runs of a folder, in the order of their names."""
    return [read_json(file) for file in sorted(folder.glob("*.json"))]


def merged(stored: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Joins runs that differ in their seeds alone, in the order of the first ones.

    Returns:
        As the stored runs, and "minutes", the mean time of a seed.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for run in stored:
        options = {name: value for name, value in run["training"].items() if name not in _OF_SEEDS}
        groups.setdefault(json.dumps([run["dataset"], options], sort_keys=True), []).append(run)
    return [_joined(runs) for runs in groups.values()]


def _joined(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    def columns(name: str) -> dict[str, list[float]]:
        metrics = [metric for metric in runs[0][name] if all(metric in run[name] for run in runs)]
        return {metric: [value for run in runs for value in run[name][metric]] for metric in metrics}

    seeds = sum(run["seeds"] for run in runs)
    seconds = sum(sum(run["seconds"].values()) for run in runs)
    return dict(runs[0]) | {
        "seeds": seeds,
        "test": columns("test"),
        "validation": columns("validation"),
        "epochs": [epoch for run in runs for epoch in run["epochs"]],
        "minutes": seconds / seeds / 60,
    }
