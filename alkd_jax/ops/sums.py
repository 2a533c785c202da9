"""Sums that lose nothing to cancellation in float32."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Split = tuple[Array, Array]

ROWS = 32
"""Numbers added to one lane before the lanes are added: few steps in a row, all lanes at once."""


def accurate_sum(terms: Float[Array, " N"]) -> Float[Array, ""]:
    """Sums numbers with about twice the precision of their type, in any order of summation.

    Args:
        terms: ``[N]`` of any signs.

    Returns:
        The sum ``[]``.

    Reference:
        Dekker, A floating-point technique for extending the available precision, Numer. Math. 1971.
    """
    high, low = split_sum((terms, jnp.zeros_like(terms)))
    return high + low


def split_sum(terms: Split) -> Split:
    """:func:`accurate_sum` of ``[N]`` numbers that are each the unevaluated sum of two, and so is what is returned."""
    high, low = terms
    while high.shape[0] > ROWS**2:
        padding = (0, -high.shape[0] % ROWS)
        rows = (jnp.pad(high, padding).reshape(ROWS, -1), jnp.pad(low, padding).reshape(ROWS, -1))
        start = (jnp.zeros_like(rows[0][0]), jnp.zeros_like(rows[0][0]))
        (high, low), _ = jax.lax.scan(lambda total, row: (add_split(total, row), None), start, rows)
    zero = jnp.zeros((), high.dtype)
    high, low = jax.lax.reduce((high, low), (zero, zero), add_split, (0,))
    return high, low


def add_split(left: Split, right: Split) -> Split:
    """Adds two numbers, each the unevaluated sum of a float and what it was rounded by."""
    total = left[0] + right[0]
    part = total - left[0]
    lost = (left[0] - (total - part)) + (right[0] - part) + (left[1] + right[1])
    # Without this second rounding the low parts grow with N, and at 10^7 terms their own rounding shows.
    high = total + lost
    return high, lost - (high - total)
