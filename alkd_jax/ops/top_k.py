"""The largest values of each row in descending order; among equal values the lower index comes first."""

import functools
import inspect
import os
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_UNSTABLE: dict[str, Any] = {"is_stable": False}
_HAS_UNSTABLE = "is_stable" in inspect.signature(jax.lax.top_k).parameters
_MAX_K_WITHOUT_SORT = 16
"""Up to this k a GPU has a kernel for a stable top k; for a larger k it sorts whole rows."""
_NUM_PIECES = 10 if (os.cpu_count() or 1) <= 2 else 20
"""Pieces that rows are split into on a CPU. XLA runs each top k on one thread, and runs several top k in parallel only
where there are more than eight of them."""
_MIN_SIZE_TO_SPLIT = 2**18
"""Number of values from which on splitting pays off."""


def stable_top_k(values: Float[Array, "B C"], k: int) -> tuple[Float[Array, "B K"], Int[Array, "B K"]]:
    """Returns the k largest values of each row, best first, and their indices; equal values keep their order.

    Where a GPU would sort whole rows to be stable, and this JAX version offers an unstable top k, that is taken first
    and its result sorted; only if values equal to the k-th were left out of it are the rows sorted after all. On a CPU
    the rows are split into pieces, one for each thread.

    Args:
        values: numbers without NaN and −0.
        k: list length, at most C.

    Returns:
        Values and int32 indices. Where a value is −inf the index is arbitrary.
    """
    plain, split, sorted_after = (functools.partial(f, k=k) for f in (_plain_top_k, _split_top_k, _sorted_top_k))
    branches = {"cpu": split} if _should_split(values.shape) else {}
    if _HAS_UNSTABLE and k > _MAX_K_WITHOUT_SORT:
        branches |= {"cuda": sorted_after, "rocm": sorted_after}
    return jax.lax.platform_dependent(values, **branches, default=plain) if branches else plain(values)


def _plain_top_k(values: Array, k: int) -> tuple[Array, Array]:
    value, index = jax.lax.top_k(values, k)
    return value, index


def _split_top_k(values: Array, k: int) -> tuple[Array, Array]:
    # Without the barrier XLA would compute a piece in the buffer of the one before, which makes the pieces sequential.
    pieces = jax.lax.optimization_barrier(jnp.array_split(values, _NUM_PIECES))
    value, index = zip(*(_plain_top_k(piece, k) for piece in pieces), strict=True)
    return jnp.concatenate(value), jnp.concatenate(index)


def _should_split(shape: tuple[Any, ...]) -> bool:
    """Whether the rows are enough to keep a CPU's threads busy; False for a symbolic number of rows."""
    is_static = all(isinstance(size, int) for size in shape)
    return is_static and shape[0] >= _NUM_PIECES and shape[0] * shape[1] >= _MIN_SIZE_TO_SPLIT


def _sorted_top_k(values: Array, k: int) -> tuple[Array, Array]:
    value, index = _unstable_top_k(values, k)
    last = value[:, -1:]
    is_tie_cut = ((values >= last).sum(1) > k) & (last[:, 0] > -jnp.inf)
    return jax.lax.cond(
        is_tie_cut.any(), functools.partial(_plain_top_k, k=k), lambda _: _sort_pairs(value, index), values
    )


def _unstable_top_k(values: Array, k: int) -> tuple[Array, Array]:
    value, index = jax.lax.top_k(values, k, **_UNSTABLE)
    return value, index


def _sort_pairs(value: Array, index: Array) -> tuple[Array, Array]:
    negated, index = jax.lax.sort((-value, index), num_keys=2)
    return -negated, index
