"""The exact rank of the target in the whole catalogue, with seen items and padding left out."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.ops.lookup import local_embedding_lookup, pad_rows
from alkd_jax.ops.products import scores
from alkd_jax.sharding import MODEL, batch_axis, current_mesh, shard_map_unchecked
from alkd_jax.types import PAD

TIES = ("average", "optimistic", "pessimistic")
"""How scores equal to the target's are counted."""

_CPU_CHUNK = 1024
_COLUMNS = 192
"""Chunks are multiples of this: a CPU's products take 48 columns at a time, and the odd ones take as long as 48."""
_LANES = 64
"""Counts that a CPU keeps side by side: a sum along the scores of a session would be written out and read again."""
_SCORE_BYTES = 2**28


def target_rank(
    all_scores: Float[Array, "B V"],
    target: Int[Array, " B"],
    *,
    exclude: Int[Array, "B L"],
    ties: str = "average",
) -> Int[Array, " B"]:
    """Position of the target among the items not excluded, by counting, without a sort.

    ``rank = 1 + #{v : s_v > s_target} + ties``. The target itself is never excluded. A NaN counts as better than the
    target, so a broken model cannot look good.

    Args:
        all_scores: every item's score; column 0, the padding, is left out.
        target: items in ``1..V-1``.
        exclude: items to leave out, any order; repeats and 0 are harmless.
        ties: "average" counts half of the equal scores (a half rounded up, so that recall at k is that of the mean
            rank), "optimistic" none, "pessimistic" all.

    Returns:
        Ranks from 1, int32.

    Raises:
        ValueError: the tie mode is unknown.
    """
    _check(ties, None)
    left_out, counts = _left_out(target, exclude)
    theirs = jnp.take_along_axis(all_scores, left_out, axis=1)
    own = theirs[:, :1]
    ahead = _ahead(all_scores, own, ties).sum(1) - (_ahead(theirs, own, ties) * counts).sum(1)
    return _rank(ahead, ties)


def full_catalogue_rank(
    session_vectors: Float[Array, "B *L D"],
    item_embeddings: Float[Array, "V D"],
    target: Int[Array, " B"],
    *,
    exclude: Int[Array, "B L"],
    ties: str = "average",
    chunk_size: int | None = None,
) -> Int[Array, " B"]:
    """:func:`target_rank` of ``u_b · Y_v``, a chunk of items at a time: no ``[B, V]`` array is ever held.

    The target's score is read from a product of the same shape as everyone's, so it is rounded as theirs are. Chunks
    that stay in a CPU's cache make this several times as fast as going through all scores. Against those it may rank
    two items that are equal up to rounding the other way round, where the product rounds differently at another shape.
    On a mesh every device counts in its part of the table, and only the counts travel.

    Args:
        session_vectors: u.
        item_embeddings: Y, row 0 the padding.
        target: items in ``1..V-1``.
        exclude: items to leave out, any order; repeats and 0 are harmless.
        ties: as in :func:`target_rank`.
        chunk_size: items scored at a time; default what stays in cache on a CPU, and what fits 256 MiB elsewhere.

    Returns:
        Ranks from 1, int32.

    Raises:
        ValueError: the tie mode is unknown, or chunk_size is below 1.
    """
    _check(ties, chunk_size)
    left_out, counts = _left_out(target, exclude)
    count = functools.partial(_count_ahead, ties=ties, chunk_size=chunk_size)
    mesh, num_rows = current_mesh(), item_embeddings.shape[0]
    if mesh is None:
        targets = item_embeddings[target]
        return _rank(count(session_vectors, item_embeddings, targets, left_out, counts, num_rows), ties)

    def in_part(vectors: Array, part: Array, target: Array, left_out: Array, counts: Array) -> Array:
        first = jax.lax.axis_index(MODEL) * part.shape[0]
        targets = local_embedding_lookup(part, target)
        ahead = count(vectors, part, targets, left_out - first, counts, num_rows - first)
        return jax.lax.psum(ahead, MODEL)

    batch = P(batch_axis(mesh, target.shape[0]))
    table = pad_rows(item_embeddings, mesh.shape[MODEL])
    counting = shard_map_unchecked(in_part, mesh, (batch, P(MODEL), batch, batch, batch), batch)
    return _rank(counting(session_vectors, table, target, left_out, counts), ties)


