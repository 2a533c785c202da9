"""The exact top k of a table's rows, a chunk of rows at a time; a chunk is searched in bins of adjacent rows.

On a TPU, where bins would be read one number after the other, :mod:`alkd_jax.ops.block_top_k` takes their place.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alkd_jax.ops.block_top_k import block_top_k
from alkd_jax.ops.platforms import cpu_or_device
from alkd_jax.ops.products import scores
from alkd_jax.ops.tiles import map_tiles
from alkd_jax.ops.top_k import stable_top_k

ItemRange: TypeAlias = tuple[Int[Array, ""] | int, Int[Array, ""] | int]
"""The first row of a table that is an item, and the first row after the items."""

Scores: TypeAlias = Callable[[Array, Array], Array]
"""The scores of rows of a table for session vectors, in some precision."""

_BIN_SIZE = 64
"""Adjacent items in a bin. Only the k bins with the highest maxima can contain one of the k best items."""
_MIN_BIN_RATIO = 4
"""A chunk is divided into bins if it has at least this many times the items of k bins."""
_FEW_BINS_DIVISOR = 4
"""Once the current list is good, k divided by this many bins usually suffice."""
_CPU_SCORES = 2**21
"""Scores that fit a CPU's cache."""
_CPU_CHUNK_ITEMS = 2**14
_DEVICE_SCORES = 2**28
"""Scores in memory on other platforms, 1 GiB. It is a constant, because a program may be compiled for a device that is
not there to be asked for its memory."""
_DEVICE_TILE_SESSIONS = 4096


@functools.partial(jax.jit, static_argnames=("k", "chunk_size", "precision"))
def chunked_top_k(
    vectors: Float[Array, "B *L D"],
    table: Float[Array, "V D"],
    exclude: Int[Array, "B M"],
    items: ItemRange,
    *,
    k: int,
    chunk_size: int | None,
    precision: str = "highest",
) -> tuple[Float[Array, "B K"], Int[Array, "B K"]]:
    """The best k rows of a table or of a shard of one, in bounded memory.

    Args:
        vectors: u; one or several vectors per session.
        table: Y.
        exclude: rows that are never returned; rows outside of the table change nothing.
        items: only rows in this range are candidates.
        k: list length, at least 1.
        chunk_size: the largest number of rows scored at a time; None decides by the platform.
        precision: of the scores, see :mod:`alkd_jax.ops.precision`.

    Returns:
        Scores and row numbers, best first, ties to the lower row; −inf and −1 where fewer than k candidates remain.
    """
    widened = table.shape[1] if jnp.promote_types(table.dtype, jnp.float32) != table.dtype else 1
    sizes = [_sizes(vectors.shape, table.shape[0], k, chunk_size, on_cpu, widened) for on_cpu in (True, False)]
    score = functools.partial(scores, precision=precision)
    on_cpu, on_device = (functools.partial(_top_k, score, k=k, tile=tile, chunk=chunk) for tile, chunk in sizes)
    # A program that is exported for any number of sessions has a symbolic batch size, which blocks cannot be made for.
    in_blocks = functools.partial(block_top_k, k=k, chunk_size=chunk_size, precision=precision)
    on_tpu = in_blocks if isinstance(vectors.shape[0], int) else None
    return cpu_or_device(on_cpu, on_device, tpu=on_tpu)(vectors, table, exclude, items)


