"""Sums that lose nothing to cancellation in float32."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Split = tuple[Array, Array]


def accurate_sum(terms: Float[Array, " N"]) -> Float[Array, ""]:
    """Sums float32 numbers with about twice the precision of float32.

    Args:
        terms: ``[N]`` float32, of any signs.

    Returns:
        The sum ``[]``.

    Reference:
        Ogita, Rump, Oishi, Accurate sum and dot product, SIAM J. Sci. Comput. 2005.
    """
    zero = jnp.zeros((), terms.dtype)
    total, error = jax.lax.reduce((terms, jnp.zeros_like(terms)), (zero, zero), add_with_error, (0,))
    return total + error


def add_with_error(left: Split, right: Split) -> Split:
    """Adds two (number, rounding error) pairs, so that no rounding error of the first is lost."""
    total = left[0] + right[0]
    part = total - left[0]
    lost = (left[0] - (total - part)) + (right[0] - part)
    return total, left[1] + right[1] + lost
