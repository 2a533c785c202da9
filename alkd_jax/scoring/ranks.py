"""The exact rank of the target among all items of the catalogue, without seen items and padding."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.checks import check_count, check_one_of, check_span
from alkd_jax.ops.packed_rows import ItemTable
from alkd_jax.ops.precision import SCORE_PRECISIONS
from alkd_jax.ops.rank_counts import catalogue_count
from alkd_jax.types import PAD, IntArray

TIES = ("average", "optimistic", "pessimistic")
"""Rules for items whose score equals the target's."""

_MAX_COMPARED_IN_PAIRS = 128
"""Excluded items up to which repetitions are found by comparing all pairs, whose memory grows with the square."""


def target_rank(
    all_scores: Float[Array, "B V"],
    target: Int[Array, " B"],
    *,
    exclude: Int[Array, "B L"],
    ties: str = "average",
) -> Int[Array, " B"]:
    """The position of the target among the items that are not excluded, by counting instead of sorting.

    ``rank = 1 + #{v : s_v > s_target} + ties``. The target itself is never excluded. A NaN counts as better than the
    target, so that a diverged model has bad ranks.

    Args:
        all_scores: scores of all items; column 0, the padding, is ignored.
        target: items in ``1..V-1``.
        exclude: items that are not ranked, in any order; duplicates, 0 and numbers of no item, such as the −1 of a
            short list, have no effect.
        ties: "average" counts half of the equal scores (a half rounded up, so that recall at k equals that of the mean
            rank), "optimistic" none, "pessimistic" all.

    Returns:
        Ranks from 1, int32.

    Raises:
        ValueError: ``ties`` is unknown, or a target is no item.
    """
    _check_options(ties, None)
    check_span("target", target, 1, all_scores.shape[1] - 1)
    excluded, is_counted = _excluded_items(target, exclude, all_scores.shape[1])
    excluded_scores = jnp.take_along_axis(all_scores, excluded, axis=1)
    target_score = excluded_scores[:, :1]
    num_ahead = _contribution(all_scores, target_score, ties).sum(1) - (
        _contribution(excluded_scores, target_score, ties) * is_counted
    ).sum(1)
    return _rank_of(num_ahead, ties)


def full_catalogue_rank(
    session_vectors: Float[Array, "B *L D"],
    item_embeddings: ItemTable,
    target: Int[Array, " B"],
    *,
    exclude: Int[Array, "B L"],
    ties: str = "average",
    chunk_size: int | None = None,
    precision: str = "highest",
) -> Int[Array, " B"]:
    """:func:`target_rank` of ``u_b · Y_v``, a chunk of items at a time, without a ``[B, V]`` array in memory.

    The target's score comes from a product of the same shape as the other scores, so that both are rounded alike.
    Chunks that fit a CPU's cache make this several times as fast as a ``[B, V]`` array. Products of another shape may
    round differently, so ranks among items whose scores are equal up to rounding can differ from :func:`target_rank`.
    On a mesh, every device counts in its part of the table, and devices exchange only the counts.

    Args:
        session_vectors: u.
        item_embeddings: Y, with the padding in row 0; it may be packed.
        target: items in ``1..V-1``.
        exclude: items that are not ranked, as in :func:`target_rank`.
        ties: as in :func:`target_rank`.
        chunk_size: items scored at a time; by default so many that their scores fit the cache on a CPU, and 256 MiB
            elsewhere.
        precision: of the scores, as of :func:`alkd_jax.scoring.top_k`; published ranks are those of "highest".

    Returns:
        Ranks from 1, int32.

    Raises:
        ValueError: ``ties`` or ``precision`` is unknown, chunk_size is no whole number of at least 1, or a target is no
            item.
    """
    _check_options(ties, chunk_size, precision)
    check_span("target", target, 1, item_embeddings.shape[0] - 1)
    options: dict[str, Any] = {"ties": ties, "chunk_size": chunk_size, "precision": precision}
    return _full_catalogue_rank(session_vectors, item_embeddings, target, exclude, **options)


@functools.partial(jax.jit, static_argnames=("ties", "chunk_size", "precision"))
def _full_catalogue_rank(
    session_vectors: Array,
    item_embeddings: ItemTable,
    target: Array,
    exclude: Array,
    *,
    ties: str,
    chunk_size: int | None,
    precision: str,
) -> Int[Array, " B"]:
    contribution = functools.partial(_contribution, ties=ties)
    sessions = target, *_excluded_items(target, exclude, item_embeddings.shape[0])
    arguments = session_vectors, item_embeddings, *sessions, chunk_size, precision
    return _rank_of(catalogue_count(contribution, *arguments), ties)