def _sizes(
    vectors: tuple[Any, ...], rows: int, k: int, chunk_size: int | None, on_cpu: bool, widened: int = 1
) -> tuple[int | None, int]:
    """The numbers of sessions (None: all) and of items that are scored at a time.

    ``widened`` counts the numbers per item of a chunk that is converted to float32; it is 1 for a float32 table.
    """
    batch, vectors_a_session = vectors[0], vectors[1] if len(vectors) == 3 else 1
    max_scores = max(1, (_CPU_SCORES if on_cpu else _DEVICE_SCORES) // vectors_a_session)
    # A program that is exported for any number of sessions has a symbolic batch size, which cannot be divided.
    has_static_batch = isinstance(batch, int)
    max_tile = max_scores if on_cpu else _DEVICE_TILE_SESSIONS
    tile = max(1, min(batch, max_tile)) if has_static_batch else _DEVICE_TILE_SESSIONS
    if chunk_size is None:
        min_items = max(_CPU_CHUNK_ITEMS if on_cpu else 1, _MIN_BIN_RATIO * _BIN_SIZE * k)
        chunk_size = max(min_items, max_scores // max(tile, widened))
    chunk = min(chunk_size, rows)
    if _BIN_SIZE <= chunk < rows:
        chunk -= chunk % _BIN_SIZE
    return (max(1, min(tile, max_scores // chunk)) if has_static_batch else None), chunk


def _top_k(
    score: Scores,
    vectors: Array,
    table: Array,
    exclude: Array,
    items: ItemRange,
    *,
    k: int,
    tile: int | None,
    chunk: int,
) -> tuple[Array, Array]:
    """The top k of one tile of sessions after another."""
    binned = chunk >= _MIN_BIN_RATIO * _BIN_SIZE * k
    tile_top_k = functools.partial(_top_k_of_tile, score, table=table, items=items, k=k, chunk=chunk, binned=binned)
    if tile is None or vectors.shape[0] <= tile:
        return tile_top_k(vectors, exclude)
    return map_tiles(tile_top_k, tile, vectors, exclude)


def _top_k_of_tile(
    score: Scores,
    vectors: Array,
    exclude: Array,
    *,
    table: Array,
    items: ItemRange,
    k: int,
    chunk: int,
    binned: bool,
) -> tuple[Array, Array]:
    """The top k of one tile: a scan over chunks that carries the best items so far."""
    batch, rows = vectors.shape[0], table.shape[0]
    row = jnp.arange(batch)[:, None]

    def merge(best: tuple[Array, Array], number: Array | int) -> tuple[tuple[Array, Array], None]:
        # The barrier depends on the chunk; without it XLA converts a whole bfloat16 table to float32 before the scan.
        current_rows, number = jax.lax.optimization_barrier((table, jnp.asarray(number, jnp.int32)))
        first = number * chunk
        # The last chunk overlaps the one before it, so that all chunks have the same size; items of the overlap are not
        # candidates again.
        start = jnp.minimum(first, rows - chunk)
        candidates = jnp.maximum(first, items[0]), items[1]
        chunk_position = exclude - start
        # Negative indices would wrap around, so items outside the chunk get an index past its end, which is dropped.
        chunk_position = jnp.where((chunk_position >= 0) & (chunk_position < chunk), chunk_position, chunk)
        chunk_rows = current_rows if chunk == rows else jax.lax.dynamic_slice_in_dim(current_rows, start, chunk)
        chunk_scores = score(vectors, chunk_rows).at[row, chunk_position].set(-jnp.inf, mode="drop")
        if binned:
            return _merge_bins(best, chunk_scores, start, candidates, k), None
        item = jnp.broadcast_to(start + jnp.arange(chunk), chunk_scores.shape)
        return _merge(best, _candidate_scores(chunk_scores, item, candidates), item, k), None

    dtype = jax.eval_shape(score, vectors, table).dtype
    # A single chunk is not merged with earlier items; if it has fewer than k items, the list is filled up.
    num_carried = k if chunk < rows else max(0, k - chunk)
    empty = (jnp.full((batch, num_carried), -jnp.inf, dtype), jnp.full((batch, num_carried), -1, jnp.int32))
    if chunk < rows:
        (best_scores, best_ids), _ = jax.lax.scan(merge, empty, jnp.arange(-(-rows // chunk), dtype=jnp.int32))
    else:
        (best_scores, best_ids), _ = merge(empty, 0)
    return best_scores, jnp.where(jnp.isneginf(best_scores), -1, best_ids)


def _candidate_scores(chunk_scores: Array, item: Array, candidates: ItemRange) -> Array:
    """Scores for sorting: −inf for NaN and for items that are no candidates; 0 for −0, which a top k ranks below it."""
    is_candidate = (item >= candidates[0]) & (item < candidates[1]) & ~jnp.isnan(chunk_scores)
    return jnp.where(is_candidate, jnp.where(chunk_scores == 0, 0.0, chunk_scores), -jnp.inf)


def _merge(best: tuple[Array, Array], item_scores: Array, item: Array, k: int) -> tuple[Array, Array]:
    """The best k of the current list and of later items; ties go to the items of the current list."""
    best_scores, position = stable_top_k(jnp.concatenate([best[0], item_scores], axis=1), k)
    return best_scores, jnp.take_along_axis(jnp.concatenate([best[1], item], axis=1), position, axis=1)


def _merge_bins(
    best: tuple[Array, Array], chunk_scores: Float[Array, "B C"], start: Array, candidates: ItemRange, k: int
) -> tuple[Array, Array]:
    """:func:`_merge` of a chunk in bins; only bins that can contain one of the k best items are sorted."""
    batch, chunk = chunk_scores.shape
    num_in_full_bins = chunk - chunk % _BIN_SIZE
    ranked_scores = _candidate_scores(chunk_scores, start + jnp.arange(chunk)[None], candidates)
    highest = ranked_scores[:, :num_in_full_bins].reshape(batch, -1, _BIN_SIZE).max(2)
    if num_in_full_bins < chunk:
        highest = jnp.concatenate([highest, ranked_scores[:, num_in_full_bins:].max(1, keepdims=True)], axis=1)

    def merge_bins(best: tuple[Array, Array], num: int) -> tuple[Array, Array]:
        # The bins are put back in the order of their items, so that ties go to the lower id.
        bin_items = _BIN_SIZE * jnp.sort(stable_top_k(highest, num)[1], axis=1)
        # The last bin may be short: it is read together with earlier items, which are then excluded.
        bin_start = jnp.minimum(bin_items, chunk - _BIN_SIZE)
        position = bin_start[:, :, None] + jnp.arange(_BIN_SIZE)[None, None]
        bin_scores = jax.vmap(_gather_bins)(chunk_scores, bin_start)
        bin_scores = _candidate_scores(bin_scores, start + position, candidates)
        bin_scores = jnp.where(position < bin_items[:, :, None], -jnp.inf, bin_scores)
        return _merge(best, bin_scores.reshape(batch, -1), start + position.reshape(batch, -1), k)

    num_few = k // _FEW_BINS_DIVISOR
    if best[0].shape[1] == 0 or k <= 2 * _FEW_BINS_DIVISOR:
        return merge_bins(best, k)
    # After the first chunks, few bins still contain an item better than the k-th of the list.
    few_suffice = (highest > best[0][:, -1:]).sum(1).max() <= num_few
    merge_few, merge_all = (functools.partial(merge_bins, num=num) for num in (num_few, k))
    return jax.lax.cond(few_suffice, merge_few, merge_all, best)


def _gather_bins(scores: Float[Array, " C"], bin_start: Int[Array, " N"]) -> Float[Array, "N W"]:
    """The scores of the bins of one session."""
    return jax.vmap(lambda first: jax.lax.dynamic_slice_in_dim(scores, first, _BIN_SIZE))(bin_start)
