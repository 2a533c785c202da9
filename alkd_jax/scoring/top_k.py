"""The exact top k of the whole catalogue, a chunk of items at a time, with seen items and padding left out."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from alkd_jax.ops.parts import Span, top_k_of_parts
from alkd_jax.ops.products import scores
from alkd_jax.ops.top_k import stable_top_k
from alkd_jax.sharding import current_mesh
from alkd_jax.types import PAD

_BIN = 64
"""Neighbouring items that stand for each other: only the k bins with the best items are looked into."""
_BINS_PAY = 4
"""A chunk is binned when it is so many times as large as what is looked into."""
_CPU_SCORES = 2**21
"""Scores that stay in a CPU's cache."""
_CPU_CHUNK = 2**14
_DEVICE_SHARE = 32
"""Elsewhere scores may take one part in so many of the device's memory."""
_DEVICE_TILE = 4096
_FEW = 4


def top_k(
    session_vectors: Float[Array, "B *L D"],
    item_embeddings: Float[Array, "V D"],
    k: int,
    *,
    exclude: Int[Array, "B L"],
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
) -> tuple[Float[Array, "B K"], Int[Array, "B K"]]:
    """The k best items of the whole catalogue, exactly; never more scores in memory than fit.

    The best k so far go through the catalogue chunk by chunk. Of a chunk only the bins of items are looked into whose
    best item is among the k best: any other item has k better ones. A table may be stored in bfloat16; products are
    added up in float32.

    Args:
        session_vectors: u; one vector a session, or several.
        item_embeddings: Y, row 0 the padding, which is never returned.
        k: list length, at least 1.
        exclude: items never returned, 0 where there are fewer.
        chunk_size: items scored at a time, at most; default by memory: all of a small catalogue, else what stays in
            cache on a CPU, and a thirty-second of the memory elsewhere.
        mesh: devices whose model axis the table is cut along; default the one that holds here, if any.

    Returns:
        Scores, best first, ties to the lower id; and item ids. Where fewer than k items remain, −inf and −1. NaN counts
        as −inf.

    Raises:
        ValueError: k or chunk_size is below 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}; expected at least 1")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; expected at least 1")

    def of_table(vectors: Array, table: Array, exclude: Array, items: Span) -> tuple[Array, Array]:
        widened = table.shape[1] if jnp.promote_types(table.dtype, jnp.float32) != table.dtype else 1
        tile, chunk = _sizes(vectors.shape, table.shape[0], k, chunk_size, widened=widened)
        return _top_k(vectors, table, exclude, items, k=k, tile=tile, chunk=chunk)

    mesh = current_mesh() if mesh is None else mesh
    if mesh is not None:
        return top_k_of_parts(mesh, of_table, session_vectors, item_embeddings, k, exclude)
    return of_table(session_vectors, item_embeddings, exclude, (PAD + 1, item_embeddings.shape[0]))


def _sizes(
    vectors: tuple[Any, ...], rows: int, k: int, chunk_size: int | None, *, widened: int = 1
) -> tuple[int | None, int]:
    """How many sessions (None: all) and how many items are scored at a time.

    Of a table that is stored narrow, a chunk is turned into float32: ``widened`` numbers an item.
    """
    batch, vectors_a_session = vectors[0], vectors[1] if len(vectors) == 3 else 1
    on_cpu = jax.default_backend() == "cpu"
    allowed = max(1, (_CPU_SCORES if on_cpu else _device_scores()) // vectors_a_session)
    # In a program for any number of sessions that number is no integer, and there is nothing to divide.
    known = isinstance(batch, int)
    tile = max(1, min(batch, allowed if on_cpu else _DEVICE_TILE)) if known else _DEVICE_TILE
    if chunk_size is None:
        least = max(_CPU_CHUNK if on_cpu else 1, _BINS_PAY * _BIN * k)
        chunk_size = max(least, allowed // max(tile, widened))
    chunk = min(chunk_size, rows)
    if _BIN <= chunk < rows:
        chunk -= chunk % _BIN
    return (max(1, min(tile, allowed // chunk)) if known else None), chunk


def _device_scores() -> int:
    told = jax.local_devices()[0].memory_stats() or {}
    return told.get("bytes_limit", 2**33) // (4 * _DEVICE_SHARE)


@functools.partial(jax.jit, static_argnames=("k", "tile", "chunk"))
def _top_k(
    vectors: Array, table: Array, exclude: Array, items: Span, *, k: int, tile: int | None, chunk: int
) -> tuple[Array, Array]:
    """Tiles of sessions one after the other, each through all chunks; other rows than ``items`` are never listed."""
    batch = vectors.shape[0]
    binned = chunk >= _BINS_PAY * _BIN * k
    one_tile = functools.partial(_top_k_of_tile, table=table, items=items, k=k, chunk=chunk, binned=binned)
    if tile is None or batch <= tile:
        return one_tile((vectors, exclude))
    num_tiles = -(-batch // tile)
    tile = -(-batch // num_tiles)

    def tiles(array: Array) -> Array:
        padding = [(0, num_tiles * tile - batch)] + [(0, 0)] * (array.ndim - 1)
        return jnp.pad(array, padding).reshape(num_tiles, tile, *array.shape[1:])

    value, index = jax.lax.map(one_tile, (tiles(vectors), tiles(exclude)))
    return value.reshape(-1, k)[:batch], index.reshape(-1, k)[:batch]


def _top_k_of_tile(
    sessions: tuple[Array, Array], *, table: Array, items: Span, k: int, chunk: int, binned: bool
) -> tuple[Array, Array]:
    """The best so far, carried through all chunks."""
    vectors, exclude = sessions
    batch, rows = vectors.shape[0], table.shape[0]
    row = jnp.arange(batch)[:, None]

    def merge(best: tuple[Array, Array], number: Array | int) -> tuple[tuple[Array, Array], None]:
        # Tied to the chunk, so that a CPU does not turn all of a bfloat16 table into float32 before the first.
        rows_here, number = jax.lax.optimization_barrier((table, jnp.asarray(number, jnp.int32)))
        first = number * chunk
        # The last chunk starts early enough to be whole; what it repeats is no candidate again.
        start = jnp.minimum(first, rows - chunk)
        candidates = jnp.maximum(first, items[0]), items[1]
        local = exclude - start
        # A negative index would wrap around: send whatever is not in this chunk past its end.
        local = jnp.where((local >= 0) & (local < chunk), local, chunk)
        piece = rows_here if chunk == rows else jax.lax.dynamic_slice_in_dim(rows_here, start, chunk)
        found = scores(vectors, piece).at[row, local].set(-jnp.inf, mode="drop")
        if binned:
            return _merge_bins(best, found, start, candidates, k), None
        item = jnp.broadcast_to(start + jnp.arange(chunk), found.shape)
        return _merge(best, _listable(found, item, candidates), item, k), None

    dtype = jax.eval_shape(scores, vectors, table).dtype
    # Before an only chunk there is nothing to carry; what it lacks for k is filled up.
    carried = k if chunk < rows else max(0, k - chunk)
    empty = (jnp.full((batch, carried), -jnp.inf, dtype), jnp.full((batch, carried), -1, jnp.int32))
    if chunk < rows:
        (value, index), _ = jax.lax.scan(merge, empty, jnp.arange(-(-rows // chunk), dtype=jnp.int32))
    else:
        (value, index), _ = merge(empty, 0)
    return value, jnp.where(jnp.isneginf(value), -1, index)


def _listable(found: Array, item: Array, candidates: Span) -> Array:
    """Scores in the order wanted: NaN and what is no candidate last, and −0 equal to 0, which a top k tells apart."""
    is_listed = (item >= candidates[0]) & (item < candidates[1]) & ~jnp.isnan(found)
    return jnp.where(is_listed, jnp.where(found == 0, 0.0, found), -jnp.inf)


def _merge(best: tuple[Array, Array], value: Array, item: Array, k: int) -> tuple[Array, Array]:
    """The best k of those so far and of later items; earlier ones stand first and win ties."""
    value, place = stable_top_k(jnp.concatenate([best[0], value], axis=1), k)
    return value, jnp.take_along_axis(jnp.concatenate([best[1], item], axis=1), place, axis=1)


def _merge_bins(
    best: tuple[Array, Array], found: Float[Array, "B C"], start: Array, candidates: Span, k: int
) -> tuple[Array, Array]:
    """:func:`_merge` of a chunk in bins, looking into as many bins as can matter."""
    batch, chunk = found.shape
    whole = chunk - chunk % _BIN
    listable = _listable(found, start + jnp.arange(chunk)[None], candidates)
    highest = listable[:, :whole].reshape(batch, -1, _BIN).max(2)
    if whole < chunk:
        highest = jnp.concatenate([highest, listable[:, whole:].max(1, keepdims=True)], axis=1)

    def look_into(best: tuple[Array, Array], num: int) -> tuple[Array, Array]:
        # In the order of their items again, so that equal scores are met in that order.
        chosen = _BIN * jnp.sort(stable_top_k(highest, num)[1], axis=1)
        # The last bin may be short: it is read from earlier on, and what is not its own left out.
        begin = jnp.minimum(chosen, chunk - _BIN)
        place = begin[:, :, None] + jnp.arange(_BIN)[None, None]
        value = jax.vmap(_slices)(found, begin)
        value = jnp.where(place < chosen[:, :, None], -jnp.inf, _listable(value, start + place, candidates))
        return _merge(best, value.reshape(batch, -1), start + place.reshape(batch, -1), k)

    few = k // _FEW
    if best[0].shape[1] == 0 or k <= 2 * _FEW:
        return look_into(best, k)
    # After the first chunks hardly any bin still holds an item better than the k-th.
    some = (highest > best[0][:, -1:]).sum(1).max() <= few
    return jax.lax.cond(some, functools.partial(look_into, num=few), functools.partial(look_into, num=k), best)


def _slices(scores: Float[Array, " C"], begin: Int[Array, " N"]) -> Float[Array, "N W"]:
    """One session's bins."""
    return jax.vmap(lambda first: jax.lax.dynamic_slice_in_dim(scores, first, _BIN))(begin)
