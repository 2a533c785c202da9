"""A table of the metrics beyond accuracy: which items lists contain, and recall with more weight on rare targets."""

from collections.abc import Mapping
from typing import Any

from .results import DEBIASED, format_cell, mean_and_std

LIST_COLUMNS = {"coverage@10": 4, "gini@10": 4, "popularity@10": 1, "novelty@10": 2}
"""Metrics of the top-k lists that tables show, and their numbers of decimals."""

HEADINGS = ("method", *LIST_COLUMNS, "weighted recall@10")

NOTE = (
    "Coverage is the share of the items that at least one list contains; the Gini index is 0 where all items are "
    "listed equally often, and near 1 where few items take all places. Popularity is the mean number of training "
    "occurrences of the listed items, novelty their mean self-information in bits. In weighted recall a target weighs "
    "the inverse square root of its training count."
)


def beyond_accuracy_rows(methods: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Returns a row for every method of which these metrics are known; runs of earlier versions have none.

    Args:
        methods: name → metric → ``{"mean", "std", "values"}``, or the values alone, as stored results have them.
    """
    decimals = LIST_COLUMNS | {DEBIASED: 4}
    rows = []
    for name, columns in methods.items():
        cells = [_cell(columns[metric], places) if metric in columns else "" for metric, places in decimals.items()]
        if any(cells):
            rows.append([name, *cells])
    return rows


def _cell(column: Any, decimals: int) -> str:
    numbers = column if isinstance(column, Mapping) else mean_and_std(column)
    return format_cell(numbers, decimals=decimals)
