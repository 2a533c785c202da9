"""The exact top k of a row-sharded table: every device ranks the items of its own shard, and the lists are merged."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from alkd_jax.ops.chunked_top_k import chunked_top_k
from alkd_jax.ops.lookup import pad_rows
from alkd_jax.ops.top_k import stable_top_k
from alkd_jax.sharding import MODEL, batch_axis, device_put_global, shard_map_unchecked
from alkd_jax.types import PAD


def sharded_top_k(
    mesh: Any,
    session_vectors: Float[Array, "B *L D"],
    item_embeddings: Float[Array, "V D"],
    k: int,
    exclude: Int[Array, "B L"],
    chunk_size: int | None,
    precision: str = "highest",
) -> tuple[Float[Array, "B K"], Int[Array, "B K"]]:
    """Merges the top-k lists of all shards of the table; between devices travel ``[B, k]`` numbers of each shard.

    Args:
        mesh: the mesh whose model axis the table is split along.
        session_vectors: u.
        item_embeddings: Y; row 0 is the padding.
        k: list length.
        exclude: items that are never returned; 0 fills free places.
        chunk_size: items scored at a time by a device; None decides by the platform.
        precision: of the scores, see :mod:`alkd_jax.ops.precision`.

    Returns:
        Scores and items, best first; item −1 where the score is −inf.
    """
    arrays = session_vectors, pad_rows(item_embeddings, mesh.shape[MODEL]), exclude
    if not isinstance(arrays[1], jax.core.Tracer):
        specs = (P(), P(MODEL), P())
        arrays = tuple(
            device_put_global(array, NamedSharding(mesh, spec)) for array, spec in zip(arrays, specs, strict=True)
        )
    return _merge_shards(mesh, item_embeddings.shape[0], k, chunk_size, precision, *arrays)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _merge_shards(
    mesh: Any,
    num_rows: int,
    k: int,
    chunk_size: int | None,
    precision: str,
    vectors: Array,
    table: Array,
    exclude: Array,
) -> tuple[Array, Array]:
    def merge(vectors: Array, shard: Array, exclude: Array) -> tuple[Array, Array]:
        first = jax.lax.axis_index(MODEL) * shard.shape[0]
        items = PAD + 1 - first, num_rows - first
        options = {"k": k, "chunk_size": chunk_size, "precision": precision}
        value, row = chunked_top_k(vectors, shard, exclude - first, items, **options)
        value, item = (jax.lax.all_gather(array, MODEL, axis=1, tiled=True) for array in (value, row + first))
        # The lists are concatenated in the order of their items, so that the lower id comes first among equal scores.
        value, index = stable_top_k(value, k)
        return value, jnp.where(jnp.isneginf(value), -1, jnp.take_along_axis(item, index, axis=1))

    batch = P(batch_axis(mesh, exclude.shape[0]))
    specs = (batch, P(MODEL), batch), (batch, batch)
    return shard_map_unchecked(merge, mesh, *specs)(vectors, table, exclude)
