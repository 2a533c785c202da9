"""The largest values of each row in order, ties to the lower place."""

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_UNSTABLE: dict[str, Any] = {"is_stable": False}
_MOST_IN_ONE_KERNEL = 16
"""Up to here a GPU has a kernel of its own for a stable top k; beyond, it sorts whole rows."""


def largest(values: Float[Array, "B C"], k: int) -> tuple[Float[Array, "B K"], Int[Array, "B K"]]:
    """The k largest of each row, best first, equal ones in their order, and where they stand.

    Where a GPU would sort every row to keep equal values in order, they are taken in any order and put in order
    afterwards; only where equal values stand on both sides of the cut are the rows sorted after all.

    Args:
        values: without NaN and −0.
        k: at most C.

    Returns:
        Values and int32 places. Where a value is −inf the place may be any.
    """
    stable = functools.partial(_stable, k=k)
    if not _sorts_rows(k):
        return stable(values)
    value, place = _in_any_order(values, k)
    last = value[:, -1:]
    is_cut = ((values >= last).sum(1) > k) & (last[:, 0] > -jnp.inf)
    return jax.lax.cond(is_cut.any(), stable, lambda _: _in_order(value, place), values)


def _stable(values: Array, k: int) -> tuple[Array, Array]:
    value, place = jax.lax.top_k(values, k)
    return value, place


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
