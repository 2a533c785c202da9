"""Full-catalogue scores: the exact rank of the target and the exact top k, with seen items and padding left out."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.types import PAD

TIES = ("average", "optimistic", "pessimistic")
"""How scores equal to the target's are counted."""

_CPU_CHUNK = 1024
_SCORE_BYTES = 2**28


def scores(session_vectors: Float[Array, "B *L D"], item_embeddings: Float[Array, "V D"]) -> Float[Array, "B V"]:
    """``u_b · Y_v`` for every item, in full float32 precision, since rankings are defined by it.

    A session of several vectors scores by their soft maximum, ``log Σ_l exp(u_bl · Y_v)``.

    Args:
        session_vectors: u; one vector a session, or one a position.
        item_embeddings: Y, row 0 the padding.
    """
    return pooled(jnp.dot(session_vectors, item_embeddings.T, precision=jax.lax.Precision.HIGHEST))


def listed_scores(session_vectors: Float[Array, "B *L D"], listed: Float[Array, "B K D"]) -> Float[Array, "B K"]:
    """:func:`scores` of each session's own items, in the device's default precision, for losses.

    Args:
        session_vectors: u; one vector a session, or one a position.
        listed: rows of Y.
    """
    return pooled(jnp.einsum("b...d,bkd->b...k", session_vectors, listed))


def pooled(products: Float[Array, "B *L C"]) -> Float[Array, "B C"]:
    """Scores from the products of each vector of a session: the soft maximum where there are several."""
    return products if products.ndim == 2 else jax.nn.logsumexp(products, axis=1)


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
    _check(ties, None)
    left_out, counts = _left_out(target, exclude)
    theirs = jnp.take_along_axis(all_scores, left_out, axis=1)
    own = theirs[:, :1]
    ahead = _ahead(all_scores, own, ties).sum(1) - (_ahead(theirs, own, ties) * counts).sum(1)
    return _rank(ahead, ties)


def catalogue_rank(
    session_vectors: Float[Array, "B *L D"],
    item_embeddings: Float[Array, "V D"],
    target: Int[Array, " B"],
    *,
    exclude: Int[Array, "B L"],
    ties: str = "average",
    chunk_size: int | None = None,
) -> Int[Array, " B"]:
    """:func:`target_rank` of ``u_b · Y_v``, a chunk of items at a time: no ``[B, V]`` array is ever held.

    The target's score is read from a product of the same shape as everyone's, so it is rounded as theirs are. Chunks
    that stay in a CPU's cache make this several times as fast as going through all scores. Against those it may rank
    two items that are equal up to rounding the other way round, where the product rounds differently at another shape.

    Args:
        session_vectors: u.
        item_embeddings: Y, row 0 the padding.
        target: items in ``1..V-1``.
        exclude: items to leave out, any order; repeats and 0 are harmless.
        ties: as in :func:`target_rank`.
        chunk_size: items scored at a time; default what stays in cache on a CPU, and what fits 256 MiB elsewhere.

    Returns:
        Ranks from 1, int32.

    Raises:
        ValueError: the tie mode is unknown, or chunk_size is below 1.
    """
    _check(ties, chunk_size)
    (rows, dim), batch = item_embeddings.shape, session_vectors.shape[0]
    chunk = min(_chunk_size(batch) if chunk_size is None else chunk_size, rows)
    left_out, counts = _left_out(target, exclude)
    num_own, num_chunks = -(-batch // chunk), -(-rows // chunk)
    own_table = jnp.zeros((num_own * chunk, dim), item_embeddings.dtype).at[:batch].set(item_embeddings[target])

    def count(carry: tuple[Array, Array], step: Array) -> tuple[tuple[Array, Array], None]:
        own, ahead = carry
        first = (step - num_own) * chunk
        # The last chunk starts early enough to be whole; what it repeats is not counted again.
        start = jnp.clip(first, 0, rows - chunk)
        own_rows = jax.lax.dynamic_slice_in_dim(own_table, jnp.minimum(step, num_own - 1) * chunk, chunk)
        piece = jnp.where(step < num_own, own_rows, jax.lax.dynamic_slice_in_dim(item_embeddings, start, chunk))
        found = scores(session_vectors, piece)

        place = jnp.arange(batch)[:, None] - step * chunk
        read = jnp.take_along_axis(found, jnp.clip(place, 0, chunk - 1), axis=1)
        own = jnp.where((place >= 0) & (place < chunk), read, own)

        local = left_out - start
        here = counts & (local >= 0) & (local < chunk) & (left_out >= first)
        theirs = jnp.take_along_axis(found, jnp.clip(local, 0, chunk - 1), axis=1)
        fresh = (start + jnp.arange(chunk) >= first)[None]
        more = (_ahead(found, own, ties) * fresh).sum(1) - (_ahead(theirs, own, ties) * here).sum(1)
        return (own, ahead + jnp.where(step < num_own, 0, more)), None

    nothing = (jnp.zeros((batch, 1), session_vectors.dtype), jnp.zeros(batch, jnp.int32))
    (_, ahead), _ = jax.lax.scan(count, nothing, jnp.arange(num_own + num_chunks))
    return _rank(ahead, ties)


def _check(ties: str, chunk_size: int | None) -> None:
    if ties not in TIES:
        raise ValueError(f"ties is {ties!r}; expected one of {', '.join(TIES)}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; expected at least 1")


def _chunk_size(batch: int) -> int:
    """Items whose scores for a batch stay in a CPU's cache, or fit the memory set aside elsewhere."""
    return _CPU_CHUNK if jax.default_backend() == "cpu" else max(1, _SCORE_BYTES // (4 * batch))


def _left_out(target: Int[Array, " B"], exclude: Int[Array, "B L"]) -> tuple[Int[Array, "B M"], Bool[Array, "B M"]]:
    """The target, the padding and the excluded items, and which of them to take off a count of all: each item once."""
    items = jnp.concatenate([target[:, None], jnp.full_like(exclude[:, :1], PAD), exclude], axis=1)
    earlier = jnp.tril(jnp.ones((items.shape[1],) * 2, bool), -1)
    return items, ~((items[:, :, None] == items[:, None, :]) & earlier[None]).any(-1)


def _ahead(all_scores: Float[Array, "B C"], own: Float[Array, "B 1"], ties: str) -> Int[Array, "B C"]:
    """How far each score puts the target back: by one place, or in half places where ties count half."""
    # Written as "not behind", so that a NaN on either side puts the target back.
    better, as_good = ~(all_scores <= own), ~(all_scores < own)
    if ties == "average":
        return better.astype(jnp.int32) + as_good
    return (better if ties == "optimistic" else as_good).astype(jnp.int32)


def _rank(ahead: Int[Array, " B"], ties: str) -> Int[Array, " B"]:
    """The rank from what :func:`_ahead` adds up to."""
    return 1 + ((ahead + 1) // 2 if ties == "average" else ahead)


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
    _check(TIES[0], chunk_size)
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