def _count_ahead(
    session_vectors: Float[Array, "B *L D"],
    item_embeddings: Float[Array, "V D"],
    targets: Float[Array, "B D"],
    left_out: Int[Array, "B M"],
    counts: Bool[Array, "B M"],
    num_rows: Int[Array, ""] | int,
    *,
    ties: str,
    chunk_size: int | None,
) -> Int[Array, " B"]:
    """What the items of a table, or of a part of one, put each target back by.

    Args:
        session_vectors: u.
        item_embeddings: the part.
        targets: the targets' rows, wherever these are from.
        left_out: rows of the part that do not count; those elsewhere are harmless.
        counts: which of them to take off.
        num_rows: rows from here on are no items.
        ties: as in :func:`target_rank`.
        chunk_size: items scored at a time.
    """
    rows, batch = item_embeddings.shape[0], session_vectors.shape[0]
    total = batch + rows
    chunk = _chunk_size(batch, total) if chunk_size is None else min(chunk_size, total)
    # The targets' rows go first, and the chunk they do not fill is filled with the table's first.
    num_head, num_chunks = -(-(batch if chunk <= rows else total) // chunk), -(-total // chunk)
    head = jnp.concatenate([targets, item_embeddings[: num_head * chunk - batch]])
    head = jnp.pad(head, ((0, num_head * chunk - head.shape[0]), (0, 0)))
    real = jnp.minimum(num_rows, rows)
    counts = counts & (left_out >= 0) & (left_out < real)
    lanes = _LANES if chunk % _LANES == 0 and jax.default_backend() == "cpu" else 1

    def count(carry: tuple[Array, Array, Array], step: Array) -> tuple[tuple[Array, Array, Array], None]:
        own, ahead, taken_off = carry
        # Tied to the step, so that a CPU does not turn all of a bfloat16 table into float32 before the first.
        head_here, rows_here, step = jax.lax.optimization_barrier((head, item_embeddings, step))
        piece = jax.lax.dynamic_slice_in_dim(head_here, jnp.minimum(step, num_head - 1) * chunk, chunk)
        first = start = step * chunk - batch
        if num_chunks > num_head:
            # The last chunk starts early enough to be whole; what it repeats is not counted again.
            start = jnp.minimum(first, rows - chunk)
            piece = jnp.where(step < num_head, piece, jax.lax.dynamic_slice_in_dim(rows_here, start, chunk))
        found = scores(session_vectors, piece)

        place = jnp.arange(batch)[:, None] - step * chunk
        read = jnp.take_along_axis(found, jnp.clip(place, 0, chunk - 1), axis=1)
        own = jnp.where((place >= 0) & (place < chunk), read, own)

        local = left_out - start
        here = counts & (left_out >= first) & (local < chunk)
        theirs = jnp.take_along_axis(found, jnp.clip(local, 0, chunk - 1), axis=1)
        place = start + jnp.arange(chunk)
        fresh = ((place >= jnp.maximum(first, 0)) & (place < real))[None]
        more = jnp.where(fresh, _ahead(found, own, ties), 0).reshape(batch, -1, lanes).sum(1)
        return (own, ahead + more, taken_off + (_ahead(theirs, own, ties) * here).sum(1)), None

    dtype = jax.eval_shape(scores, session_vectors, item_embeddings).dtype
    nothing = (jnp.zeros((batch, 1), dtype), jnp.zeros((batch, lanes), jnp.int32), jnp.zeros(batch, jnp.int32))
    (_, ahead, taken_off), _ = jax.lax.scan(count, nothing, jnp.arange(num_chunks))
    return ahead.sum(1) - taken_off


def _check(ties: str, chunk_size: int | None) -> None:
    if ties not in TIES:
        raise ValueError(f"ties is {ties!r}; expected one of {', '.join(TIES)}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; expected at least 1")


def _chunk_size(batch: int, rows: int) -> int:
    """Items whose scores for a batch stay in a CPU's cache, in even chunks, or fit the memory set aside elsewhere."""
    if jax.default_backend() != "cpu":
        return min(rows, max(1, _SCORE_BYTES // (4 * batch)))
    least = -(-rows // _CPU_CHUNK)
    even = [-(-rows // (number * _COLUMNS)) * _COLUMNS for number in range(least, 2 * least + 1)]
    return min(even, key=lambda chunk: -(-rows // chunk) * chunk)


def _left_out(target: Int[Array, " B"], exclude: Int[Array, "B L"]) -> tuple[Int[Array, "B M"], Bool[Array, "B M"]]:
    """The target, the padding and the excluded items, and which of them to take off a count of all: each item once."""
    items = jnp.concatenate([target[:, None], jnp.full_like(exclude[:, :1], PAD), exclude], axis=1)
    earlier = jnp.tril(jnp.ones((items.shape[1],) * 2, bool), -1)
    return items, ~((items[:, :, None] == items[:, None, :]) & earlier[None]).any(-1)


def _ahead(all_scores: Float[Array, "B C"], own: Float[Array, "B 1"], ties: str) -> Int[Array, "B C"]:
    """How far each score puts the target back: by one place, or in half places where ties count half."""
    # Written as "not behind", so that a NaN on either side puts the target back.
    better, as_good = ~(all_scores <= own), ~(all_scores < own)
    if ties == "average":
        return better.astype(jnp.int32) + as_good
    return (better if ties == "optimistic" else as_good).astype(jnp.int32)


def _rank(ahead: Int[Array, " B"], ties: str) -> Int[Array, " B"]:
    """The rank from what :func:`_ahead` adds up to."""
    return 1 + ((ahead + 1) // 2 if ties == "average" else ahead)
