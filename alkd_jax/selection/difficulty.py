"""The difficulty of sessions for the teacher, their ranks by it, and the easiest and hardest sessions."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from alkd_jax import sharding
from alkd_jax.checks import check_count, check_finite, check_span, check_where
from alkd_jax.maxmin.game import BoolArray, FloatArray, IntArray
from alkd_jax.models import Encoder, Params, check_params
from alkd_jax.ops import lookup

BATCH = 2**14
"""Sessions in a batch."""


def difficulty(
    session_vectors: FloatArray,
    item_embeddings: FloatArray,
    items: IntArray,
    mask: BoolArray,
    *,
    chunk_size: int = 2**16,
) -> Float[Array, " N"]:
    """The difficulty of sessions: how little the teacher's session vector agrees with the items of the session.

    ``df_s = −(1/|s|) Σ_{v ∈ s} σ(u_s · Y_v)``

    Args:
        session_vectors: ``[N, D]`` the teacher's encoding u of each session.
        item_embeddings: ``[V, D]`` the teacher's output table Y.
        items: ``[N, L]`` rows of that table.
        mask: ``[N, L]`` True on real items; at least one a session.
        chunk_size: sessions in a batch, which bounds the memory; does not change the result.

    Returns:
        Difficulty ``[N]`` in (−1, 0); larger is harder.

    Raises:
        ValueError: shapes disagree, an item lies outside the table, a session is empty, or a number is not finite.

    Reference:
        Du et al., AAAI 2025, "Difficulty of instances".
    """
    num_sessions, dim = session_vectors.shape
    num_rows = item_embeddings.shape[0]
    if item_embeddings.shape[1] != dim:
        raise ValueError(
            f"width of item_embeddings is {item_embeddings.shape[1]}; expected {dim}, as of session_vectors"
        )
    for name, array in (("items", items), ("mask", mask)):
        if array.ndim != 2 or array.shape[0] != num_sessions or array.shape != items.shape:
            raise ValueError(
                f"shape of {name} is {list(array.shape)}; expected [{num_sessions}, L], as session_vectors"
            )
    check_count(1, chunk_size=chunk_size)
    for name, array in (("session_vectors", session_vectors), ("item_embeddings", item_embeddings)):
        check_finite(name, array)
    check_where((items >= 0) & (items < num_rows), "items", items, f"a row of the table, 0 to {num_rows - 1}")
    length = mask.sum(axis=1)
    check_where(length >= 1, "length", length, "at least 1 real item in each session")
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
    def session_difficulty_of(session: tuple[Array, Array, Array]) -> Float[Array, ""]:
        vector, row, is_real = session
        return _negative_agreement(vector, item_embeddings[row], is_real)

    return jax.lax.map(
        session_difficulty_of, (session_vectors, items, mask), batch_size=min(chunk_size, items.shape[0])
    )


def session_difficulty(
    model: Encoder,
    params: Params,
    items: IntArray,
    mask: BoolArray,
    *,
    batch_size: int = BATCH,
    mesh: jax.sharding.Mesh | None = None,
    progress: Callable[[int], object] | None = None,
) -> Float[np.ndarray, " N"]:
    """:func:`difficulty` of sessions that are encoded a batch at a time; only one number a session is kept in memory.

    Args:
        model: the teacher.
        params: its parameters, without a seed axis.
        items: ``[N, L]``; an array on the host, or one that is read from a file when it is sliced.
        mask: ``[N, L]`` True on real items; at least one a session.
        batch_size: sessions in a batch; changes the result by rounding only.
        mesh: devices that share the item tables and every batch; by default the first device.
        progress: called after each batch with the number of sessions that are done.

    Returns:
        Difficulty ``[N]`` float32 in (−1, 0), on the host; larger is harder.

    Raises:
        ValueError: there are no sessions, shapes disagree, an item is unknown, a session is empty, a parameter is not
            finite or of another model, or a score overflows.
    """
    num_sessions = len(items)
    if num_sessions == 0 or items.shape != mask.shape or items.ndim != 2:
        shapes = f"items {list(items.shape)}, mask {list(mask.shape)}"
        raise ValueError(f"shapes are {shapes}; expected one [N, L] with N ≥ 1 for both")
    check_count(1, batch_size=batch_size)
    check_params(model, params)
    layout = sharding.layout_of(params, model.num_items + 1, mesh)
    params = params if layout is None else layout.device_put(params)
    size = min(batch_size, num_sessions)
    difficulties = np.empty(num_sessions, np.float32)
    with sharding.use_mesh(mesh):
        for first in range(0, num_sessions, size):
            # The last batch overlaps the one before it, so that all batches have the same size.
            start = min(first, num_sessions - size)
            batch = np.asarray(items[start : start + size]), np.asarray(mask[start : start + size])
            check_span("items", batch[0], 0, model.num_items)
            check_where(batch[1].any(1), "length", batch[1].sum(1), "at least 1 real item in each session")
            difficulties[start : start + size] = _session_difficulty(model, layout, params, *batch)
            if progress is not None:
                progress(start + size)
    check_finite("difficulty", difficulties)
    return difficulties


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
    item_vectors = lookup.embedding_lookup(model.apply(params, method="item_embeddings"), items)
    difficulties = jax.vmap(_negative_agreement)(model.apply(params, items, mask), item_vectors, mask)
    return difficulties if layout is None else sharding.replicate(difficulties, layout.mesh)


def _negative_agreement(
    vector: Float[Array, " D"], item_vectors: Float[Array, "L D"], mask: Bool[Array, " L"]
) -> Array:
    """``−mean σ(u · Y_v)`` over the items of one session."""
    scores = jnp.einsum("d,ld->l", vector, item_vectors, precision=jax.lax.Precision.HIGHEST)
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
    """Returns the indices ``[num]`` of the sessions of the least difficulty, easiest first, ties to the lower index.

    Raises:
        ValueError: ``num`` is not in 1..N, or a difficulty is NaN.
    """
    check_num(num, difficulty)
    return by_difficulty(difficulty, hardest_first=False)[:num]


def hardest(difficulty: FloatArray, num: int = 500) -> Int[Array, " num"]:
    """Returns the indices ``[num]`` of the sessions of the largest difficulty, hardest first, ties to the lower index.

    Raises:
        ValueError: ``num`` is not in 1..N, or a difficulty is NaN.
    """
    check_num(num, difficulty)
    return by_difficulty(difficulty, hardest_first=True)[:num]


def by_difficulty(difficulty: FloatArray, *, hardest_first: bool) -> Int[Array, " N"]:
    """Returns the indices ``[N]`` of all sessions in the order of their difficulty."""
    check_where(~jnp.isnan(difficulty), "difficulty", difficulty, "a number")
    order = jnp.argsort(jnp.asarray(difficulty), descending=hardest_first, stable=True)
    return order.astype(jnp.int32)


def check_num(num: int, sessions: FloatArray | IntArray) -> None:
    """Refuses to select no session, or more sessions than there are.

    Raises:
        ValueError: ``num`` is not in 1..N.
    """
    check_count(1, num=num)
    if num > sessions.shape[0]:
        raise ValueError(f"num is {num}; expected 1 to {sessions.shape[0]}, the number of sessions")
