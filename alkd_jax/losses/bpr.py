"""Bayesian personalized ranking (BPR), with the batch's other targets or with sampled items as negatives."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.losses.reduction import weighted_mean

_TILE = 256
"""Rows of the in-batch score matrix in a tile on a CPU, small enough to stay in its cache."""


def in_batch_bpr(
    scores: Float[Array, "B B"],
    target: Int[Array, " B"],
    *,
    weight: Float[Array, " B"] | None = None,
    negatives: Bool[Array, "B B"] | None = None,
    released: bool = False,
) -> Float[Array, ""]:
    """Bayesian personalized ranking with the other rows' targets as negatives.

    ``L = Σ_b w_b Σ_{c ∈ N(b)} softplus(s_bc − s_bb) / Σ_b w_b |N(b)|``, where N(b) are the rows c whose target differs
    from row b's and whose weight is positive.

    Args:
        scores: ``scores[b, c] = u_b · Y_{target_c}``.
        target: the rows' items.
        weight: non-negative weight of each row; 0 excludes a row, as positive and as negative. Default 1.
        negatives: if given, c is a negative of b only where ``negatives[b, c]`` is True.
        released: the form of the authors' released code instead: every row, itself included, is a negative, and the
            loss is the mean of ``−log(1e-10 + σ(s_bb − s_bc))`` over the whole matrix; ``negatives`` is ignored.

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
    return _mean(*_pair_sums(scores - jnp.diagonal(scores)[:, None], allowed, weight, released))


