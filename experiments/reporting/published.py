"""The results that the paper's tables state, in `published.json`."""

import pathlib
from collections.abc import Mapping
from typing import Any

from alkd_jax.io import read_json


def published_results(table: str) -> Mapping[str, Any]:
    """Reads the published results of a table.

    Returns:
        ``{DATASET: {BACKBONE: {METHOD: {METRIC: value}}}, "implausible": {DATASET: {BACKBONE: [METHOD, …]}}}``; the
        results of an implausible method fit the other dataset's test size.
    """
    numbers = read_json(pathlib.Path(__file__).with_name("published.json"))
    return numbers[table] | {"implausible": numbers["implausible"]}


def published_by_row(dataset: str) -> dict[str, Any]:
    """Returns the published results of both tables; their NDCG is not computed from ranks."""
    rows: dict[str, Any] = {}
    for table in ("table1", "table2"):
        for backbone, methods in published_results(table).get(dataset, {}).items():
            for method, numbers in methods.items():
                rows[f"{method}, {backbone} (published)"] = numbers
    return rows


def published_by_method(dataset: str, backbone: str) -> dict[str, Any]:
    """Returns method → the published results, of both tables."""
    both = (published_results(name).get(dataset, {}).get(backbone, {}) for name in ("table2", "table1"))
    return {method: numbers for one in both for method, numbers in one.items()}


def format_published(numbers: Mapping[str, float], metric: str, *, implausible: bool) -> str:
    """Formats a published number, with ‡ where it is implausible."""
    if metric not in numbers:
        return ""
    falls = metric.startswith("ndcg") and numbers["ndcg@10"] < numbers.get("ndcg@5", 0.0)
    return f"{numbers[metric]:.5f}{' ‡' if falls or implausible else ''}"
