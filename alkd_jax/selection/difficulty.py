"""How hard sessions are: their difficulty, its order, and the easiest and hardest of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from alkd_jax import sharding
from alkd_jax.maxmin.game import BoolArray, FloatArray, IntArray, refuse_where
from alkd_jax.models import Encoder, Params
from alkd_jax.ops import lookup

BATCH = 2**14
"""Sessions encoded at a time."""


def difficulty(
    session_vectors: FloatArray,
    item_embeddings: FloatArray,
    items: IntArray,
    mask: BoolArray,
    *,
    chunk_size: int = 2**16,
) -> Float[Array, " N"]:
    """How little the teacher's session vector agrees with the session's own items.

    ``df_s = −(1/|s|) Σ_{v ∈ s} σ(u_s · Y_v)``

    Args:
        session_vectors: ``[N, D]`` the teacher's encoding u of each session.
        item_embeddings: ``[V, D]`` the teacher's output table Y.
        items: ``[N, L]`` rows of that table.
        mask: ``[N, L]`` True on real items; at least one a session.
        chunk_size: sessions taken at a time, which bounds the memory; changes no result.

    Returns:
        Difficulty ``[N]`` in (−1, 0); larger is harder.

    Raises:
        ValueError: shapes disagree, an item lies outside the table, or a session is empty.

    Reference:
        Du et al., AAAI 2025, "Difficulty of instances".
    """
    num_sessions, dim = session_vectors.shape
    num_rows = item_embeddings.shape[0]
    if item_embeddings.shape[1] != dim:
        raise ValueError(f"item_embeddings have width {item_embeddings.shape[1]}; expected {dim}, as session_vectors")
    for name, array in (("items", items), ("mask", mask)):
        if array.ndim != 2 or array.shape[0] != num_sessions or array.shape != items.shape:
            raise ValueError(f"{name} has shape {list(array.shape)}; expected [{num_sessions}, L], as session_vectors")
    refuse_where((items < 0) | (items >= num_rows), "items", items, f"a row of the table, 0 to {num_rows - 1}")
    length = mask.sum(axis=1)
    refuse_where(length < 1, "the length of session", length, "at least 1 real item")
    return _difficulty(*map(jnp.asarray, (session_vectors, item_embeddings, items, mask)), chunk_size=chunk_size)


@functools.partial(jax.jit, static_argnames="chunk_size")
def _difficulty(
    session_vectors: Float[Array, "N D"],
    item_embeddings: Float[Array, "V D"],
    items: Int[Array, "N L"],
    mask: Bool[Array, "N L"],
    *,
    chunk_size: int,
) -> Float[Array, " N"]:
    def of_session(session: tuple[Array, Array, Array]) -> Float[Array, ""]:
        vector, row, is_real = session
        return _disagreement(vector, item_embeddings[row], is_real)

    return jax.lax.map(of_session, (session_vectors, items, mask), batch_size=min(chunk_size, items.shape[0]))


def session_difficulty(
    model: Encoder,
    params: Params,
    items: IntArray,
    mask: BoolArray,
    *,
    batch_size: int = BATCH,
    mesh: jax.sharding.Mesh | None = None,
) -> Float[np.ndarray, " N"]:
    """:func:`difficulty` of sessions that are encoded a batch at a time: what is held of them is one number each.

    Args:
        model: the teacher.
        params: its parameters, without a seed axis.
        items: ``[N, L]``; an array on the host, or one that reads from a file as it is sliced.
        mask: ``[N, L]`` True on real items; at least one a session.
        batch_size: sessions encoded at a time; changes no result but for rounding.
        mesh: devices to share the item tables and every batch; by default the first.

    Returns:
        Difficulty ``[N]`` float32 in (−1, 0), on the host; larger is harder.

    Raises:
        ValueError: there are no sessions, shapes disagree, an item is unknown, or a session is empty.
    """
    num_sessions = len(items)
    if num_sessions == 0 or items.shape != mask.shape or items.ndim != 2:
        shapes = f"{list(items.shape)} and mask {list(mask.shape)}"
        raise ValueError(f"items have shape {shapes}; expected one [N, L] with N ≥ 1 for both")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1")
    layout = sharding.layout_of(params, model.num_items + 1, mesh)
    params = params if layout is None else layout.place(params)
    size = min(batch_size, num_sessions)
    found = np.empty(num_sessions, np.float32)
    with sharding.use_mesh(mesh):
        for first in range(0, num_sessions, size):
            # The last batch starts early enough to be whole.
            start = min(first, num_sessions - size)
            batch = np.asarray(items[start : start + size]), np.asarray(mask[start : start + size])
            refuse_where((batch[0] < 0) | (batch[0] > model.num_items), "items", batch[0], f"0 to {model.num_items}")
            refuse_where(batch[1].sum(1) < 1, "the length of session", batch[1].sum(1), "at least 1 real item")
            found[start : start + size] = _session_difficulty(model, layout, params, *batch)
    return found


@functools.partial(jax.jit, static_argnums=(0, 1))
def _session_difficulty(
    model: Encoder,
    layout: sharding.Layout | None,
    params: Params,
    items: Int[Array, "B L"],
    mask: Bool[Array, "B L"],
) -> Float[Array, " B"]:
    if layout is not None:
        params = layout.unpad_rows(params)
        items, mask = sharding.shard_batch((items, mask), layout.mesh)
    listed = lookup.embedding_lookup(model.apply(params, method="item_embeddings"), items)
    found = jax.vmap(_disagreement)(model.apply(params, items, mask), listed, mask)
    return found if layout is None else sharding.replicate(found, layout.mesh)


def _disagreement(vector: Float[Array, " D"], listed: Float[Array, "L D"], mask: Bool[Array, " L"]) -> Array:
    """``−mean σ(u · Y_v)`` over a session's own items."""
    scores = jnp.einsum("d,ld->l", vector, listed, precision=jax.lax.Precision.HIGHEST)
    return -jnp.mean(jax.nn.sigmoid(scores), where=mask)


