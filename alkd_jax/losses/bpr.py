"""Bayesian personalised ranking: with the batch's own targets as negatives, or with sampled ones."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.losses.reduction import weighted_mean

_TILE = 256
"""Rows of the in-batch score matrix that a CPU works on at a time: what stays in its cache."""


def in_batch_bpr(
    scores: Float[Array, "B B"],
    target: Int[Array, " B"],
    *,
    weight: Float[Array, " B"] | None = None,
    negatives: Bool[Array, "B B"] | None = None,
    released: bool = False,
) -> Float[Array, ""]:
    """Bayesian personalised ranking with the other rows' targets as negatives.

    ``L = Σ_b w_b Σ_{c ∈ N(b)} softplus(s_bc − s_bb) / Σ_b w_b |N(b)|``, where N(b) are the rows c whose target differs
    from row b's and whose weight is positive.

    Args:
        scores: ``scores[b, c] = u_b · Y_{target_c}``.
        target: the rows' items.
        weight: non-negative weight of each row; 0 takes a row out, as positive and as negative. Default 1.
        negatives: where given, only c with ``negatives[b, c]`` may serve as negatives of b.
        released: the authors' form instead: every row, itself included, is a negative, mean over the whole matrix of
            ``−log(1e-10 + σ(s_bb − s_bc))``; ``negatives`` is ignored.

    Returns:
        The weighted mean over pairs; 0 where there is no pair.

    Reference:
        Rendle et al., BPR, UAI 2009; Du et al., ALKDRec, AAAI 2025, eq. for the recommendation loss.
    """
    rows = scores.shape[0]
    weight = jnp.ones(rows, scores.dtype) if weight is None else weight
    allowed = jnp.broadcast_to((weight > 0)[None, :], scores.shape)
    if not released:
        allowed &= target[:, None] != target[None, :]
        allowed = allowed if negatives is None else allowed & negatives
    return _mean(*_summed(scores - jnp.diagonal(scores)[:, None], allowed, weight, released))


def _summed(
    excess: Float[Array, "R B"], allowed: Bool[Array, "R B"], weight: Float[Array, " R"], released: bool
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Weighted losses of rows against columns that score by so much more, added up, and their weights."""
    losses = -jnp.log(1e-10 + jax.nn.sigmoid(-excess)) if released else jax.nn.softplus(excess)
    pair_weight = weight[:, None] * allowed
    return (pair_weight * losses).sum(), pair_weight.sum()


def _mean(summed: Float[Array, ""], total: Float[Array, ""]) -> Float[Array, ""]:
    return jnp.where(total > 0, summed / jnp.where(total > 0, total, 1.0), 0.0)


def sampled_bpr(
    positive: Float[Array, " B"],
    negative: Float[Array, "B C"],
    *,
    weight: Float[Array, " B"] | None = None,
    where: Float[Array, "B C"] | None = None,
) -> Float[Array, ""]:
    """Bayesian personalised ranking against sampled negatives: ``L = mean_b mean_c softplus(s⁻_bc − s⁺_b)``.

    Args:
        positive: score of each row's target.
        negative: scores of its negatives.
        weight: of the rows; 0 takes one out.
        where: weight of each negative within its row, 0 for one that is not to count.
    """
    losses = jax.nn.softplus(negative - positive[:, None])
    share = jax.vmap(weighted_mean)(losses, where) if where is not None else losses.mean(-1)
    return weighted_mean(share, weight)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def fused_in_batch_bpr(
    vectors: Float[Array, "B D"],
    target_vectors: Float[Array, "B D"],
    target: Int[Array, " B"],
    session: Int[Array, " B"],
    weight: Float[Array, " B"],
    released: bool = False,
) -> Float[Array, ""]:
    """:func:`in_batch_bpr` from vectors, with a gradient written out by hand; same value, same gradient.

    The gradient needs no value, keeps no ``[B, B]`` array for later, and on a CPU goes through the score matrix in
    tiles that stay in cache; an unused value costs nothing.

    Args:
        vectors: u of each row's session.
        target_vectors: Y of each row's target.
        target: the rows' items; equal ones are no negatives of each other.
        session: the rows' sessions; rows of one session are no negatives of each other.
        weight: as in :func:`in_batch_bpr`.
        released: the authors' form, in which every row is a negative.

    Returns:
        As :func:`in_batch_bpr`.
    """
    columns = target, session, weight

    def of_tile(piece: tuple[Array, ...]) -> tuple[Array, Array]:
        vector, score, *own = piece
        excess = vector @ target_vectors.T - score[:, None]
        return _summed(excess, _allowed(own, columns, released), own[2], released)

    own = (vectors * target_vectors).sum(1)
    tile = _tile_size(vectors.shape[0])
    sums = jax.lax.map(of_tile, tuple(_tiles(array, tile) for array in (vectors, own, *columns)))
    return _mean(*(part.sum() for part in sums))


