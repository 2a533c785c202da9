"""Initial values of kernels that consist of blocks, and of item tables."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from alkd_jax.ops.packed_rows import draw_table


def uniform(bound: float) -> Callable[[jax.Array, tuple[int, ...]], Array]:
    """Returns an initializer of numbers that are uniform in ±bound."""
    return lambda key, shape: jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def uniform_table(bound: float) -> Callable[[jax.Array, tuple[int, int]], Any]:
    """Returns an initializer of item tables, uniform in ±bound; 0 in the padding row."""
    return lambda key, shape: draw_table(uniform(bound), key, shape)


def glorot_bound(inputs: int, outputs: int) -> float:
    """``√(6 / (inputs + outputs))``, the bound of uniform initial values."""
    return (6.0 / (inputs + outputs)) ** 0.5


def glorot_blocks(key: jax.Array, shape: tuple[int, int], *, num_blocks: int = 3) -> Float[Array, "I D"]:
    """Initial values of blocks side by side, each uniform in ``±√(6 / (inputs + outputs))`` of its own size.

    Args:
        key: a JAX key.
        shape: rows, and the columns of all blocks.
        num_blocks: the number of blocks, three in a recurrent unit's kernels.
    """
    bound = glorot_bound(shape[0], shape[1] // num_blocks)
    return jax.random.uniform(key, shape, jnp.float32, minval=-bound, maxval=bound)
