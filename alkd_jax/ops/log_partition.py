"""The partition function of the whole catalogue, a chunk of items at a time, on one device or on parts of the table."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from alkd_jax.ops.lookup import pad_rows
from alkd_jax.sharding import DATA, MODEL, batch_axis, current_mesh, shard_map_unchecked
from alkd_jax.types import PAD


def log_partition(vectors: Float[Array, "B D"], table: Float[Array, "V D"], chunk_size: int) -> Float[Array, " B"]:
    """``log Σ_{v ≥ 1} exp(u_b · Y_v)``, with ``[B, chunk_size]`` scores in memory, forward and backward.

    On a mesh every device sums over its part of the table. Back, each adds up its part's gradient over the whole batch,
    so that nothing as large as the table travels along the data axis.

    Args:
        vectors: u.
        table: Y, row 0 the padding.
        chunk_size: items scored at a time, at least 1.
    """
    mesh, num_rows = current_mesh(), table.shape[0]
    parts = 1 if mesh is None else mesh.shape[MODEL]
    return _log_partition(mesh, num_rows, chunk_size, vectors, pad_rows(table, parts))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _log_partition(mesh: Any, num_rows: int, chunk_size: int, vectors: Array, table: Array) -> Array:
    return _forward(mesh, num_rows, chunk_size, vectors, table)[0]


def _forward(
    mesh: Any, num_rows: int, chunk_size: int, vectors: Array, table: Array
) -> tuple[Array, tuple[Array, Array, Array]]:
    if mesh is None:
        total = _sum(vectors, table, jnp.int32(0), num_rows, chunk_size)
    else:

        def of_part(vectors: Array, part: Array) -> Array:
            own = _sum(vectors, part, jax.lax.axis_index(MODEL) * part.shape[0], num_rows, chunk_size)
            largest = jax.lax.pmax(own, MODEL)
            return largest + jnp.log(jax.lax.psum(jnp.exp(own - largest), MODEL))

        batch = batch_axis(mesh, vectors.shape[0])
        total = shard_map_unchecked(of_part, mesh, (P(batch), P(MODEL)), P(batch))(vectors, table)
    return total, (vectors, table, total)


def _backward(
    mesh: Any, num_rows: int, chunk_size: int, kept: tuple[Array, Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    vectors, table, total = kept
    if mesh is None:
        return _pull(vectors, table, total, cotangent, jnp.int32(0), num_rows, chunk_size)
    batch = batch_axis(mesh, vectors.shape[0])

    def of_part(vectors: Array, part: Array, total: Array, cotangent: Array) -> tuple[Array, Array]:
        mine, size = (vectors, total, cotangent), vectors.shape[0]
        if batch is not None:
            mine = tuple(jax.lax.all_gather(rows, DATA, tiled=True) for rows in mine)
        first = jax.lax.axis_index(MODEL) * part.shape[0]
        to_vectors, to_part = _pull(mine[0], part, *mine[1:], first, num_rows, chunk_size)
        if batch is not None:
            to_vectors = jax.lax.dynamic_slice_in_dim(to_vectors, jax.lax.axis_index(DATA) * size, size)
        return jax.lax.psum(to_vectors, MODEL), to_part

    takes = P(batch), P(MODEL), P(batch), P(batch)
    return shard_map_unchecked(of_part, mesh, takes, (P(batch), P(MODEL)))(vectors, table, total, cotangent)


_log_partition.defvjp(_forward, _backward)


def _chunks(table: Array, first: Int[Array, ""], num_rows: int, chunk_size: int) -> tuple[Array, Array]:
    """A table or a part of one in chunks, the last one filled up, and which of their rows are items."""
    held, dim = table.shape
    size = min(chunk_size, held)
    num_chunks = -(-held // size)
    padded = jnp.pad(table, ((0, num_chunks * size - held), (0, 0)))
    place = jnp.arange(num_chunks * size)
    is_item = (first + place != PAD) & (first + place < num_rows) & (place < held)
    return padded.reshape(num_chunks, size, dim), is_item.reshape(num_chunks, size)


def _sum(vectors: Array, table: Array, first: Array, num_rows: int, chunk_size: int) -> Array:
    def add(total: Array, chunk: tuple[Array, Array]) -> tuple[Array, None]:
        rows, is_item = chunk
        scores = jnp.where(is_item[None], vectors @ rows.T, -jnp.inf)
        return jnp.logaddexp(total, jax.nn.logsumexp(scores, axis=1)), None

    start = jnp.full_like(vectors[:, 0], -jnp.inf)
    return jax.lax.scan(add, start, _chunks(table, first, num_rows, chunk_size))[0]


def _pull(
    vectors: Array, table: Array, total: Array, cotangent: Array, first: Array, num_rows: int, chunk_size: int
) -> tuple[Array, Array]:
    """The gradient in the vectors and in the table."""

    def pull(carry: Array, chunk: tuple[Array, Array]) -> tuple[Array, Array]:
        rows, is_item = chunk
        share = jnp.where(is_item[None], jnp.exp(vectors @ rows.T - total[:, None]), 0.0) * cotangent[:, None]
        return carry + share @ rows, share.T @ vectors

    chunks = _chunks(table, first, num_rows, chunk_size)
    to_vectors, to_chunks = jax.lax.scan(pull, jnp.zeros_like(vectors), chunks)
    return to_vectors, to_chunks.reshape(-1, table.shape[1])[: table.shape[0]]
