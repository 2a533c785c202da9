"""The weighted mean that all losses are reduced with."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def weighted_mean(values: Float[Array, "*batch"], weight: Float[Array, "*batch"] | None) -> Float[Array, ""]:
    """Computes ``Σ w l / Σ w``; 0 where all weights are 0. A value of weight 0 may be anything, NaN included.

    Args:
        values: losses l.
        weight: non-negative weights w; None weights all values alike.
    """
    if weight is None:
        return values.mean()
    total = weight.sum()
    finite_values = jnp.where(weight > 0, values, 0.0)
    return jnp.where(total > 0, (weight * finite_values).sum() / jnp.where(total > 0, total, 1.0), 0.0)
