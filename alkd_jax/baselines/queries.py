"""The type of scoring functions, and the queries that they share.

A scoring function is called as ``(counts, items, mask) -> scores``. ``functools.partial`` sets its options before it is
passed to :func:`alkd_jax.baselines.rank_targets` or :func:`alkd_jax.baselines.top_k_lists`. It runs on the host in
float64, so that rounding does not hide the tie-break of 1e-6. All scoring functions of this package have in common:

Args:
    counts: the counts of the training sessions.
    items: ``[B, L]``, queries in time order, ids in ``1..V`` on real items.
    mask: ``[B, L]``, True on real items.

Returns:
    ``[B, V + 1]`` scores of all items, those in the query included; column 0 is padding.

Raises:
    ValueError: a query contains an id outside ``1..V``, or an option is out of range.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from alkd_jax.baselines.counts import Counts
from alkd_jax.checks import check_finite, check_span
from alkd_jax.types import PAD

# Scores are compared after rounding to this many decimals: sums of the same cosines in another order differ by 1e-16,
# one occurrence in the tie-break by 1e-6 / (largest popularity).
_DECIMALS = 12

BATCH_SIZE = 64
"""Queries scored at a time by default: few enough that the scores of a large catalogue stay in the cache."""

Scorer: TypeAlias = Callable[
    [Counts, Int[np.ndarray, "B L"], Bool[np.ndarray, "B L"]],
    Float[np.ndarray, "B V1"],
]


def call_scorer(
    score_function: Scorer, counts: Counts, items: Int[np.ndarray, "B L"], mask: Bool[np.ndarray, "B L"]
) -> Float[np.ndarray, "B V1"]:
    """Returns the scores of a scoring function.

    Raises:
        ValueError: they are not finite ``[B, V + 1]``.
    """
    scores = score_function(counts, items, mask)
    expected = (len(items), counts.num_items + 1)
    if scores.shape != expected:
        raise ValueError(f"shape of scores is {scores.shape}; expected finite scores of shape {expected}")
    check_finite("scores", scores)
    return scores


def break_ties(counts: Counts, scores: Float[np.ndarray, "B V1"]) -> Float[np.ndarray, "B V1"]:
    """Returns ``score(v) + 10⁻⁶ pop(v) / max pop``, rounded so that equal scores are equal floats; −inf for padding.

    The more popular of two items with equal scores comes first: this is a part of every method's definition, and not a
    rule for ties.
    """
    broken = np.round(scores + 1e-6 * counts.popularity / counts.popularity.max(), _DECIMALS)
    broken[:, PAD] = -np.inf
    return broken


def query_matrix(
    counts: Counts, items: Int[np.ndarray, "B L"], mask: Bool[np.ndarray, "B L"], weights: Float[np.ndarray, "B L"]
) -> csr_array:
    """Returns the queries as a sparse ``[B, V + 1]`` matrix of item weights, summed over repeated items."""
    check_query_items(counts, items, mask)
    row, position = np.nonzero(mask & (weights != 0))
    shape = (items.shape[0], counts.num_items + 1)
    return csr_array((weights[row, position], (row, items[row, position])), shape=shape)


def steps_to_end(mask: Bool[np.ndarray, "B L"]) -> Int[np.ndarray, "B L"]:
    """Returns the number of real items after each position."""
    return mask.sum(axis=1, keepdims=True) - np.cumsum(mask, axis=1)


def check_query_items(counts: Counts, items: Int[np.ndarray, "B L"], mask: Bool[np.ndarray, "B L"]) -> None:
    """Refuses queries with an id outside ``1..V``.

    Raises:
        ValueError: an id is outside.
    """
    check_span("items of the queries", items[mask], 1, counts.num_items)


def check_recency(recency: float) -> None:
    """Refuses a decay of item weights with the steps to the end that is outside (0, 1].

    Raises:
        ValueError: it is outside.
    """
    if not 0.0 < recency <= 1.0:
        raise ValueError(f"recency is {recency}; expected a number in (0, 1]")