def difficulty_rank(difficulty: FloatArray) -> Int[Array, " N"]:
    """Ranks sessions by difficulty: 1 is the hardest, ties go to the lower index.

    Args:
        difficulty: ``[N]``, larger is harder.

    Returns:
        Rank ``[N]`` int32, a permutation of 1..N.

    Raises:
        ValueError: a difficulty is NaN.
    """
    order = by_difficulty(difficulty, hardest_first=True)
    return jnp.zeros(order.shape, jnp.int32).at[order].set(jnp.arange(1, order.shape[0] + 1, dtype=jnp.int32))


def easiest(difficulty: FloatArray, num: int = 500) -> Int[Array, " num"]:
    """Returns the indices ``[num]`` of the sessions of least difficulty, easiest first, ties to the lower index.

    Raises:
        ValueError: ``num`` is not in 1..N, or a difficulty is NaN.
    """
    check_num(num, difficulty)
    return by_difficulty(difficulty, hardest_first=False)[:num]


def hardest(difficulty: FloatArray, num: int = 500) -> Int[Array, " num"]:
    """Returns the indices ``[num]`` of the sessions of largest difficulty, hardest first, ties to the lower index.

    Raises:
        ValueError: ``num`` is not in 1..N, or a difficulty is NaN.
    """
    check_num(num, difficulty)
    return by_difficulty(difficulty, hardest_first=True)[:num]


def by_difficulty(difficulty: FloatArray, *, hardest_first: bool) -> Int[Array, " N"]:
    """Returns all indices ``[N]`` in the order of difficulty."""
    refuse_where(jnp.isnan(difficulty), "difficulty", difficulty, "a number")
    order = jnp.argsort(jnp.asarray(difficulty), descending=hardest_first, stable=True)
    return order.astype(jnp.int32)


def check_num(num: int, sessions: FloatArray | IntArray) -> None:
    """Refuses to select more sessions than there are."""
    if not 1 <= num <= sessions.shape[0]:
        raise ValueError(f"num is {num}; expected 1 to {sessions.shape[0]}, the number of sessions")
