"""Sums over many rows, computed in blocks of rows, which bounds the memory of their intermediate arrays."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from alkd_jax.ops.platforms import cpu_or_device

_CPU_BLOCK, _DEVICE_BLOCK = 2**16, 2**22
"""Rows in a block: a block fits a CPU's cache, or occupies another device fully."""


def reduce_blocks(function: Callable[[Any, Bool[Array, " C"]], Any], reduce: Callable[[Any], Any], rows: Any) -> Any:
    """Computes ``reduce(function of each block)``; the platform decides the size of the blocks.

    Args:
        function: takes a block and a mask of its rows that count. The last block overlaps the one before it, so that
            all blocks have the same size; the mask excludes the overlap.
        reduce: takes the results of ``function`` with a leading axis of blocks, and returns shapes without that axis.
        rows: a tree of arrays with the same first axis; arrays without an axis are part of every block.
    """
    (num,) = {leaf.shape[0] for leaf in jax.tree.leaves(rows) if leaf.ndim}

    def in_blocks(size: int) -> Callable[[Any], Any]:
        return lambda rows: reduce(_map_blocks(function, rows, num, size))

    if num <= _CPU_BLOCK:
        return in_blocks(num)(rows)
    return cpu_or_device(in_blocks(_CPU_BLOCK), in_blocks(min(num, _DEVICE_BLOCK)))(rows)


def _map_blocks(function: Callable[[Any, Bool[Array, " C"]], Any], rows: Any, num: int, size: int) -> Any:
    def of_block(number: Int[Array, ""]) -> Any:
        start = jnp.minimum(number * size, num - size)
        block = jax.tree.map(
            lambda array: jax.lax.dynamic_slice_in_dim(array, start, size) if array.ndim else array, rows
        )
        return function(block, start + jnp.arange(size) >= number * size)

    return jax.lax.map(of_block, jnp.arange(-(-num // size), dtype=jnp.int32))
