"""Losses of single (session, item) pairs."""

import jax
from jaxtyping import Array, Float

from alkd_jax.losses.reduction import weighted_mean


def binary_cross_entropy(
    positive: Float[Array, " B"],
    negative: Float[Array, "B C"],
    *,
    weight: Float[Array, " B"] | None = None,
    where: Float[Array, "B C"] | None = None,
) -> Float[Array, ""]:
    """Positives towards 1, negatives towards 0.

    ``L = mean_b [softplus(−s⁺_b) + mean_c softplus(s⁻_bc)]``

    Args:
        positive: score of each row's target.
        negative: scores of its sampled negatives.
        weight: of the rows; 0 takes one out.
        where: weight of each negative within its row, 0 for one that is not to count.

    Returns:
        The weighted mean over rows.
    """
    losses = jax.nn.softplus(negative)
    share = jax.vmap(weighted_mean)(losses, where) if where is not None else losses.mean(-1)
    return weighted_mean(jax.nn.softplus(-positive) + share, weight)
