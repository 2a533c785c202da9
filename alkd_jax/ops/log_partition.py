"""The log-partition function of the softmax over the whole catalogue, or all but a list, in chunks of items."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from alkd_jax.ops.lookup import pad_rows
from alkd_jax.ops.precision import at_least_float32
from alkd_jax.sharding import DATA, MODEL, batch_axis, current_mesh, shard_map_unchecked
from alkd_jax.types import PAD

_NO_SCORE = -1e30
"""The score of an item that does not count, in place of −inf, whose differences are NaN."""


def log_partition(
    vectors: Float[Array, "B *L D"], table: Float[Array, "V D"], chunk_size: int | None = None
) -> Float[Array, " B"]:
    """Computes ``log Z_b = log Σ_{v ≥ 1} exp(score(b, v))``, the padding left out.

    At most ``[B, chunk_size]`` scores are in memory, forward and backward: the backward pass computes each chunk's
    scores again. On the current mesh every device sums over its own shard of the table; backward, each device computes
    its shard's gradient for the whole batch, so that nothing as large as the table is sent along the data axis.

    Args:
        vectors: u; one vector for each session, or one for each position. The score of several vectors is their
            log-sum-exp, so the partition functions of a session's vectors add up.
        table: Y; row 0 is the padding.
        chunk_size: items scored at a time, at least 1; None scores all at once.
    """
    mesh, num_rows = current_mesh(), table.shape[0]
    num_shards = 1 if mesh is None else mesh.shape[MODEL]
    chunk_size = min(chunk_size or num_rows, num_rows)
    flat = at_least_float32(vectors).reshape(-1, vectors.shape[-1])
    log_z = _log_partition(mesh, num_rows, chunk_size, flat, pad_rows(table, num_shards))
    return log_z if vectors.ndim == 2 else jax.nn.logsumexp(log_z.reshape(vectors.shape[:-1]), axis=1)


def log_rest(
    vectors: Float[Array, "B D"],
    table: Float[Array, "V D"],
    listed: Int[Array, "B K"],
    chunk_size: int | None = None,
) -> Float[Array, " B"]:
    """Computes ``log Σ exp(score(b, v))`` over the items that are not listed; −inf where all are.

    The listed items are left out of the sum rather than subtracted from it, which would leave a rounding error where
    they have almost all of it. At most ``[B, chunk_size]`` scores are in memory, forward and backward.

    Args:
        vectors: u.
        table: Y; row 0 is the padding.
        listed: items in ``1..V-1`` that are left out; 0 stands for none.
        chunk_size: items scored at a time, at least 1; None scores all at once.

    Raises:
        ValueError: there is a current mesh.
    """
    if current_mesh() is not None:
        raise ValueError("log_rest is called on a mesh; expected one device")
    vectors, rows = at_least_float32(vectors), jnp.arange(len(vectors))[:, None]
    chunks, is_item = _chunks(table, jnp.int32(0), table.shape[0], chunk_size or table.shape[0])

    @jax.checkpoint
    def add_chunk(total: Array, chunk: tuple[Array, Array, Array]) -> tuple[Array, None]:
        first, items, counts = chunk
        place = jnp.where(listed >= first, listed - first, items.shape[0])
        is_listed = jnp.zeros((len(vectors), items.shape[0]), bool).at[rows, place].set(True, mode="drop")
        scores = jnp.where(counts[None] & ~is_listed, vectors @ items.T, _NO_SCORE)
        return jnp.logaddexp(total, jax.nn.logsumexp(scores, axis=1)), None

    starts = jnp.arange(len(chunks)) * chunks.shape[1]
    total = jax.lax.scan(add_chunk, jnp.full_like(vectors[:, 0], _NO_SCORE), (starts, chunks, is_item))[0]
    return jnp.where(total > _NO_SCORE / 2, total, -jnp.inf)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _log_partition(mesh: Any, num_rows: int, chunk_size: int, vectors: Array, table: Array) -> Array:
    return _forward(mesh, num_rows, chunk_size, vectors, table)[0]


def _forward(
    mesh: Any, num_rows: int, chunk_size: int, vectors: Array, table: Array
) -> tuple[Array, tuple[Array, Array, Array]]:
    if mesh is None:
        log_z = _chunked_logsumexp(vectors, table, jnp.int32(0), num_rows, chunk_size)
    else:

        def combine_shards(vectors: Array, shard: Array) -> Array:
            first = jax.lax.axis_index(MODEL) * shard.shape[0]
            local_log_z = _chunked_logsumexp(vectors, shard, first, num_rows, chunk_size)
            largest = jax.lax.pmax(local_log_z, MODEL)
            return largest + jnp.log(jax.lax.psum(jnp.exp(local_log_z - largest), MODEL))

        batch = batch_axis(mesh, vectors.shape[0])
        log_z = shard_map_unchecked(combine_shards, mesh, (P(batch), P(MODEL)), P(batch))(vectors, table)
    return log_z, (vectors, table, log_z)


def _backward(
    mesh: Any, num_rows: int, chunk_size: int, residuals: tuple[Array, Array, Array], cotangent: Array
) -> tuple[Array, Array]:
    vectors, table, log_z = residuals
    if mesh is None:
        return _chunked_gradients(vectors, table, log_z, cotangent, jnp.int32(0), num_rows, chunk_size)
    batch = batch_axis(mesh, vectors.shape[0])

    def shard_gradients(vectors: Array, shard: Array, log_z: Array, cotangent: Array) -> tuple[Array, Array]:
        rows, num_local = (vectors, log_z, cotangent), vectors.shape[0]
        if batch is not None:
            rows = tuple(jax.lax.all_gather(array, DATA, tiled=True) for array in rows)
        first = jax.lax.axis_index(MODEL) * shard.shape[0]
        to_vectors, to_shard = _chunked_gradients(rows[0], shard, *rows[1:], first, num_rows, chunk_size)
        if batch is not None:
            to_vectors = jax.lax.dynamic_slice_in_dim(to_vectors, jax.lax.axis_index(DATA) * num_local, num_local)
        return jax.lax.psum(to_vectors, MODEL), to_shard

    in_specs = P(batch), P(MODEL), P(batch), P(batch)
    gradients = shard_map_unchecked(shard_gradients, mesh, in_specs, (P(batch), P(MODEL)))
    return gradients(vectors, table, log_z, cotangent)


_log_partition.defvjp(_forward, _backward)


def _chunks(table: Array, first: Int[Array, ""], num_rows: int, chunk_size: int) -> tuple[Array, Array]:
    """Splits a table or a shard of one into chunks.

    Args:
        table: ``[R, D]`` rows.
        first: which row of the whole table its first row is.
        num_rows: rows of the whole table; rows from there on are padding of the last shard.
        chunk_size: rows of a chunk; the last chunk is padded.

    Returns:
        The chunks, and which of their rows are items.
    """
    num_local, dim = table.shape
    size = min(chunk_size, num_local)
    num_chunks = -(-num_local // size)
    padded = jnp.pad(table, ((0, num_chunks * size - num_local), (0, 0)))
    row = jnp.arange(num_chunks * size)
    is_item = (first + row != PAD) & (first + row < num_rows) & (row < num_local)
    return padded.reshape(num_chunks, size, dim), is_item.reshape(num_chunks, size)


def _chunked_logsumexp(vectors: Array, table: Array, first: Array, num_rows: int, chunk_size: int) -> Array:
    """Computes ``log Σ_v exp(u_b · Y_v)`` over the items of a table or a shard."""

    def add_chunk(total: Array, chunk: tuple[Array, Array]) -> tuple[Array, None]:
        rows, is_item = chunk
        scores = jnp.where(is_item[None], vectors @ rows.T, -jnp.inf)
        return jnp.logaddexp(total, jax.nn.logsumexp(scores, axis=1)), None

    start = jnp.full_like(vectors[:, 0], -jnp.inf)
    return jax.lax.scan(add_chunk, start, _chunks(table, first, num_rows, chunk_size))[0]


def _chunked_gradients(
    vectors: Array, table: Array, log_z: Array, cotangent: Array, first: Array, num_rows: int, chunk_size: int
) -> tuple[Array, Array]:
    """Computes the gradients with respect to the vectors and to the rows of a table or a shard."""

    def add_chunk(to_vectors: Array, chunk: tuple[Array, Array]) -> tuple[Array, Array]:
        rows, is_item = chunk
        prob = jnp.where(is_item[None], jnp.exp(vectors @ rows.T - log_z[:, None]), 0.0) * cotangent[:, None]
        return to_vectors + prob @ rows, (prob.T @ vectors).astype(rows.dtype)

    chunks = _chunks(table, first, num_rows, chunk_size)
    to_vectors, to_chunks = jax.lax.scan(add_chunk, jnp.zeros_like(vectors), chunks)
    return to_vectors, to_chunks.reshape(-1, table.shape[1])[: table.shape[0]]
