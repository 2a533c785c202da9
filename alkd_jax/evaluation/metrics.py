"""Recall, NDCG and MRR from ranks.

Each query has one relevant item, its target; recall is then the hit rate, and the ideal DCG is 1.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from alkd_jax.checks import LARGEST_RANK, check_count, check_ranks

Ranks = Integer[Array, "*batch"] | Integer[np.ndarray, "*batch"]


def recall(ranks: Ranks, k: int) -> Float[Array, "*batch"]:
    """``[r ≤ k]``: 1 where the target is among the first k items, else 0.

    Args:
        ranks: positions from 1.
        k: cut-off, at least 1.

    Raises:
        ValueError: a rank or the cut-off is no whole number of at least 1.
    """
    return (_checked(ranks) <= _cut_off(k)).astype(jnp.float32)


def ndcg(ranks: Ranks, k: int) -> Float[Array, "*batch"]:
    """``[r ≤ k] / log₂(1 + r)``; 1 where the target is first.

    Args:
        ranks: positions from 1.
        k: cut-off, at least 1.

    Raises:
        ValueError: a rank or the cut-off is no whole number of at least 1.
    """
    ranks = _checked(ranks)
    return jnp.where(ranks <= _cut_off(k), 1.0 / jnp.log2(1.0 + ranks), 0.0)


def reciprocal_rank(ranks: Ranks, k: int = LARGEST_RANK) -> Float[Array, "*batch"]:
    """``[r ≤ k] / r``; by default without a cut-off.

    Args:
        ranks: positions from 1.
        k: cut-off, at least 1.

    Raises:
        ValueError: a rank or the cut-off is no whole number of at least 1.
    """
    ranks = _checked(ranks)
    return jnp.where(ranks <= _cut_off(k), 1.0 / ranks, 0.0)


def from_ranks(ranks: Integer[np.ndarray, " P"], ks: Sequence[int] = (5, 10, 20)) -> dict[str, float]:
    """Averages every metric over queries.

    Args:
        ranks: ``[P]`` positions from 1, P at least 1.
        ks: cut-offs, at least 1.

    Returns:
        ``{"recall@5": …, "ndcg@5": …, "mrr@5": …, …, "mrr": …}``.

    Raises:
        ValueError: there are no ranks, or a rank or a cut-off is no whole number of at least 1.
    """
    return {metric: float(values.mean()) for metric, values in of_queries(ranks, ks).items()}


def of_queries(ranks: Integer[np.ndarray, " P"], ks: Sequence[int] = (5, 10, 20)) -> dict[str, Float[np.ndarray, " P"]]:
    """Computes every metric of each query, in float64.

    Args:
        ranks: ``[P]`` positions from 1, P at least 1.
        ks: cut-offs, at least 1.

    Returns:
        ``{"recall@5": …, "ndcg@5": …, "mrr@5": …, …, "mrr": …}``, each ``[P]``.

    Raises:
        ValueError: as in :func:`from_ranks`.
    """
    if ranks.size == 0:
        raise ValueError("number of ranks is 0; expected at least 1")
    values: dict[str, Float[Array, " P"]] = {}
    for k in ks:
        values |= {f"recall@{k}": recall(ranks, k), f"ndcg@{k}": ndcg(ranks, k), f"mrr@{k}": reciprocal_rank(ranks, k)}
    values["mrr"] = reciprocal_rank(ranks)
    return {metric: np.asarray(array, np.float64) for metric, array in values.items()}


def _checked(ranks: Ranks) -> Integer[Array, "*batch"]:
    check_ranks("ranks", ranks)
    return jnp.asarray(ranks)


def _cut_off(k: int) -> int:
    """Checks a cut-off; one beyond the type of the ranks excludes none of them."""
    check_count(1, k=k)
    return min(k, LARGEST_RANK)
