"""Counts over all items of the catalogue that depend on their scores, a chunk of items at a time."""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.ops.lookup import local_embedding_lookup, pad_rows
from alkd_jax.ops.packed_rows import ItemTable, PackedTable, slice_rows
from alkd_jax.ops.platforms import cpu_or_device
from alkd_jax.ops.products import scores
from alkd_jax.sharding import MODEL, batch_axis, current_mesh, shard_map_unchecked

# Sizes that make the count fast on a given device; they do not change its result.
_CPU_CHUNK_ITEMS = 1024
_CPU_COLUMNS = 192
"""Chunks are multiples of this: products on a CPU process 48 columns at a time, and a remainder takes as long as 48."""
_CPU_LANES = 64
"""Partial counts of a session on a CPU; with a single one, XLA would write the scores to memory before it sums them."""
_DEVICE_SCORE_BYTES = 2**28

Counts: TypeAlias = Any
"""Integer arrays of one shape: one of them, or a tuple of several that are counted together."""

Contribution = Callable[[Float[Array, "B C"], Float[Array, "B 1"]], Counts]
"""What each score contributes to each count, ``[B, C]``, given the target's score."""


def catalogue_count(
    contribution: Contribution,
    session_vectors: Float[Array, "B *L D"],
    item_embeddings: ItemTable,
    target: Int[Array, " B"],
    excluded: Int[Array, "B M"],
    is_counted: Bool[Array, "B M"],
    chunk_size: int | None,
    precision: str = "highest",
) -> Counts:
    """Adds up the contributions of all items of the catalogue, minus those of excluded ones.

    On the current mesh, every device counts in its part of the table, and devices exchange only the counts.

    Args:
        contribution: what an item's score contributes.
        session_vectors: u.
        item_embeddings: Y.
        target: each session's target, whose score the others are compared with.
        excluded: items that do not count.
        is_counted: True where an excluded item occurs for the first time in its row.
        chunk_size: items scored at a time; None decides by the platform.
        precision: of the scores, see :mod:`alkd_jax.ops.precision`.

    Returns:
        ``[B]`` sums, as many as an item's score has contributions.
    """
    mesh, num_rows = current_mesh(), item_embeddings.shape[0]
    count = functools.partial(_count, contribution, functools.partial(scores, precision=precision), chunk_size)
    if mesh is None or isinstance(item_embeddings, PackedTable):
        return count(num_rows, session_vectors, item_embeddings, item_embeddings[target], excluded, is_counted)

    def count_in_shard(vectors: Array, shard: Array, target: Array, excluded: Array, is_counted: Array) -> Counts:
        first = jax.lax.axis_index(MODEL) * shard.shape[0]
        target_vectors = local_embedding_lookup(shard, target)
        return jax.lax.psum(
            count(num_rows - first, vectors, shard, target_vectors, excluded - first, is_counted), MODEL
        )

    batch = P(batch_axis(mesh, target.shape[0]))
    table = pad_rows(item_embeddings, mesh.shape[MODEL])
    count_in_shards = shard_map_unchecked(count_in_shard, mesh, (batch, P(MODEL), batch, batch, batch), batch)
    return count_in_shards(session_vectors, table, target, excluded, is_counted)


def _count(
    contribution: Contribution,
    score: Callable[[Array, Array], Array],
    chunk_size: int | None,
    num_rows: Int[Array, ""] | int,
    *arrays: Any,
) -> Counts:
    """Counts with the chunks of the platform."""
    vectors, table = arrays[:2]
    batch, total = vectors.shape[0], vectors.shape[0] + table.shape[0]
    if chunk_size is None:
        cpu_chunk, device_chunk = _cpu_chunk_size(total), _device_chunk_size(batch, total)
    else:
        cpu_chunk = device_chunk = min(chunk_size, total)
    cpu_sizes, device_sizes = (cpu_chunk, 1 if cpu_chunk % _CPU_LANES else _CPU_LANES), (device_chunk, 1)
    count = functools.partial(_count_in_chunks, contribution, score, num_rows)
    on_cpu, on_device = (functools.partial(count, *sizes) for sizes in (cpu_sizes, device_sizes))
    return (on_cpu if cpu_sizes == device_sizes else cpu_or_device(on_cpu, on_device))(*arrays)


