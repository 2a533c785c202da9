"""The exact top k of a table's rows on a TPU: the best blocks of rows are chosen first, then their rows are sorted.

A TPU reads and sorts whole rows of 128 lanes. A write at computed places, and a read that does not begin at a multiple
of 128, become loops over single elements, which take a thousand times as long as the product. So the scores are kept in
blocks of 128 adjacent items, a block in one row of lanes; whole rows are gathered; and excluded items are not masked
before the search but removed from a list that is long enough.
"""

import functools
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.ops.products import block_scores
from alkd_jax.ops.tiles import split_rows

_BLOCK = 128
"""Items of a block: the lanes of a row. Only the n blocks with the best items can contain one of the n best items."""
_PARTS = (64, 32)
"""Items of a part of a block, of which the same holds."""
_FEW_DIVISOR = 16
"""A sixteenth of a chunk's items are few to sort; a further step that makes them fewer costs more than it saves."""
_TILE_SESSIONS = 512
_ROWS_PER_TILE = 8
"""A tile has a multiple of so many sessions, the rows that a TPU computes at a time."""
_CHUNK_ITEMS, _CHUNK_SCORES = 3 * 2**16, 2**25
"""Items and scores of a chunk: 64 sessions' scores and the rows of width 64 fit the fast memory of a v5e together."""
_NO_ITEM = jnp.iinfo(jnp.int32).max

Lists: TypeAlias = tuple[Float[Array, "*tiles B K"], Int[Array, "*tiles B K"]]
"""Negated scores, ascending, and the rows that they belong to; +inf and a large number where there are fewer."""


