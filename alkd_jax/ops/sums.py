"""Sums in double-float arithmetic, which lose nothing to cancellation in float32."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from alkd_jax.ops.platforms import cpu_or_device

DoubleFloat = tuple[Array, Array]
"""A number ``high + low`` that is kept as two floats: a rounded value and its rounding error."""

ROWS = 32
"""Terms that one lane adds up before the lanes are added to each other: few sequential steps, all lanes in parallel."""


def accurate_sum(terms: Float[Array, " N"]) -> Float[Array, ""]:
    """Sums numbers with about twice the precision of their type, in any order of summation.

    Args:
        terms: ``[N]`` numbers of any sign.

    Returns:
        The sum, ``[]``.

    Reference:
        Dekker, A floating-point technique for extending the available precision, Numer. Math. 1971.
    """
    high, low = double_float_sum((terms, jnp.zeros_like(terms)))
    return high + low


def double_float_sum(terms: DoubleFloat) -> DoubleFloat:
    """Computes :func:`accurate_sum` of double-float numbers.

    Args:
        terms: high and low parts, ``[N]`` each.

    Returns:
        The high and the low part of the sum, ``[]`` each.
    """
    return cpu_or_device(_sum_by_lanes, _sum_at_once)(terms)


def _sum_at_once(terms: DoubleFloat) -> DoubleFloat:
    """One reduction, in few operations: its order of sums costs two of the digits that the other form keeps."""
    zero = jnp.zeros((), terms[0].dtype)
    high, low = jax.lax.reduce(terms, (zero, zero), add_double_floats, (0,))
    return high, low


def _sum_by_lanes(terms: DoubleFloat) -> DoubleFloat:
    """Lanes of a few terms, one addition after another in each, until few lanes are left."""
    high, low = terms
    while high.shape[0] > ROWS**2:
        padding = (0, -high.shape[0] % ROWS)
        rows = (jnp.pad(high, padding).reshape(ROWS, -1), jnp.pad(low, padding).reshape(ROWS, -1))
        start = (jnp.zeros_like(rows[0][0]), jnp.zeros_like(rows[0][0]))
        (high, low), _ = jax.lax.scan(lambda total, row: (add_double_floats(total, row), None), start, rows)
    return _sum_at_once((high, low))


def add_double_floats(left: DoubleFloat, right: DoubleFloat) -> DoubleFloat:
    """Adds two double-float numbers."""
    total = left[0] + right[0]
    part = total - left[0]
    error = (left[0] - (total - part)) + (right[0] - part) + (left[1] + right[1])
    # Without this second rounding the low parts grow with N, and at 10^7 terms their own rounding error shows.
    high = total + error
    return high, error - (high - total)
