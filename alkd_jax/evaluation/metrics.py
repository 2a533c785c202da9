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
    if ranks.size == 0:
        raise ValueError("number of ranks is 0; expected at least 1")

    def average(values: Float[Array, " P"]) -> float:
        return float(np.asarray(values, np.float64).mean())

    averages: dict[str, float] = {}
    for k in ks:
        averages[f"recall@{k}"] = average(recall(ranks, k))
        averages[f"ndcg@{k}"] = average(ndcg(ranks, k))
        averages[f"mrr@{k}"] = average(reciprocal_rank(ranks, k))
    averages["mrr"] = average(reciprocal_rank(ranks))
    return averages


def _checked(ranks: Ranks) -> Integer[Array, "*batch"]:
    check_ranks("ranks", ranks)
    return jnp.asarray(ranks)


def _cut_off(k: int) -> int:
    """Checks a cut-off; one beyond the type of the ranks excludes none of them."""
    check_count(1, k=k)
    return min(k, LARGEST_RANK)
