"""Groups of queries whose metrics are reported apart: popular and rare targets, short and long sessions, positions."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Int32

from alkd_jax.checks import check_span, check_where
from alkd_jax.evaluation import metrics

POPULARITY = ("head", "mid", "tail", "unseen")


@dataclasses.dataclass(frozen=True)
class Groups:
    """A partition of P queries.

    Attributes:
        names: the names of the groups.
        number: ``[P]`` int32, number of each query's group in ``names``.
    """

    names: tuple[str, ...]
    number: Int32[np.ndarray, " P"]


def by_popularity(target: Int[np.ndarray, " P"], counts: Int[np.ndarray, " V1"] | Float[np.ndarray, " V1"]) -> Groups:
    """Groups queries by the popularity of their target: head, mid, tail, and targets that training does not contain.

    An item is in the head if the items that are more popular than it have less than a third of the training
    interactions together, in the mid if they have less than two thirds, else in the tail. The three groups of items
    have about equal shares of the interactions, and equally popular items are in the same group.

    Args:
        target: ``[P]`` the queries' targets, in ``1..V``.
        counts: number of occurrences of each item in the training sessions.

    Raises:
        ValueError: a target is outside ``1..V``, or a count is negative.
    """
    counts = np.asarray(counts, np.float64)
    check_where(np.isfinite(counts) & (counts >= 0), "counts", counts, "a finite number of at least 0")
    check_span("target", target, 1, len(counts) - 1)
    levels, level = np.unique(counts[1:], return_inverse=True)
    interactions = levels * np.bincount(level, minlength=len(levels))
    share = (interactions.sum() - np.cumsum(interactions)) / max(interactions.sum(), 1.0)
    group_of_level = np.where(levels == 0, 3, (share >= 1 / 3).astype(np.int32) + (share >= 2 / 3))
    return Groups(POPULARITY, group_of_level[level][np.asarray(target) - 1].astype(np.int32))


def by_value(values: Int[np.ndarray, " P"], upper_bounds: Sequence[int], *, name: str) -> Groups:
    """Groups queries by a whole number, such as the length of their session or their position in it.

    Args:
        values: ``[P]`` the numbers.
        upper_bounds: the largest number of each group but the last, ascending.
        name: what the numbers are, for the names of the groups.

    Raises:
        ValueError: the bounds are not ascending.

    Example:
        >>> by_value(np.array([2, 9, 6]), (2, 5), name="length")
        Groups(names=('length ≤ 2', 'length 3–5', 'length ≥ 6'), number=array([0, 2, 2], dtype=int32))
    """
    bounds = np.asarray(upper_bounds, np.int64)
    if bounds.size == 0 or (np.diff(bounds) <= 0).any():
        raise ValueError(f"upper_bounds are {tuple(upper_bounds)}; expected at least one number, in ascending order")
    between = [
        f"{name} {low + 1}–{high}" if low + 1 < high else f"{name} {high}"
        for low, high in itertools.pairwise(bounds.tolist())
    ]
    names = (f"{name} ≤ {bounds[0]}", *between, f"{name} ≥ {bounds[-1] + 1}")
    return Groups(names, np.searchsorted(bounds, values).astype(np.int32))


def by_session_length(session_length: Int[np.ndarray, " P"], upper_bounds: Sequence[int] = (5, 10, 20)) -> Groups:
    """Groups queries by the number of items of their session, targets included, see :func:`by_value`."""
    return by_value(session_length, upper_bounds, name="length")


def by_position(position: Int[np.ndarray, " P"], upper_bounds: Sequence[int] = (0, 1, 4, 9)) -> Groups:
    """Groups queries by the index of their last known item in its session, see :func:`by_value`."""
    return by_value(position, upper_bounds, name="position")


def metrics_of_groups(
    ranks: Int[np.ndarray, " P"], groups: Groups, ks: Sequence[int] = (5, 10, 20)
) -> dict[str, dict[str, Any]]:
    """Averages every metric over the queries of each group.

    Args:
        ranks: ``[P]`` positions from 1.
        groups: of the same queries.
        ks: cut-offs, at least 1.

    Returns:
        Group → ``{"queries": n, "recall@5": …, …}``; the numbers of queries add up to P. An empty group has no metrics.

    Raises:
        ValueError: there are no queries, the numbers of ranks and queries differ, or a rank or a cut-off is no whole
            number of at least 1.
    """
    if np.shape(ranks) != groups.number.shape:
        raise ValueError(f"ranks has shape {np.shape(ranks)}; expected {groups.number.shape}, as of the groups")
    values = metrics.of_queries(ranks, ks)
    table: dict[str, dict[str, Any]] = {}
    for number, name in enumerate(groups.names):
        own = groups.number == number
        means = {metric: float(of_query[own].mean()) for metric, of_query in values.items()} if own.any() else {}
        table[name] = {"queries": int(own.sum())} | means
    return table
