"""The exact top k of the whole catalogue, a chunk of items at a time, without seen items and padding."""

from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from alkd_jax.checks import check_count, check_one_of
from alkd_jax.ops.chunked_top_k import chunked_top_k
from alkd_jax.ops.precision import SCORE_PRECISIONS
from alkd_jax.ops.sharded_top_k import sharded_top_k
from alkd_jax.sharding import current_mesh
from alkd_jax.types import PAD


def top_k(
    session_vectors: Float[Array, "B *L D"],
    item_embeddings: Float[Array, "V D"],
    k: int,
    *,
    exclude: Int[Array, "B L"],
    chunk_size: int | None = None,
    mesh: Mesh | None = None,
    precision: str = "highest",
) -> tuple[Float[Array, "B K"], Int[Array, "B K"]]:
    """The exact k best items of the whole catalogue, in bounded memory.

    The search goes through the catalogue chunk by chunk and merges each chunk with the k best items so far. A chunk is
    divided into bins of adjacent items, and only the k bins with the highest maxima are sorted: for an item of any
    other bin there are k better ones. A table may be stored in bfloat16; products are accumulated in float32.

    Args:
        session_vectors: u; one or several vectors per session.
        item_embeddings: Y; row 0 is the padding, which is never returned.
        k: list length, at least 1.
        exclude: items that are never returned; duplicates, 0 and numbers of no item, such as the −1 of a short list,
            have no effect.
        chunk_size: the largest number of items scored at a time; by default all items of a small catalogue, otherwise
            so many that their scores fit the cache on a CPU, and take 1 GiB on another device.
        mesh: the mesh along whose model axis the table is sharded; by default the current one, if any.
        precision: of the scores. "highest" is float32; "TF32_TF32_F32_X3", "BF16_BF16_F32_X6" and "BF16_BF16_F32_X3"
            use a GPU's tensor cores, the last also fewer passes of a TPU, and the list is the exact one of scores with
            the errors that :mod:`alkd_jax.ops.precision` states. On a CPU all are float32.

    Returns:
        ``(scores, ids)``, best first, ties to the lower id; −inf and −1 where fewer than k items remain. A NaN score
        counts as −inf.

    Raises:
        ValueError: k or chunk_size is no whole number of at least 1, or ``precision`` is unknown.

    Example:
        >>> table = jnp.eye(4)
        >>> vectors = jnp.array([[0.0, 3.0, 2.0, 1.0]])
        >>> scores, ids = alkd.top_k(vectors, table, 2, exclude=jnp.array([[1]]))
        >>> ids.tolist()
        [[2, 3]]
    """
    check_count(1, k=k)
    check_one_of("precision", precision, SCORE_PRECISIONS)
    if chunk_size is not None:
        check_count(1, chunk_size=chunk_size)
    mesh = current_mesh() if mesh is None else mesh
    # The search takes as long as k is large, so it finds no more than there are.
    num_found = max(1, min(k, item_embeddings.shape[0] - 1))
    if mesh is not None:
        arguments = session_vectors, item_embeddings, num_found, exclude, chunk_size, precision
        value, ids = sharded_top_k(mesh, *arguments)
    else:
        items = PAD + 1, item_embeddings.shape[0]
        options: dict[str, Any] = {"k": num_found, "chunk_size": chunk_size, "precision": precision}
        value, ids = chunked_top_k(session_vectors, item_embeddings, exclude, items, **options)
    if num_found == k:
        return value, ids
    fill = (0, 0), (0, k - num_found)
    return jnp.pad(value, fill, constant_values=-jnp.inf), jnp.pad(ids, fill, constant_values=-1)
