"""Functions of many rows, computed in tiles of rows, so that the intermediate arrays of a tile stay in a cache."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from alkd_jax.ops.platforms import cpu_or_device
from alkd_jax.sharding import current_mesh

_CPU_TILE_ROWS = 128
"""Rows of a tile on a CPU: sessions whose hidden layers fit its cache."""


def split_rows(array: Array, size: int) -> Array:
    """Splits rows into tiles of ``size`` rows, ``[B, ...]`` into ``[T, size, ...]``; zeros fill the last tile."""
    num_tiles = -(-array.shape[0] // size)
    padding = [(0, num_tiles * size - array.shape[0])] + [(0, 0)] * (array.ndim - 1)
    return jnp.pad(array, padding).reshape(num_tiles, size, *array.shape[1:])


def map_tiles(function: Callable[..., Any], max_rows: int, *arrays: Array) -> Any:
    """Computes ``function(*arrays)`` in the fewest tiles of at most ``max_rows`` rows, all nearly equal.

    Args:
        function: computes each row of its results from the same row of the arrays.
        max_rows: the largest number of rows in a tile.
        *arrays: arrays with the same number of rows.
    """
    num_rows = arrays[0].shape[0]
    size = -(-num_rows // -(-num_rows // max_rows))
    tiles = jax.lax.map(lambda tile: function(*tile), tuple(split_rows(array, size) for array in arrays))
    return jax.tree.map(lambda result: result.reshape(-1, *result.shape[2:])[:num_rows], tiles)


def map_rows(function: Callable[..., Any], *arrays: Array) -> Any:
    """Computes ``function(*arrays)``, on a CPU by :func:`map_tiles`; on the current mesh always at once."""
    if arrays[0].shape[0] <= _CPU_TILE_ROWS or current_mesh() is not None:
        return function(*arrays)

    def in_tiles(*arrays: Array) -> Any:
        return map_tiles(function, _CPU_TILE_ROWS, *arrays)

    return cpu_or_device(in_tiles, function)(*arrays)
