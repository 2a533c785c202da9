"""Embedding lookup in an item table that is sharded by rows, and its gradient.

Forward, every device looks up the rows of its own shard and contributes zeros for the others; the sum over the model
axis is the result. Backward, the ids and the gradients of all data shards are gathered on every device, and each
device adds up those of its own shard. So the data sent between devices are as large as the batch, never as the table.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from alkd_jax.ops.packed_rows import PackedTable
from alkd_jax.sharding.mesh import DATA, MODEL, batch_axis, current_mesh, shard_map_unchecked
from alkd_jax.types import IntArray


def embedding_lookup(table: Float[Array, "V ..."] | PackedTable, ids: IntArray) -> Float[Array, "..."]:
    """Returns ``table[ids]``, with the same numbers and the same gradient on one device and on the current mesh.

    Args:
        table: an item table; a packed one lies on one device.
        ids: rows in ``0..V-1``, of any shape; on a mesh the first axis is the batch.
    """
    mesh = current_mesh()
    if mesh is None or ids.ndim == 0 or isinstance(table, PackedTable):
        return table[ids]
    return _sharded_lookup(mesh, pad_rows(table, mesh.shape[MODEL]), ids)


def pad_rows(table: Float[Array, "V ..."], num_shards: int) -> Float[Array, "R ..."]:
    """Appends rows of zeros to a table so that its rows split into equal shards."""
    return jnp.pad(table, [(0, -table.shape[0] % num_shards), *[(0, 0)] * (table.ndim - 1)])


def local_index(ids: Int[Array, "*batch"], num_local_rows: int) -> tuple[Array, Array]:
    """Converts rows of a table to rows of this device's shard, under ``shard_map``.

    Args:
        ids: rows of the whole table.
        num_local_rows: rows of a shard.

    Returns:
        Rows of the shard, ``num_local_rows`` for a row of another shard; and whether a row is in this shard.
    """
    index = ids - jax.lax.axis_index(MODEL) * num_local_rows
    is_local = (index >= 0) & (index < num_local_rows)
    # A negative index would count from the end of the shard.
    return jnp.where(is_local, index, num_local_rows), is_local


def local_embedding_lookup(shard: Float[Array, "R ..."], ids: Int[Array, "..."]) -> Float[Array, "..."]:
    """Computes :func:`embedding_lookup` from one device's shard of the table, under ``shard_map``."""
    index, is_local = local_index(ids, shard.shape[0])
    rows = shard[jnp.minimum(index, shard.shape[0] - 1)]
    rows = jnp.where(is_local.reshape(is_local.shape + (1,) * (shard.ndim - 1)), rows, 0)
    return jax.lax.psum(rows, MODEL)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sharded_lookup(mesh: Any, table: Array, ids: Array) -> Array:
    batch = batch_axis(mesh, ids.shape[0])
    return shard_map_unchecked(local_embedding_lookup, mesh, (P(MODEL), P(batch)), P(batch))(table, ids)


def _forward(mesh: Any, table: Array, ids: Array) -> tuple[Array, tuple[Array, int]]:
    return _sharded_lookup(mesh, table, ids), (ids, table.shape[0] // mesh.shape[MODEL])


def _backward(mesh: Any, residuals: tuple[Array, int], cotangent: Array) -> tuple[Array, None]:
    ids, num_local_rows = residuals
    batch = batch_axis(mesh, ids.shape[0])

    def shard_gradient(ids: Array, cotangent: Array) -> Array:
        if batch is not None:
            ids, cotangent = (jax.lax.all_gather(array, DATA, tiled=True) for array in (ids, cotangent))
        index, _ = local_index(ids, num_local_rows)
        zeros = jnp.zeros((num_local_rows, *cotangent.shape[ids.ndim :]), cotangent.dtype)
        return zeros.at[index].add(cotangent, mode="drop")

    return shard_map_unchecked(shard_gradient, mesh, (P(batch), P(batch)), P(MODEL))(ids, cotangent), None


_sharded_lookup.defvjp(_forward, _backward)
