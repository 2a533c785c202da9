"""Losses of single (session, item) pairs."""

import jax
from jaxtyping import Array, Float

from alkd_jax.losses.reduction import weighted_mean
from alkd_jax.ops.precision import at_least_float32


def binary_cross_entropy(
    positive: Float[Array, " B"],
    negative: Float[Array, "B C"],
    *,
    weight: Float[Array, " B"] | None = None,
    where: Float[Array, "B C"] | None = None,
) -> Float[Array, ""]:
    """Binary cross-entropy with label 1 for targets and label 0 for negatives.

    ``L = mean_b [softplus(−s⁺_b) + mean_c softplus(s⁻_bc)]``

    Args:
        positive: score s⁺ of each row's target.
        negative: scores s⁻ of its sampled negatives.
        weight: non-negative weight of each row; 0 excludes a row.
        where: weight of each negative within its row; 0 excludes a negative.

    Returns:
        The weighted mean over rows.
    """
    positive, negative = at_least_float32(positive), at_least_float32(negative)
    losses = jax.nn.softplus(negative)
    row_losses = jax.vmap(weighted_mean)(losses, where) if where is not None else losses.mean(-1)
    return weighted_mean(jax.nn.softplus(-positive) + row_losses, weight)
