"""How narrow matrices lie in a TPU's memory, which is tiled by 8 x 128 numbers over the last two axes."""

from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float

_NARROW_WIDTH = 64
"""Rows of at most this width fill at most half of the 128 lanes that they are padded to."""


def by_rows(x: Float[Array, "N D"]) -> Float[Array, "N D"]:
    """Asks the compiler to store a narrow matrix by rows, in which form rows are gathered and scattered."""
    return _with_layout(x, (0, 1))


def by_columns(x: Float[Array, "N D"]) -> Float[Array, "N D"]:
    """Asks the compiler to store a narrow matrix by columns, in which form few lanes are empty."""
    return _with_layout(x, (1, 0))


def _with_layout(x: Float[Array, "N D"], major_to_minor: tuple[int, int]) -> Float[Array, "N D"]:
    return x if x.shape[1] > _NARROW_WIDTH else with_layout_constraint(x, Layout(major_to_minor=major_to_minor))
