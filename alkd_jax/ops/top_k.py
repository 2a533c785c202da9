"""The largest values of each row in order, ties to the lower place."""

import functools
import inspect
import os
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_UNSTABLE: dict[str, Any] = {"is_stable": False}
_MOST_IN_ONE_KERNEL = 16
"""Up to here a GPU has a kernel of its own for a stable top k; beyond, it sorts whole rows."""
_PIECES = 10 if (os.cpu_count() or 1) <= 2 else 20
"""A CPU's top k runs on one thread. Several run side by side, but XLA shares out only what is beyond eight at once."""
_WORTH_PIECES = 2**18
"""Values from which on that is worth it."""


def stable_top_k(values: Float[Array, "B C"], k: int) -> tuple[Float[Array, "B K"], Int[Array, "B K"]]:
    """The k largest of each row, best first, equal ones in their order, and where they stand.

    Where a GPU would sort every row to keep equal values in order, they are taken in any order and put in order
    afterwards; only where equal values stand on both sides of the cut are the rows sorted after all. On a CPU rows are
    taken in several pieces, for its threads.

    Args:
        values: without NaN and −0.
        k: at most C.

    Returns:
        Values and int32 places. Where a value is −inf the place may be any.
    """
    stable = functools.partial(_stable, k=k)
    if not _sorts_rows(k):
        return _side_by_side(values, k) if _in_pieces(values.shape) else stable(values)
    value, place = _in_any_order(values, k)
    last = value[:, -1:]
    is_cut = ((values >= last).sum(1) > k) & (last[:, 0] > -jnp.inf)
    return jax.lax.cond(is_cut.any(), stable, lambda _: _in_order(value, place), values)


def _stable(values: Array, k: int) -> tuple[Array, Array]:
    value, place = jax.lax.top_k(values, k)
    return value, place


def _side_by_side(values: Array, k: int) -> tuple[Array, Array]:
    # Held together, or one piece would be made where the one before was, and have to wait for it.
    pieces = jax.lax.optimization_barrier(jnp.array_split(values, _PIECES))
    value, place = zip(*(_stable(piece, k) for piece in pieces), strict=True)
    return jnp.concatenate(value), jnp.concatenate(place)


def _in_pieces(shape: tuple[Any, ...]) -> bool:
    """Whether a CPU is worth its threads; in a program for any number of rows there is no telling."""
    known = all(isinstance(size, int) for size in shape)
    return known and jax.default_backend() == "cpu" and shape[0] >= _PIECES and shape[0] * shape[1] >= _WORTH_PIECES


def _in_any_order(values: Array, k: int) -> tuple[Array, Array]:
    value, place = jax.lax.top_k(values, k, **_UNSTABLE)
    return value, place


def _in_order(value: Array, place: Array) -> tuple[Array, Array]:
    falling, place = jax.lax.sort((-value, place), num_keys=2)
    return -falling, place


def _sorts_rows(k: int) -> bool:
    """Whether a stable top k would sort whole rows, and this jax can be asked for another."""
    can_ask = "is_stable" in inspect.signature(jax.lax.top_k).parameters
    return can_ask and k > _MOST_IN_ONE_KERNEL and jax.default_backend() == "gpu"