def _allowed(rows: Sequence[Array], columns: Sequence[Array], released: bool) -> Bool[Array, "R B"]:
    """Which columns are negatives of which rows, by their targets, sessions and weights."""
    (target, session, weight), (others, sessions, weights) = rows, columns
    allowed = jnp.broadcast_to(weights[None, :] > 0, weight.shape + weights.shape)
    if not released:
        allowed &= (target[:, None] != others[None, :]) & (session[:, None] != sessions[None, :])
    return allowed


def _forward(
    vectors: Array, target_vectors: Array, target: Array, session: Array, weight: Array, released: bool
) -> tuple[Array, tuple[Array, Array]]:
    """The loss, and its gradient in ``vectors`` and ``target_vectors``."""
    value = fused_in_batch_bpr(vectors, target_vectors, target, session, weight, released)
    rows, dim = vectors.shape
    tile = _tile_size(rows)
    own, columns = (vectors * target_vectors).sum(1), (target, session, weight)
    # With the transposed tables at hand every product below runs along rows; left alone, XLA would undo it.
    transposed = jax.lax.optimization_barrier(target_vectors.T)

    def gradient_of_tile(carry: Array, piece: tuple[Array, ...]) -> tuple[Array, tuple[Array, Array, Array]]:
        vector, score, *rows_own = piece
        excess = vector @ transposed - score[:, None]
        slope = jax.nn.sigmoid(excess)
        if released:
            chance = jax.nn.sigmoid(-excess)
            slope = slope * chance / (1e-10 + chance)
        allowed, row_weight = _allowed(rows_own, columns, released), rows_own[2]
        slope = jnp.where(allowed, slope, 0.0) * row_weight[:, None]
        sideways = jax.lax.optimization_barrier(vector.T)
        return carry + sideways @ slope, (slope @ target_vectors, slope.sum(1), row_weight * allowed.sum(1))

    pieces = tuple(_tiles(array, tile) for array in (vectors, own, *columns))
    side, (pulled, slopes, pairs) = jax.lax.scan(gradient_of_tile, jnp.zeros_like(transposed), pieces)
    slopes = slopes.reshape(-1)[:rows, None]
    total = pairs.sum()
    scale = jnp.where(total > 0, 1.0 / jnp.where(total > 0, total, 1.0), 0.0)
    to_vectors = scale * (pulled.reshape(-1, dim)[:rows] - slopes * target_vectors)
    # Turned round before it is read, not while.
    to_targets = scale * (jax.lax.optimization_barrier(jax.lax.optimization_barrier(side).T) - slopes * vectors)
    return value, (to_vectors, to_targets)


def _tile_size(rows: int) -> int:
    return min(rows, _TILE) if jax.default_backend() == "cpu" else rows


def _tiles(array: Array, tile: int) -> Array:
    """The rows cut into tiles, the last one filled up with zeros."""
    num_tiles = -(-array.shape[0] // tile)
    padding = [(0, num_tiles * tile - array.shape[0])] + [(0, 0)] * (array.ndim - 1)
    return jnp.pad(array, padding).reshape(num_tiles, tile, *array.shape[1:])


def _backward(released: bool, gradients: tuple[Array, Array], cotangent: Array) -> tuple[Any, ...]:
    to_vectors, to_targets = gradients
    return cotangent * to_vectors, cotangent * to_targets, None, None, None


fused_in_batch_bpr.defvjp(_forward, _backward)
