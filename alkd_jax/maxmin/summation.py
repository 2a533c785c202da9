"""Sums that lose nothing to cancellation in float32."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Split = tuple[Array, Array]


def accurate_sum(terms: Float[Array, " N"]) -> Float[Array, ""]:
    """Sums float32 numbers with about twice the precision of float32, in any order of summation.

    Args:
        terms: ``[N]`` float32, of any signs.

    Returns:
        The sum ``[]``.

    Reference:
        Dekker, A floating-point technique for extending the available precision, Numer. Math. 1971.
    """
    zero = jnp.zeros((), terms.dtype)
    high, low = jax.lax.reduce((terms, jnp.zeros_like(terms)), (zero, zero), add_split, (0,))
    return high + low


def add_split(left: Split, right: Split) -> Split:
    """Adds two numbers, each the unevaluated sum of a float and what it was rounded by."""
    total = left[0] + right[0]
    part = total - left[0]
    lost = (left[0] - (total - part)) + (right[0] - part) + (left[1] + right[1])
    # Without this second rounding the low parts grow with N, and at 10^7 terms their own rounding shows.
    high = total + lost
    return high, lost - (high - total)
