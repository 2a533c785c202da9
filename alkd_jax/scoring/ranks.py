"""The exact rank of the target among all items of the catalogue, without seen items and padding."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.checks import check_at_least, check_one_of
from alkd_jax.ops.lookup import local_embedding_lookup, pad_rows
from alkd_jax.ops.products import scores
from alkd_jax.sharding import MODEL, batch_axis, current_mesh, shard_map_unchecked
from alkd_jax.types import PAD

TIES = ("average", "optimistic", "pessimistic")
"""Rules for items whose score equals the target's."""

# Sizes that make the count fast on a given device; they do not change its result.
_CPU_CHUNK_ITEMS = 1024
_CPU_COLUMNS = 192
"""Chunks are multiples of this: products on a CPU process 48 columns at a time, and a remainder takes as long as 48."""
_CPU_LANES = 64
"""Partial counts of a session on a CPU; with a single one, XLA would write the scores to memory before it sums them."""
_DEVICE_SCORE_BYTES = 2**28


def target_rank(
    all_scores: Float[Array, "B V"],
    target: Int[Array, " B"],
    *,
    exclude: Int[Array, "B L"],
    ties: str = "average",
) -> Int[Array, " B"]:
    """The position of the target among the items that are not excluded, by counting instead of sorting.

    ``rank = 1 + #{v : s_v > s_target} + ties``. The target itself is never excluded. A NaN counts as better than the
    target, so that a diverged model has bad ranks.

    Args:
        all_scores: scores of all items; column 0, the padding, is ignored.
        target: items in ``1..V-1``.
        exclude: items that are not ranked, in any order; duplicates and 0 have no effect.
        ties: "average" counts half of the equal scores (a half rounded up, so that recall at k equals that of the mean
            rank), "optimistic" none, "pessimistic" all.

    Returns:
        Ranks from 1, int32.

    Raises:
        ValueError: ``ties`` is unknown.
    """
    _check_options(ties, None)
    excluded, is_counted = _excluded_items(target, exclude)
    excluded_scores = jnp.take_along_axis(all_scores, excluded, axis=1)
    target_score = excluded_scores[:, :1]
    num_ahead = _contribution(all_scores, target_score, ties).sum(1) - (
        _contribution(excluded_scores, target_score, ties) * is_counted
    ).sum(1)
    return _rank_of(num_ahead, ties)


def full_catalogue_rank(
    session_vectors: Float[Array, "B *L D"],
    item_embeddings: Float[Array, "V D"],
    target: Int[Array, " B"],
    *,
    exclude: Int[Array, "B L"],
    ties: str = "average",
    chunk_size: int | None = None,
) -> Int[Array, " B"]:
    """:func:`target_rank` of ``u_b · Y_v``, a chunk of items at a time, without a ``[B, V]`` array in memory.

    The target's score comes from a product of the same shape as the other scores, so that both are rounded alike.
    Chunks that fit a CPU's cache make this several times as fast as a ``[B, V]`` array. Products of another shape may
    round differently, so ranks among items whose scores are equal up to rounding can differ from :func:`target_rank`.
    On a mesh, every device counts in its part of the table, and devices exchange only the counts.

    Args:
        session_vectors: u.
        item_embeddings: Y, with the padding in row 0.
        target: items in ``1..V-1``.
        exclude: items that are not ranked, in any order; duplicates and 0 have no effect.
        ties: as in :func:`target_rank`.
        chunk_size: items scored at a time; by default so many that their scores fit the cache on a CPU, and 256 MiB
            elsewhere.

    Returns:
        Ranks from 1, int32.

    Raises:
        ValueError: ``ties`` is unknown, or chunk_size is below 1.
    """
    _check_options(ties, chunk_size)
    excluded, is_counted = _excluded_items(target, exclude)
    count = functools.partial(_count_ahead, ties=ties, chunk_size=chunk_size)
    mesh, num_rows = current_mesh(), item_embeddings.shape[0]
    if mesh is None:
        target_vectors = item_embeddings[target]
        return _rank_of(count(session_vectors, item_embeddings, target_vectors, excluded, is_counted, num_rows), ties)

    def count_on_device(vectors: Array, local_table: Array, target: Array, excluded: Array, is_counted: Array) -> Array:
        first = jax.lax.axis_index(MODEL) * local_table.shape[0]
        target_vectors = local_embedding_lookup(local_table, target)
        num_ahead = count(vectors, local_table, target_vectors, excluded - first, is_counted, num_rows - first)
        return jax.lax.psum(num_ahead, MODEL)

    batch = P(batch_axis(mesh, target.shape[0]))
    table = pad_rows(item_embeddings, mesh.shape[MODEL])
    count_on_mesh = shard_map_unchecked(count_on_device, mesh, (batch, P(MODEL), batch, batch, batch), batch)
    return _rank_of(count_on_mesh(session_vectors, table, target, excluded, is_counted), ties)