@functools.partial(jax.jit, static_argnames=("chunk_size", "precision"))
def full_catalogue_counts(
    session_vectors: Float[Array, "B *L D"],
    item_embeddings: Float[Array, "V D"],
    target: Int[Array, " B"],
    *,
    exclude: Int[Array, "B L"],
    chunk_size: int | None = None,
    precision: str = "highest",
) -> tuple[Int[Array, " B"], Int[Array, " B"]]:
    """The numbers of ranked items that are better than the target, and that share its score.

    They come from one pass over the scores of :func:`full_catalogue_rank`, and give its rank under every rule for ties.

    Args:
        session_vectors: u.
        item_embeddings: Y, with the padding in row 0.
        target: items in ``1..V-1``.
        exclude: items that are not ranked, as in :func:`target_rank`.
        chunk_size: items scored at a time, as in :func:`full_catalogue_rank`.
        precision: as in :func:`full_catalogue_rank`.

    Returns:
        Number of better items and of others with an equal score, int32; a NaN counts as better.

    Raises:
        ValueError: ``precision`` is unknown, chunk_size is no whole number of at least 1, or a target is no item.
    """
    _check_options("average", chunk_size, precision)
    check_span("target", target, 1, item_embeddings.shape[0] - 1)
    sessions = target, *_excluded_items(target, exclude, item_embeddings.shape[0])
    contribution = _better_and_at_least_as_good
    better, at_least = catalogue_count(contribution, session_vectors, item_embeddings, *sessions, chunk_size, precision)
    return better, at_least - better


def rank_of_counts(num_better: IntArray, num_equal: IntArray, *, ties: str = "average") -> IntArray:
    """``rank = 1 + better + {equal / 2, 0, equal}`` for the rule of ties; a half is rounded up.

    Args:
        num_better: number of ranked items that are better than the target.
        num_equal: number of other ranked items that share its score.
        ties: as in :func:`target_rank`.

    Raises:
        ValueError: ``ties`` is unknown.
    """
    _check_options(ties, None)
    if ties == "average":
        return _rank_of(2 * num_better + num_equal, ties)
    return _rank_of(num_better if ties == "optimistic" else num_better + num_equal, ties)


def _check_options(ties: str, chunk_size: int | None, precision: str = "highest") -> None:
    check_one_of("ties", ties, TIES)
    check_one_of("precision", precision, SCORE_PRECISIONS)
    if chunk_size is not None:
        check_count(1, chunk_size=chunk_size)


def _excluded_items(
    target: Int[Array, " B"], exclude: Int[Array, "B L"], num_rows: int
) -> tuple[Int[Array, "B M"], Bool[Array, "B M"]]:
    """The target, the padding and the excluded items, and a mask that counts each of them once."""
    exclude = jnp.where((exclude > PAD) & (exclude < num_rows), exclude, PAD)
    if exclude.shape[1] > _MAX_COMPARED_IN_PAIRS:
        exclude = jnp.sort(exclude, axis=1)
    items = jnp.concatenate([target[:, None], jnp.full_like(exclude[:, :1], PAD), exclude], axis=1)
    if exclude.shape[1] > _MAX_COMPARED_IN_PAIRS:
        is_repeated = jnp.pad(exclude[:, 1:] == exclude[:, :-1], ((0, 0), (1, 0)))
        is_other = ~is_repeated & (exclude != target[:, None]) & (exclude != PAD)
        return items, jnp.pad(is_other, ((0, 0), (2, 0)), constant_values=True)
    earlier = jnp.tril(jnp.ones((items.shape[1],) * 2, bool), -1)
    return items, ~((items[:, :, None] == items[:, None, :]) & earlier[None]).any(-1)


def _better_and_at_least_as_good(
    all_scores: Float[Array, "B C"], target_score: Float[Array, "B 1"]
) -> tuple[Int[Array, "B C"], Int[Array, "B C"]]:
    return _contribution(all_scores, target_score, "optimistic"), _contribution(all_scores, target_score, "pessimistic")


def _contribution(all_scores: Float[Array, "B C"], target_score: Float[Array, "B 1"], ties: str) -> Int[Array, "B C"]:
    """The contribution of each score to the target's rank: 0 or 1, or with "average" 0, 1 or 2 halves."""
    # Both comparisons are negated, so that a NaN on either side counts as better than the target.
    is_better, is_at_least_as_good = ~(all_scores <= target_score), ~(all_scores < target_score)
    if ties == "average":
        return is_better.astype(jnp.int32) + is_at_least_as_good
    return (is_better if ties == "optimistic" else is_at_least_as_good).astype(jnp.int32)


def _rank_of(num_ahead: Any, ties: str) -> Any:
    """The rank from the sum of the contributions."""
    return 1 + ((num_ahead + 1) // 2 if ties == "average" else num_ahead)
