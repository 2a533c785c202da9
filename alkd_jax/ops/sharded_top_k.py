"""The exact top k of a row-sharded table: every device ranks the items of its own shard, and the lists are merged."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from alkd_jax.ops.lookup import pad_rows
from alkd_jax.ops.top_k import stable_top_k
from alkd_jax.sharding import MODEL, batch_axis, device_put_global, shard_map_unchecked
from alkd_jax.types import PAD

ItemRange: TypeAlias = tuple[Int[Array, ""] | int, Int[Array, ""] | int]
"""The first row of a table that is an item, and the first row after the items."""


def sharded_top_k(
    mesh: Any,
    top_k: Callable[..., tuple[Array, Array]],
    session_vectors: Float[Array, "B *L D"],
    item_embeddings: Float[Array, "V D"],
    k: int,
    exclude: Int[Array, "B L"],
) -> tuple[Float[Array, "B K"], Int[Array, "B K"]]:
    """Merges the top-k lists of all shards of the table; between devices travel ``[B, k]`` numbers of each shard.

    Args:
        mesh: the mesh whose model axis the table is split along.
        top_k: ``top_k(vectors, table, exclude, item_range)`` of one table; ``exclude`` holds rows that are not listed,
            and rows outside of the table change nothing.
        session_vectors: u.
        item_embeddings: Y; row 0 is the padding.
        k: list length.
        exclude: items that are never returned; 0 fills free places.

    Returns:
        Scores and items, best first; item −1 where the score is −inf.
    """
    table, num_rows = pad_rows(item_embeddings, mesh.shape[MODEL]), item_embeddings.shape[0]
    batch = P(batch_axis(mesh, exclude.shape[0]))

    def merge_shards(vectors: Array, shard: Array, exclude: Array) -> tuple[Array, Array]:
        first = jax.lax.axis_index(MODEL) * shard.shape[0]
        value, row = top_k(vectors, shard, exclude - first, (PAD + 1 - first, num_rows - first))
        value, item = (jax.lax.all_gather(array, MODEL, axis=1, tiled=True) for array in (value, row + first))
        # The lists are concatenated in the order of their items, so that the lower id comes first among equal scores.
        value, index = stable_top_k(value, k)
        return value, jnp.where(jnp.isneginf(value), -1, jnp.take_along_axis(item, index, axis=1))

    arrays = session_vectors, table, exclude
    if not isinstance(table, jax.core.Tracer):
        specs = (P(), P(MODEL), P())
        arrays = tuple(
            device_put_global(array, NamedSharding(mesh, spec)) for array, spec in zip(arrays, specs, strict=True)
        )
    return shard_map_unchecked(merge_shards, mesh, (batch, P(MODEL), batch), (batch, batch))(*arrays)
