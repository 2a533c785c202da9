"""Rows of an item table whose parts lie on several devices, and the gradient that goes back to them.

Every device looks up what it holds, and the sum over the model axis is the row, since all others give 0. Back, each
data shard's rows and gradients are handed to all others, and every device adds up those of its own part: what travels
is as large as the batch, never as the table.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from alkd_jax.sharding.mesh import DATA, MODEL, batch_axis, current_mesh, shard_map_unchecked
from alkd_jax.types import IntArray


def embedding_lookup(table: Float[Array, "V ..."], ids: IntArray) -> Float[Array, "..."]:
    """``table[ids]``, on whatever mesh holds: the same numbers and the same gradient.

    Args:
        table: an item table.
        ids: rows of it, in ``0..V-1``, of any shape; on a mesh the first axis is the batch.
    """
    mesh = current_mesh()
    if mesh is None or ids.ndim == 0:
        return table[ids]
    return _rows(mesh, pad_rows(table, mesh.shape[MODEL]), ids)


def pad_rows(table: Float[Array, "V ..."], parts: int) -> Float[Array, "R ..."]:
    """The table with rows of zeros after its last, so that it falls into equal parts."""
    return jnp.pad(table, [(0, -table.shape[0] % parts), *[(0, 0)] * (table.ndim - 1)])


def local_place(ids: Int[Array, "*batch"], size: int) -> tuple[Array, Array]:
    """Where rows stand in this device's part of a table, ``size`` where it lacks them; and whether they are here."""
    place = ids - jax.lax.axis_index(MODEL) * size
    here = (place >= 0) & (place < size)
    # Not a negative number, which would count from the end.
    return jnp.where(here, place, size), here


def local_embedding_lookup(part: Float[Array, "R ..."], ids: Int[Array, "..."]) -> Float[Array, "..."]:
    """:func:`rows` from one device's part of the table, under ``shard_map``."""
    place, here = local_place(ids, part.shape[0])
    found = part[jnp.minimum(place, part.shape[0] - 1)]
    found = jnp.where(here.reshape(here.shape + (1,) * (part.ndim - 1)), found, 0)
    return jax.lax.psum(found, MODEL)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rows(mesh: Any, table: Array, ids: Array) -> Array:
    batch = batch_axis(mesh, ids.shape[0])
    return shard_map_unchecked(local_embedding_lookup, mesh, (P(MODEL), P(batch)), P(batch))(table, ids)


def _forward(mesh: Any, table: Array, ids: Array) -> tuple[Array, tuple[Array, int]]:
    return _rows(mesh, table, ids), (ids, table.shape[0] // mesh.shape[MODEL])


def _backward(mesh: Any, kept: tuple[Array, int], cotangent: Array) -> tuple[Array, None]:
    ids, size = kept
    batch = batch_axis(mesh, ids.shape[0])

    def add_up(ids: Array, cotangent: Array) -> Array:
        if batch is not None:
            ids, cotangent = (jax.lax.all_gather(part, DATA, tiled=True) for part in (ids, cotangent))
        place, _ = local_place(ids, size)
        nothing = jnp.zeros((size, *cotangent.shape[ids.ndim :]), cotangent.dtype)
        return nothing.at[place].add(cotangent, mode="drop")

    return shard_map_unchecked(add_up, mesh, (P(batch), P(batch)), P(MODEL))(ids, cotangent), None


_rows.defvjp(_forward, _backward)