def _pair_sums(
    margin: Float[Array, "R B"], allowed: Bool[Array, "R B"], weight: Float[Array, " R"], released: bool
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns the weighted sum of the losses of all pairs with margins ``s_bc − s_bb``, and the sum of the weights."""
    losses = -jnp.log(1e-10 + jax.nn.sigmoid(-margin)) if released else jax.nn.softplus(margin)
    pair_weight = weight[:, None] * allowed
    return (pair_weight * losses).sum(), pair_weight.sum()


def _mean(loss_sum: Float[Array, ""], total: Float[Array, ""]) -> Float[Array, ""]:
    return jnp.where(total > 0, loss_sum / jnp.where(total > 0, total, 1.0), 0.0)


def sampled_bpr(
    positive: Float[Array, " B"],
    negative: Float[Array, "B C"],
    *,
    weight: Float[Array, " B"] | None = None,
    where: Float[Array, "B C"] | None = None,
) -> Float[Array, ""]:
    """Bayesian personalized ranking against sampled negatives: ``L = mean_b mean_c softplus(s⁻_bc − s⁺_b)``.

    Args:
        positive: score s⁺ of each row's target.
        negative: scores s⁻ of its sampled negatives.
        weight: non-negative weight of each row; 0 excludes a row.
        where: weight of each negative within its row; 0 excludes a negative.
    """
    losses = jax.nn.softplus(negative - positive[:, None])
    row_losses = jax.vmap(weighted_mean)(losses, where) if where is not None else losses.mean(-1)
    return weighted_mean(row_losses, weight)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def fused_in_batch_bpr(
    vectors: Float[Array, "B D"],
    target_vectors: Float[Array, "B D"],
    target: Int[Array, " B"],
    session: Int[Array, " B"],
    weight: Float[Array, " B"],
    released: bool = False,
) -> Float[Array, ""]:
    """Computes :func:`in_batch_bpr` from vectors, with a hand-written gradient; value and gradient are the same.

    The gradient is computed in the forward pass without the value and stores no ``[B, B]`` array for the backward pass.
    On a CPU it is computed in tiles of the score matrix that stay in cache. Where only the gradient is used, XLA leaves
    out the value.

    Args:
        vectors: u of each row's session.
        target_vectors: Y of each row's target.
        target: the rows' items; rows of the same item are not negatives of each other.
        session: the rows' sessions; rows of the same session are not negatives of each other.
        weight: as in :func:`in_batch_bpr`.
        released: the form of the authors' released code, in which every row is a negative.

    Returns:
        The loss of :func:`in_batch_bpr`.
    """
    columns = target, session, weight

    def tile_sums(tile: tuple[Array, ...]) -> tuple[Array, Array]:
        vector, score, *rows = tile
        margin = vector @ target_vectors.T - score[:, None]
        return _pair_sums(margin, _is_negative(rows, columns, released), rows[2], released)

    positive = (vectors * target_vectors).sum(1)
    size = _tile_size(vectors.shape[0])
    sums = jax.lax.map(tile_sums, tuple(_tiles(array, size) for array in (vectors, positive, *columns)))
    return _mean(*(part.sum() for part in sums))


def _is_negative(rows: Sequence[Array], columns: Sequence[Array], released: bool) -> Bool[Array, "R B"]:
    """Returns which columns are negatives of which rows, given the target, session and weight of both."""
    (target, session, weight), (targets, sessions, weights) = rows, columns
    negative = jnp.broadcast_to(weights[None, :] > 0, weight.shape + weights.shape)
    if not released:
        negative &= (target[:, None] != targets[None, :]) & (session[:, None] != sessions[None, :])
    return negative


def _forward(
    vectors: Array, target_vectors: Array, target: Array, session: Array, weight: Array, released: bool
) -> tuple[Array, tuple[Array, Array]]:
    """Computes the loss and its gradients with respect to ``vectors`` and ``target_vectors``."""
    value = fused_in_batch_bpr(vectors, target_vectors, target, session, weight, released)
    num_rows, dim = vectors.shape
    size = _tile_size(num_rows)
    positive, columns = (vectors * target_vectors).sum(1), (target, session, weight)
    # With the transposed table in memory, every product below reads rows; without the barrier XLA would undo that.
    transposed = jax.lax.optimization_barrier(target_vectors.T)

    def tile_gradient(carry: Array, tile: tuple[Array, ...]) -> tuple[Array, tuple[Array, Array, Array]]:
        vector, score, *rows = tile
        margin = vector @ transposed - score[:, None]
        slope = jax.nn.sigmoid(margin)
        if released:
            prob = jax.nn.sigmoid(-margin)
            slope = slope * prob / (1e-10 + prob)
        negative, row_weight = _is_negative(rows, columns, released), rows[2]
        slope = jnp.where(negative, slope, 0.0) * row_weight[:, None]
        vector_columns = jax.lax.optimization_barrier(vector.T)
        return carry + vector_columns @ slope, (slope @ target_vectors, slope.sum(1), row_weight * negative.sum(1))

    tiles = tuple(_tiles(array, size) for array in (vectors, positive, *columns))
    as_negative, (from_negatives, slopes, pairs) = jax.lax.scan(tile_gradient, jnp.zeros_like(transposed), tiles)
    slopes = slopes.reshape(-1)[:num_rows, None]
    total = pairs.sum()
    scale = jnp.where(total > 0, 1.0 / jnp.where(total > 0, total, 1.0), 0.0)
    to_vectors = scale * (from_negatives.reshape(-1, dim)[:num_rows] - slopes * target_vectors)
    # The barriers make XLA transpose the array first and then read it by rows, not read it by columns.
    as_negative = jax.lax.optimization_barrier(jax.lax.optimization_barrier(as_negative).T)
    to_targets = scale * (as_negative - slopes * vectors)
    return value, (to_vectors, to_targets)


def _tile_size(num_rows: int) -> int:
    return min(num_rows, _TILE) if jax.default_backend() == "cpu" else num_rows


def _tiles(array: Array, size: int) -> Array:
    """Splits rows into tiles; the last tile is padded with zeros."""
    num_tiles = -(-array.shape[0] // size)
    padding = [(0, num_tiles * size - array.shape[0])] + [(0, 0)] * (array.ndim - 1)
    return jnp.pad(array, padding).reshape(num_tiles, size, *array.shape[1:])


def _backward(released: bool, gradients: tuple[Array, Array], cotangent: Array) -> tuple[Any, ...]:
    to_vectors, to_targets = gradients
    return cotangent * to_vectors, cotangent * to_targets, None, None, None


fused_in_batch_bpr.defvjp(_forward, _backward)
