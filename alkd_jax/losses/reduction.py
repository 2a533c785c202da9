"""The one way losses are averaged: by weight, over what counts, 0 where nothing does."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def weighted_mean(values: Float[Array, "*batch"], weight: Float[Array, "*batch"] | None) -> Float[Array, ""]:
    """``Σ w l / Σ w``; 0 where all weights are 0. A value of weight 0 may be anything, NaN included.

    Args:
        values: losses.
        weight: non-negative; None for 1 everywhere.
    """
    if weight is None:
        return values.mean()
    total = weight.sum()
    kept = jnp.where(weight > 0, values, 0.0)
    return jnp.where(total > 0, (weight * kept).sum() / jnp.where(total > 0, total, 1.0), 0.0)