def _count_ahead(
    session_vectors: Float[Array, "B *L D"],
    item_embeddings: Float[Array, "V D"],
    target_vectors: Float[Array, "B D"],
    excluded: Int[Array, "B M"],
    is_counted: Bool[Array, "B M"],
    num_rows: Int[Array, ""] | int,
    *,
    ties: str,
    chunk_size: int | None,
) -> Int[Array, " B"]:
    """Adds up the contributions to each target's rank of the items of a table, or of one device's part of it.

    Args:
        session_vectors: u.
        item_embeddings: the table or the part of it.
        target_vectors: the rows of the targets, which may be in another part.
        excluded: row numbers in this part that do not count; numbers outside this part have no effect.
        is_counted: ``[B, M]`` True where an excluded item occurs for the first time in its row.
        num_rows: number of rows that are items; later rows are padding of the part.
        ties: as in :func:`target_rank`.
        chunk_size: items scored at a time.
    """
    rows, batch = item_embeddings.shape[0], session_vectors.shape[0]
    total = batch + rows
    chunk = _chunk_size(batch, total) if chunk_size is None else min(chunk_size, total)
    # The table is preceded by the target vectors, whose scores are needed first. A chunk that the target vectors fill
    # only in part also holds the first rows of the table.
    num_head, num_chunks = -(-(batch if chunk <= rows else total) // chunk), -(-total // chunk)
    head = jnp.concatenate([target_vectors, item_embeddings[: num_head * chunk - batch]])
    head = jnp.pad(head, ((0, num_head * chunk - head.shape[0]), (0, 0)))
    num_items = jnp.minimum(num_rows, rows)
    is_counted = is_counted & (excluded >= 0) & (excluded < num_items)
    lanes = _CPU_LANES if chunk % _CPU_LANES == 0 and jax.default_backend() == "cpu" else 1

    def count(carry: tuple[Array, Array, Array], step: Array) -> tuple[tuple[Array, Array, Array], None]:
        target_score, num_ahead, num_excluded = carry
        # The barrier depends on the step; without it XLA converts a whole bfloat16 table to float32 before the loop.
        current_head, current_rows, step = jax.lax.optimization_barrier((head, item_embeddings, step))
        chunk_rows = jax.lax.dynamic_slice_in_dim(current_head, jnp.minimum(step, num_head - 1) * chunk, chunk)
        first = start = step * chunk - batch
        if num_chunks > num_head:
            # The last chunk overlaps the one before it, so that all chunks have the same size; ``is_new`` skips the
            # overlap.
            start = jnp.minimum(first, rows - chunk)
            table_rows = jax.lax.dynamic_slice_in_dim(current_rows, start, chunk)
            chunk_rows = jnp.where(step < num_head, chunk_rows, table_rows)
        chunk_scores = scores(session_vectors, chunk_rows)

        position = jnp.arange(batch)[:, None] - step * chunk
        scores_at_position = jnp.take_along_axis(chunk_scores, jnp.clip(position, 0, chunk - 1), axis=1)
        target_score = jnp.where((position >= 0) & (position < chunk), scores_at_position, target_score)

        local = excluded - start
        is_in_chunk = is_counted & (excluded >= first) & (local < chunk)
        excluded_scores = jnp.take_along_axis(chunk_scores, jnp.clip(local, 0, chunk - 1), axis=1)
        position = start + jnp.arange(chunk)
        is_new = ((position >= jnp.maximum(first, 0)) & (position < num_items))[None]
        contributions = jnp.where(is_new, _contribution(chunk_scores, target_score, ties), 0)
        num_ahead = num_ahead + contributions.reshape(batch, -1, lanes).sum(1)
        num_excluded = num_excluded + (_contribution(excluded_scores, target_score, ties) * is_in_chunk).sum(1)
        return (target_score, num_ahead, num_excluded), None

    dtype = jax.eval_shape(scores, session_vectors, item_embeddings).dtype
    initial = (jnp.zeros((batch, 1), dtype), jnp.zeros((batch, lanes), jnp.int32), jnp.zeros(batch, jnp.int32))
    (_, num_ahead, num_excluded), _ = jax.lax.scan(count, initial, jnp.arange(num_chunks))
    return num_ahead.sum(1) - num_excluded


def _check_options(ties: str, chunk_size: int | None) -> None:
    check_one_of("ties", ties, TIES)
    if chunk_size is not None:
        check_at_least(1, chunk_size=chunk_size)


def _chunk_size(batch: int, rows: int) -> int:
    """Items in a chunk: scores fit the cache on a CPU, where the chunks are nearly equal, and 256 MiB elsewhere."""
    if jax.default_backend() != "cpu":
        return min(rows, max(1, _DEVICE_SCORE_BYTES // (4 * batch)))
    least = -(-rows // _CPU_CHUNK_ITEMS)
    chunk_sizes = [-(-rows // (number * _CPU_COLUMNS)) * _CPU_COLUMNS for number in range(least, 2 * least + 1)]
    return min(chunk_sizes, key=lambda chunk: -(-rows // chunk) * chunk)


def _excluded_items(
    target: Int[Array, " B"], exclude: Int[Array, "B L"]
) -> tuple[Int[Array, "B M"], Bool[Array, "B M"]]:
    """The target, the padding and the excluded items, and a mask that counts each of them once."""
    items = jnp.concatenate([target[:, None], jnp.full_like(exclude[:, :1], PAD), exclude], axis=1)
    earlier = jnp.tril(jnp.ones((items.shape[1],) * 2, bool), -1)
    return items, ~((items[:, :, None] == items[:, None, :]) & earlier[None]).any(-1)


def _contribution(all_scores: Float[Array, "B C"], target_score: Float[Array, "B 1"], ties: str) -> Int[Array, "B C"]:
    """The contribution of each score to the target's rank: 0 or 1, or with "average" 0, 1 or 2 halves."""
    # Both comparisons are negated, so that a NaN on either side counts as better than the target.
    is_better, is_at_least_as_good = ~(all_scores <= target_score), ~(all_scores < target_score)
    if ties == "average":
        return is_better.astype(jnp.int32) + is_at_least_as_good
    return (is_better if ties == "optimistic" else is_at_least_as_good).astype(jnp.int32)


def _rank_of(num_ahead: Int[Array, " B"], ties: str) -> Int[Array, " B"]:
    """The rank from the sum of the contributions."""
    return 1 + ((num_ahead + 1) // 2 if ties == "average" else num_ahead)