def _cpu_chunk_size(rows: int) -> int:
    """Items in a chunk whose scores fit the cache of a CPU; the chunks are nearly equal."""
    least = -(-rows // _CPU_CHUNK_ITEMS)
    chunk_sizes = [-(-rows // (number * _CPU_COLUMNS)) * _CPU_COLUMNS for number in range(least, 2 * least + 1)]
    return min(chunk_sizes, key=lambda chunk: -(-rows // chunk) * chunk)


def _device_chunk_size(batch: int, rows: int) -> int:
    """Items in a chunk whose scores take 256 MiB."""
    return min(rows, max(1, _DEVICE_SCORE_BYTES // (4 * batch)))


def _count_in_chunks(
    contribution: Contribution,
    score: Callable[[Array, Array], Array],
    num_rows: Int[Array, ""] | int,
    chunk: int,
    lanes: int,
    session_vectors: Float[Array, "B *L D"],
    item_embeddings: ItemTable,
    target_vectors: Float[Array, "B D"],
    excluded: Int[Array, "B M"],
    is_counted: Bool[Array, "B M"],
) -> Counts:
    """Counts in a table or in one device's part of it, ``chunk`` items at a time, by ``lanes`` partial counts.

    Rows from ``num_rows`` on are padding. Targets may be rows of another part, and excluded row numbers outside this
    part have no effect.
    """
    rows, batch = item_embeddings.shape[0], session_vectors.shape[0]
    total = batch + rows
    # The table is preceded by the target vectors, whose scores are needed first. A chunk that the target vectors fill
    # only in part also holds the first rows of the table.
    num_head, num_chunks = -(-(batch if chunk <= rows else total) // chunk), -(-total // chunk)
    head = jnp.concatenate([target_vectors, slice_rows(item_embeddings, 0, min(rows, num_head * chunk - batch))])
    head = jnp.pad(head, ((0, num_head * chunk - head.shape[0]), (0, 0)))
    num_items = jnp.minimum(num_rows, rows)
    is_counted = is_counted & (excluded >= 0) & (excluded < num_items)

    def count(carry: tuple[Array, Counts, Counts], step: Array) -> tuple[tuple[Array, Counts, Counts], None]:
        target_score, counted, num_excluded = carry
        # The barrier depends on the step; without it XLA converts a whole bfloat16 table to float32 before the loop.
        current_head, current_rows, step = jax.lax.optimization_barrier((head, item_embeddings, step))
        chunk_rows = jax.lax.dynamic_slice_in_dim(current_head, jnp.minimum(step, num_head - 1) * chunk, chunk)
        first = start = step * chunk - batch
        if num_chunks > num_head:
            # The last chunk overlaps the one before it, so that all chunks have the same size; ``is_new`` skips the
            # overlap.
            start = jnp.minimum(first, rows - chunk)
            table_rows = slice_rows(current_rows, start, chunk)
            chunk_rows = jnp.where(step < num_head, chunk_rows, table_rows)
        chunk_scores = score(session_vectors, chunk_rows)

        position = jnp.arange(batch)[:, None] - step * chunk
        scores_at_position = jnp.take_along_axis(chunk_scores, jnp.clip(position, 0, chunk - 1), axis=1)
        target_score = jnp.where((position >= 0) & (position < chunk), scores_at_position, target_score)

        local = excluded - start
        is_in_chunk = is_counted & (excluded >= first) & (local < chunk)
        excluded_scores = jnp.take_along_axis(chunk_scores, jnp.clip(local, 0, chunk - 1), axis=1)
        position = start + jnp.arange(chunk)
        is_new = ((position >= jnp.maximum(first, 0)) & (position < num_items))[None]
        new = jax.tree.map(lambda new: jnp.where(is_new, new, 0), contribution(chunk_scores, target_score))
        counted = jax.tree.map(lambda count, new: count + new.reshape(batch, -1, lanes).sum(1), counted, new)
        new = contribution(excluded_scores, target_score)
        num_excluded = jax.tree.map(lambda count, new: count + (new * is_in_chunk).sum(1), num_excluded, new)
        return (target_score, counted, num_excluded), None

    dtype = jax.eval_shape(score, session_vectors, head).dtype
    target_score = jnp.zeros((batch, 1), dtype)
    kinds = jax.eval_shape(contribution, *(jax.ShapeDtypeStruct((batch, size), dtype) for size in (chunk, 1)))
    counts, num_excluded = (
        jax.tree.map(lambda _, shape=shape: jnp.zeros(shape, jnp.int32), kinds) for shape in ((batch, lanes), (batch,))
    )
    initial = target_score, counts, num_excluded
    (_, counts, num_excluded), _ = jax.lax.scan(count, initial, jnp.arange(num_chunks))
    return jax.tree.map(lambda count, excluded: count.sum(1) - excluded, counts, num_excluded)