def block_top_k(
    vectors: Float[Array, "B *L D"],
    table: Float[Array, "V D"],
    exclude: Int[Array, "B M"],
    items: tuple[Int[Array, ""] | int, Int[Array, ""] | int],
    *,
    k: int,
    chunk_size: int | None = None,
    precision: str = "highest",
) -> tuple[Float[Array, "B K"], Int[Array, "B K"]]:
    """The best k rows of a table or of a shard of one; arguments and results as of ``chunked_top_k``.

    The search finds the best k + M rows in order, ties to the lower row, and removes the M excluded ones from them. It
    goes through the table chunk by chunk, so that a chunk is read once for all sessions.

    Args:
        vectors: u; one or several vectors per session.
        table: Y.
        exclude: rows that are never returned.
        items: only rows in this range are candidates.
        k: list length, at least 1.
        chunk_size: the largest number of rows scored at a time, rounded up to a multiple of 128.
        precision: of the scores, see :mod:`alkd_jax.ops.precision`.
    """
    batch, num_rows, num = vectors.shape[0], table.shape[0], k + exclude.shape[1]
    tile = _round_up(min(batch, _TILE_SESSIONS), _ROWS_PER_TILE)
    limit = min(_CHUNK_ITEMS, _CHUNK_SCORES // tile) if chunk_size is None else chunk_size
    chunk = min(_round_up(limit, _BLOCK), _round_up(num_rows, _BLOCK))
    tiles, score = split_rows(vectors, tile), functools.partial(block_scores, precision=precision)

    def merge(lists: Lists, number: Array | int) -> tuple[Lists, None]:
        # The last chunk overlaps the one before it; rows of the overlap are not candidates again.
        first = number * chunk
        start = jnp.minimum(first, max(0, num_rows - chunk))
        if chunk <= num_rows:
            rows = jax.lax.dynamic_slice_in_dim(table, start, chunk)
        else:
            rows = jnp.pad(table, ((0, chunk - num_rows), (0, 0)))
        row = start + jnp.arange(chunk, dtype=jnp.int32)
        is_candidate = (row >= jnp.maximum(first, items[0])) & (row < jnp.minimum(items[1], num_rows))

        def merge_tile(tile: tuple[Array, Lists]) -> Lists:
            negated = _negated_scores(score, tile[0], rows, is_candidate)
            found = _choose_way(negated.shape[0], num)(negated, start, num)
            return _smallest(num, *(jnp.concatenate(pair, axis=1) for pair in zip(tile[1], found, strict=True)))

        if len(tiles) > 1:
            return jax.lax.map(merge_tile, (tiles, lists)), None
        merged = merge_tile(jax.tree.map(lambda array: array[0], (tiles, lists)))
        return jax.tree.map(lambda array: array[None], merged), None

    shape, dtype = (len(tiles), tile, num), jax.eval_shape(score, tiles[0], table[None, :1]).dtype
    lists: Lists = jnp.full(shape, jnp.inf, dtype), jnp.full(shape, _NO_ITEM, jnp.int32)
    num_chunks = -(-num_rows // chunk)
    if num_chunks > 1:
        lists, _ = jax.lax.scan(merge, lists, jnp.arange(num_chunks, dtype=jnp.int32))
    else:
        lists, _ = merge(lists, 0)
    negated, ids = (array.reshape(-1, num)[:batch] for array in lists)
    is_excluded = (ids[:, :, None] == exclude[:, None, :]).any(-1)
    negated, ids = _smallest(k, jnp.where(is_excluded, jnp.inf, negated), ids)
    return jnp.where(negated == 0, 0.0, -negated), jnp.where(jnp.isposinf(negated), -1, ids)


def _round_up(number: int, multiple: int) -> int:
    return number + -number % multiple


def _negated_scores(
    score: Callable[[Array, Array], Array],
    vectors: Float[Array, "B *L D"],
    rows: Float[Array, "C D"],
    is_candidate: Bool[Array, " C"],
) -> Float[Array, "N B W"]:
    """−s in blocks; +inf for NaN and for rows that are no candidates, and 0 for −0, which a sort tells from 0."""
    num_blocks = rows.shape[0] // _BLOCK
    blocks = rows.reshape(num_blocks, _BLOCK, rows.shape[1])
    # Blocks come first, so that a block of a session is one row of lanes.
    block_first = score(vectors, blocks).transpose(1, 0, 2)
    is_ranked = is_candidate.reshape(num_blocks, 1, _BLOCK) & ~jnp.isnan(block_first)
    return jnp.where(is_ranked, jnp.where(block_first == 0, 0.0, -block_first), jnp.inf)


def _choose_way(num_blocks: int, num: int) -> Callable[[Array, Array, int], Lists]:
    """The simplest way to find the ``num`` smallest numbers of each session in a chunk that sorts few of them."""
    num_chosen = min(num, num_blocks)
    sorted_numbers: dict[Callable[[Array, Array, int], Lists], int] = {
        _by_sort: num_blocks * _BLOCK,
        _by_blocks: num_blocks + num_chosen * _BLOCK,
    }
    for size in _PARTS:
        num_parts = num_chosen * (_BLOCK // size)
        sorted_numbers[functools.partial(_by_parts, size=size)] = num_blocks + num_parts + min(num, num_parts) * size
    few = num_blocks * _BLOCK // _FEW_DIVISOR
    least = min(sorted_numbers, key=lambda way: sorted_numbers[way])
    return next((way for way, count in sorted_numbers.items() if count <= few), least)


def _by_sort(negated: Float[Array, "N B W"], start: Array, num: int) -> Lists:
    num_blocks, batch, _ = negated.shape
    ids = jnp.broadcast_to(start + jnp.arange(num_blocks * _BLOCK, dtype=jnp.int32), (batch, num_blocks * _BLOCK))
    return _smallest(num, negated.transpose(1, 0, 2).reshape(batch, -1), ids)


def _by_blocks(negated: Float[Array, "N B W"], start: Array, num: int) -> Lists:
    first = _best_blocks(negated, num)
    ids = first[:, :, None] + jnp.arange(_BLOCK, dtype=jnp.int32)[None, None]
    batch = negated.shape[1]
    return _smallest(num, _rows_of(negated, first).reshape(batch, -1), start + ids.reshape(batch, -1))


def _by_parts(negated: Float[Array, "N B W"], start: Array, num: int, *, size: int) -> Lists:
    """As :func:`_by_blocks`, but only the best parts of the chosen blocks are sorted."""
    batch, parts = negated.shape[1], range(0, _BLOCK, size)
    first = _best_blocks(negated, num)
    rows = _rows_of(negated, first)
    lane = jnp.arange(_BLOCK, dtype=jnp.int32) // size * size
    # Minima over masked rows, because a row of lanes is not divided without moving it.
    best = [jnp.where(lane[None] == part, rows, jnp.inf).min(1).reshape(batch, -1) for part in parts]
    first = jnp.concatenate([first + part for part in parts], axis=1)
    first = _smallest(num, jnp.concatenate(best, axis=1), first)[1]
    rows = _rows_of(negated, first).reshape(-1, len(parts), size)
    is_chosen = (first % _BLOCK // size).reshape(-1, 1) == jnp.arange(len(parts), dtype=jnp.int32)[None]
    chosen = jnp.where(is_chosen[:, :, None], rows, jnp.inf).min(1).reshape(batch, -1)
    ids = first[:, :, None] + jnp.arange(size, dtype=jnp.int32)[None, None]
    return _smallest(num, chosen, start + ids.reshape(batch, -1))


def _best_blocks(negated: Float[Array, "N B W"], num: int) -> Int[Array, "B K"]:
    """The first item, counted in the chunk, of each of the ``num`` blocks with the smallest numbers."""
    num_blocks, batch, _ = negated.shape
    first = jnp.broadcast_to(_BLOCK * jnp.arange(num_blocks, dtype=jnp.int32), (batch, num_blocks))
    return _smallest(min(num, num_blocks), negated.min(2).T, first)[1]


def _rows_of(negated: Float[Array, "N B W"], item: Int[Array, "B K"]) -> Float[Array, "_ W"]:
    """The rows of lanes that contain these items of each session."""
    batch = negated.shape[1]
    row = item // _BLOCK * batch + jnp.arange(batch, dtype=jnp.int32)[:, None]
    return negated.reshape(-1, _BLOCK).at[row.reshape(-1)].get(mode="promise_in_bounds")


def _smallest(num: int, numbers: Float[Array, "B C"], ids: Int[Array, "B C"]) -> Lists:
    """The ``num`` smallest numbers of each row and their ids, equal numbers by their ids."""
    numbers, ids = jax.lax.sort((numbers, ids), dimension=1, num_keys=2, is_stable=False)
    return numbers[:, :num], ids[:, :num]
