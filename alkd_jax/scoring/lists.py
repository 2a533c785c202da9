"""The exact top k of the whole catalogue, with seen items and padding left out."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alkd_jax.scoring.products import scores
from alkd_jax.types import PAD


def top_k(
    session_vectors: Float[Array, "B *L D"],
    item_embeddings: Float[Array, "V D"],
    k: int,
    *,
    exclude: Int[Array, "B L"],
    chunk_size: int | None = None,
) -> tuple[Float[Array, "B K"], Int[Array, "B K"]]:
    """The k best items of the whole catalogue, exactly.

    Args:
        session_vectors: u.
        item_embeddings: Y, row 0 the padding, which is never returned.
        k: list length, at least 1.
        exclude: items never returned, 0 where there are fewer.
        chunk_size: how many items are scored at a time, to bound memory at ``B · chunk_size``; default all at once.

    Returns:
        Scores, best first, ties to the lower id; and item ids. Where fewer than k items remain, −inf and −1.

    Raises:
        ValueError: k or chunk_size is below 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}; expected at least 1")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; expected at least 1")
    rows, dim = item_embeddings.shape
    batch = session_vectors.shape[0]
    chunk = min(chunk_size or rows, rows)
    num_chunks = -(-rows // chunk)
    padded = jnp.pad(item_embeddings, ((0, num_chunks * chunk - rows), (0, 0))).reshape(num_chunks, chunk, dim)
    batch_index = jnp.arange(batch)[:, None]

    def merge(best: tuple[Array, Array], piece: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        table, offset = piece
        item = offset + jnp.arange(chunk)
        found = scores(session_vectors, table)
        # +0 before -0 and NaN before everything is how top_k orders; neither is wanted here.
        found = jnp.where(jnp.isnan(found), -jnp.inf, jnp.where(found == 0, 0.0, found))
        found = jnp.where((item != PAD) & (item < rows), found, -jnp.inf)
        local = exclude - offset
        # A negative index would wrap around: send whatever is not in this chunk past its end.
        local = jnp.where((local >= 0) & (local < chunk), local, chunk)
        found = found.at[batch_index, local].set(-jnp.inf, mode="drop")
        value, index = jax.lax.top_k(found, min(k, chunk))
        # Earlier chunks stand first, so a stable top_k keeps ties on the lower id.
        value = jnp.concatenate([best[0], value], axis=1)
        index = jnp.concatenate([best[1], index + offset], axis=1)
        value, order = jax.lax.top_k(value, k)
        return (value, jnp.take_along_axis(index, order, axis=1)), None

    empty = (jnp.full((batch, k), -jnp.inf), jnp.full((batch, k), -1, jnp.int32))
    offsets = jnp.arange(num_chunks, dtype=jnp.int32) * chunk
    (value, index), _ = jax.lax.scan(merge, empty, (padded, offsets))
    return value, jnp.where(jnp.isneginf(value), -1, index)
