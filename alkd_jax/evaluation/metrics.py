"""Recall, NDCG and MRR from ranks.

Each session has one relevant item, its target; recall is then the hit rate, and the ideal DCG is 1.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from alkd_jax.checks import check_at_least, check_where

Ranks = Integer[Array, "*batch"] | Integer[np.ndarray, "*batch"]


def recall(ranks: Ranks, k: int) -> Float[Array, "*batch"]:
    """``[r ≤ k]``: 1 where the target is among the first k items, else 0.

    Args:
        ranks: positions from 1.
        k: cut-off, at least 1.
    """
    return (jnp.asarray(ranks) <= k).astype(jnp.float32)


def ndcg(ranks: Ranks, k: int) -> Float[Array, "*batch"]:
    """``[r ≤ k] / log₂(1 + r)``; 1 where the target is first.

    Args:
        ranks: positions from 1.
        k: cut-off, at least 1.
    """
    ranks = jnp.asarray(ranks)
    return jnp.where(ranks <= k, 1.0 / jnp.log2(1.0 + ranks), 0.0)


def reciprocal_rank(ranks: Ranks) -> Float[Array, "*batch"]:
    """``1 / r``, without a cut-off.

    Args:
        ranks: positions from 1.
    """
    return 1.0 / jnp.asarray(ranks)


def from_ranks(ranks: Integer[np.ndarray, " N"], ks: Sequence[int] = (5, 10)) -> dict[str, float]:
    """Averages every metric over sessions.

    Args:
        ranks: ``[N]`` positions from 1, N at least 1.
        ks: cut-offs, at least 1.

    Returns:
        ``{"recall@5": …, "ndcg@5": …, …, "mrr": …}``.

    Raises:
        ValueError: there are no ranks, a rank is below 1, or a cut-off is below 1.
    """
    if ranks.size == 0:
        raise ValueError("number of ranks is 0; expected at least 1")
    check_where(ranks >= 1, "ranks", ranks, "at least 1")
    check_at_least(1, k=min(ks, default=1))

    def average(values: Float[Array, " N"]) -> float:
        return float(np.asarray(values, np.float64).mean())

    averages: dict[str, float] = {}
    for k in ks:
        averages[f"recall@{k}"] = average(recall(ranks, k))
        averages[f"ndcg@{k}"] = average(ndcg(ranks, k))
    averages["mrr"] = average(reciprocal_rank(ranks))
    return averages
