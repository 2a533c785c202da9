"""The exact top k of the whole catalogue, a chunk of items at a time, with seen items and padding left out."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from alkd_jax.scoring.largest import largest
from alkd_jax.scoring.parts import Span, top_k_of_parts
from alkd_jax.scoring.products import scores
from alkd_jax.sharding import active
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
        tile, chunk = _sizes(vectors.shape, table.shape[0], k, chunk_size)
        return _top_k(vectors, table, exclude, items, k=k, tile=tile, chunk=chunk)

    mesh = active() if mesh is None else mesh
    if mesh is not None:
        return top_k_of_parts(mesh, of_table, session_vectors, item_embeddings, k, exclude)
    return of_table(session_vectors, item_embeddings, exclude, (PAD + 1, item_embeddings.shape[0]))


def _sizes(vectors: tuple[Any, ...], rows: int, k: int, chunk_size: int | None) -> tuple[int | None, int]:
    """How many sessions (None: all) and how many items are scored at a time."""
    batch, vectors_a_session = vectors[0], vectors[1] if len(vectors) == 3 else 1
    on_cpu = jax.default_backend() == "cpu"
    allowed = max(1, (_CPU_SCORES if on_cpu else _device_scores()) // vectors_a_session)
    # In a program for any number of sessions that number is no integer, and there is nothing to divide.
    known = isinstance(batch, int)
    tile = max(1, min(batch, allowed if on_cpu else _DEVICE_TILE)) if known else _DEVICE_TILE
    if chunk_size is None:
        least = max(_CPU_CHUNK if on_cpu else 1, _BINS_PAY * _BIN * k)
        chunk_size = max(least, allowed // tile)
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
    batch, rows = vectors.shape[0], table.shape[0]
    binned = chunk >= _BINS_PAY * _BIN * k
    if binned and chunk % _BIN:
        chunk += -chunk % _BIN
        table = jnp.pad(table, ((0, chunk - rows), (0, 0)))
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
    batch, width = vectors.shape[0], table.shape[0]
    row = jnp.arange(batch)[:, None]

    def merge(best: tuple[Array, Array], number: Array) -> tuple[tuple[Array, Array], None]:
        # Tied to the chunk, so that a CPU does not turn all of a bfloat16 table into float32 before the first.
        rows_here, number = jax.lax.optimization_barrier((table, number))
        first = number * chunk
        # The last chunk starts early enough to be whole; what it repeats is no candidate again.
        start = jnp.minimum(first, width - chunk)
        item = start + jnp.arange(chunk)
        real = (item >= first) & (item >= items[0]) & (item < items[1])
        # What is no candidate is marked in the table's few columns, not in the many scores: NaN is never listed.
        piece = jnp.where(real[:, None], jax.lax.dynamic_slice_in_dim(rows_here, start, chunk), jnp.nan)
        local = exclude - start
        # A negative index would wrap around: send whatever is not in this chunk past its end.
        local = jnp.where((local >= 0) & (local < chunk), local, chunk)
        found = scores(vectors, piece).at[row, local].set(-jnp.inf, mode="drop")
        if binned:
            return _merge_bins(best, found.reshape(batch, -1, _BIN), start, k), None
        return _merge(best, _listable(found), jnp.broadcast_to(item, found.shape), k), None

    dtype = jax.eval_shape(scores, vectors, table).dtype
    empty = (jnp.full((batch, k), -jnp.inf, dtype), jnp.full((batch, k), -1, jnp.int32))
    (value, index), _ = jax.lax.scan(merge, empty, jnp.arange(-(-width // chunk), dtype=jnp.int32))
    return value, jnp.where(jnp.isneginf(value), -1, index)


def _listable(found: Array) -> Array:
    """Scores in the order wanted: NaN last, and −0 equal to 0, which a top k tells apart."""
    return jnp.where(jnp.isnan(found), -jnp.inf, jnp.where(found == 0, 0.0, found))


def _merge(best: tuple[Array, Array], value: Array, item: Array, k: int) -> tuple[Array, Array]:
    """The best k of those so far and of later items; earlier ones stand first and win ties."""
    value, place = largest(jnp.concatenate([best[0], value], axis=1), k)
    return value, jnp.take_along_axis(jnp.concatenate([best[1], item], axis=1), place, axis=1)


def _merge_bins(best: tuple[Array, Array], bins: Float[Array, "B N W"], start: Array, k: int) -> tuple[Array, Array]:
    """:func:`_merge` of a chunk in bins, looking into as many bins as can matter."""
    row = jnp.arange(bins.shape[0])[:, None]
    highest = _listable(bins).max(2)

    def look_into(best: tuple[Array, Array], num: int) -> tuple[Array, Array]:
        # In the order of their items again, so that equal scores are met in that order.
        chosen = jnp.sort(largest(highest, num)[1], axis=1)
        value = _listable(bins[row, chosen]).reshape(bins.shape[0], -1)
        item = start + (chosen[:, :, None] * _BIN + jnp.arange(_BIN)[None, None]).reshape(value.shape)
        return _merge(best, value, item, k)

    few = k // _FEW
    if k <= 2 * _FEW:
        return look_into(best, k)
    # After the first chunks hardly any bin still holds an item better than the k-th.
    some = (highest > best[0][:, -1:]).sum(1).max() <= few
    return jax.lax.cond(some, functools.partial(look_into, num=few), functools.partial(look_into, num=k), best)
