"""The exact top k of a table in parts: every device lists the best of its own, and the lists are merged."""

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

Span: TypeAlias = tuple[Int[Array, ""] | int, Int[Array, ""] | int]
"""Where the rows of a table that are items start, and where they end."""


def top_k_of_parts(
    mesh: Any,
    top_k: Callable[..., tuple[Array, Array]],
    session_vectors: Float[Array, "B *L D"],
    item_embeddings: Float[Array, "V D"],
    k: int,
    exclude: Int[Array, "B L"],
) -> tuple[Float[Array, "B K"], Int[Array, "B K"]]:
    """Merges the top k of every part of the table; what travels is ``[B, k]`` a part.

    Args:
        mesh: whose model axis the table is cut along.
        top_k: of vectors, one table, rows of it not to be listed, those elsewhere harmless, and the first of its rows
            that may be and the first after them; as the scoring room's own.
        session_vectors: u.
        item_embeddings: Y, row 0 the padding.
        k: list length.
        exclude: items never returned, 0 where there are fewer.
    """
    table, num_rows = pad_rows(item_embeddings, mesh.shape[MODEL]), item_embeddings.shape[0]
    batch = P(batch_axis(mesh, exclude.shape[0]))

    def of_part(vectors: Array, part: Array, exclude: Array) -> tuple[Array, Array]:
        first = jax.lax.axis_index(MODEL) * part.shape[0]
        value, row = top_k(vectors, part, exclude - first, (PAD + 1 - first, num_rows - first))
        value, item = (jax.lax.all_gather(array, MODEL, axis=1, tiled=True) for array in (value, row + first))
        # Parts stand in the order of their items, and the first of equal scores win.
        value, place = stable_top_k(value, k)
        return value, jnp.where(jnp.isneginf(value), -1, jnp.take_along_axis(item, place, axis=1))

    arrays = session_vectors, table, exclude
    if not isinstance(table, jax.core.Tracer):
        places = (P(), P(MODEL), P())
        arrays = tuple(
            device_put_global(array, NamedSharding(mesh, at)) for array, at in zip(arrays, places, strict=True)
        )
    return shard_map_unchecked(of_part, mesh, (batch, P(MODEL), batch), (batch, batch))(*arrays)
