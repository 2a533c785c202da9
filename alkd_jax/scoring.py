"""Full-catalogue scores: the exact rank of the target and the exact top k, with seen items and padding left out."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alkd_jax.types import PAD

TIES = ("average", "optimistic", "pessimistic")
"""How scores equal to the target's are counted."""


def scores(session_vectors: Float[Array, "B D"], item_embeddings: Float[Array, "V D"]) -> Float[Array, "B V"]:
    """``u_b · Y_v`` for every item, in full float32 precision, since rankings are defined by it.

    Args:
        session_vectors: u.
        item_embeddings: Y, row 0 the padding.
    """
    return jnp.dot(session_vectors, item_embeddings.T, precision=jax.lax.Precision.HIGHEST)


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
    if ties not in TIES:
        raise ValueError(f"ties is {ties!r}; expected one of {', '.join(TIES)}")
    left_out = jnp.concatenate([jnp.full_like(exclude[:, :1], PAD), exclude], axis=1)
    earlier = jnp.tril(jnp.ones((left_out.shape[1],) * 2, bool), -1)
    repeated = ((left_out[:, :, None] == left_out[:, None, :]) & earlier[None]).any(-1)
    counts = ~repeated & (left_out != target[:, None])

    own = jnp.take_along_axis(all_scores, target[:, None], axis=1)
    theirs = jnp.take_along_axis(all_scores, left_out, axis=1)
    better = (~(all_scores <= own)).sum(1) - (counts & ~(theirs <= own)).sum(1)
    if ties == "optimistic":
        return (1 + better - jnp.isnan(own[:, 0])).astype(jnp.int32)
    tied = (all_scores == own).sum(1) - 1 - (counts & (theirs == own)).sum(1)
    behind = tied if ties == "pessimistic" else (tied + 1) // 2
    return (1 + better + jnp.where(jnp.isnan(own[:, 0]), -1, behind)).astype(jnp.int32)


def top_k(
    session_vectors: Float[Array, "B D"],
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
