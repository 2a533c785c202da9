"""The mean of a loss over the pairs of a batch's rows, with a gradient that stores no array of all pairs."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from alkd_jax.ops.layouts import by_columns
from alkd_jax.ops.platforms import cpu_or_device
from alkd_jax.ops.tiles import split_rows

_CPU_TILE_ROWS = 256
"""Rows of the matrix of margins in a tile on a CPU, small enough to stay in its cache."""


class Rows(NamedTuple):
    """The rows of a batch, or some of them.

    Attributes:
        vectors: u.
        targets: Y of each row's target.
        weight: w, non-negative.
        labels: further arrays with an entry for each row, which decide which rows form a pair.
    """

    vectors: Float[Array, "B D"]
    targets: Float[Array, "B D"]
    weight: Float[Array, " B"]
    labels: tuple[Array, ...]


class PairLoss(NamedTuple):
    """A loss of pairs of rows.

    Attributes:
        loss: ℓ, elementwise; a function of margins.
        slope: its derivative.
        is_pair: ``is_pair(rows, columns)`` returns ``[R, C]``, which columns form a pair with which rows.
    """

    loss: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    is_pair: Callable[[Rows, Rows], Bool[Array, "R C"]]


@functools.partial(jax.jit, static_argnums=0)
def mean_over_pairs(pair_loss: PairLoss, rows: Rows) -> Float[Array, ""]:
    """``Σ_b w_b Σ_{c ∈ N(b)} ℓ(u_b · Y_c − u_b · Y_b) / Σ_b w_b |N(b)|``; 0 where there is no pair.

    The gradient is computed in the forward pass without the value and stores no ``[B, B]`` array for the backward pass.
    On a CPU it is computed in tiles of rows that stay in cache. Where only the gradient is used, XLA leaves out the
    value.

    Args:
        pair_loss: ℓ and the pairs; its functions identify the compiled program.
        rows: the batch.
    """
    return _mean(pair_loss, rows)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _mean(pair_loss: PairLoss, rows: Rows) -> Float[Array, ""]:
    loss_sum, total = _on_tiles(functools.partial(_pair_sums, pair_loss), rows)
    return jnp.where(total > 0, loss_sum / jnp.where(total > 0, total, 1.0), 0.0)


def _on_tiles(function: Callable[..., Any], rows: Rows) -> Any:
    """Calls ``function(rows, size=tile size)`` with the tile size of the platform."""
    num_rows = rows.weight.shape[0]
    if num_rows <= _CPU_TILE_ROWS:
        return function(rows, size=num_rows)
    in_cache, at_once = (functools.partial(function, size=size) for size in (_CPU_TILE_ROWS, num_rows))
    return cpu_or_device(in_cache, at_once)(rows)


def _split(rows: Rows, size: int) -> tuple[Rows, Array]:
    """Splits the rows into tiles, and the products ``u_b · Y_b`` with them."""
    positive = (rows.vectors * rows.targets).sum(1)
    return jax.tree.map(functools.partial(split_rows, size=size), (rows, positive))


def _pair_sums(pair_loss: PairLoss, rows: Rows, size: int) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The weighted sum of the losses of all pairs, and the sum of their weights."""

    def tile_sums(tile: tuple[Rows, Array]) -> tuple[Array, Array]:
        tile_rows, positive = tile
        margin = tile_rows.vectors @ rows.targets.T - positive[:, None]
        pair_weight = tile_rows.weight[:, None] * pair_loss.is_pair(tile_rows, rows)
        return (pair_weight * pair_loss.loss(margin)).sum(), pair_weight.sum()

    loss_sum, total = jax.lax.map(tile_sums, _split(rows, size))
    return loss_sum.sum(), total.sum()


def _gradients(pair_loss: PairLoss, rows: Rows, size: int) -> tuple[Float[Array, "B D"], Float[Array, "B D"]]:
    """The gradients of the mean with respect to vectors and targets."""
    num_rows, dim = rows.vectors.shape
    # With the transposed table in memory, every product below reads rows; without the barrier XLA would undo that.
    transposed = jax.lax.optimization_barrier(rows.targets.T)

    def tile_gradient(carry: Array, tile: tuple[Rows, Array]) -> tuple[Array, tuple[Array, Array, Array]]:
        tile_rows, positive = tile
        margin = tile_rows.vectors @ transposed - positive[:, None]
        is_pair = pair_loss.is_pair(tile_rows, rows)
        slope = jnp.where(is_pair, pair_loss.slope(margin), 0.0) * tile_rows.weight[:, None]
        vector_columns = jax.lax.optimization_barrier(tile_rows.vectors.T)
        sums = slope @ rows.targets, slope.sum(1), tile_rows.weight * is_pair.sum(1)
        return carry + vector_columns @ slope, sums

    as_negative, sums = jax.lax.scan(tile_gradient, jnp.zeros_like(transposed), _split(rows, size))
    from_negatives, slopes, pairs = sums
    slopes = slopes.reshape(-1)[:num_rows, None]
    total = pairs.sum()
    scale = jnp.where(total > 0, 1.0 / jnp.where(total > 0, total, 1.0), 0.0)
    to_vectors = scale * (from_negatives.reshape(-1, dim)[:num_rows] - slopes * rows.targets)
    # The barriers make XLA transpose the array first and then read it by rows, not read it by columns.
    as_negative = jax.lax.optimization_barrier(jax.lax.optimization_barrier(as_negative).T)
    return to_vectors, scale * (as_negative - slopes * rows.vectors)


def _gradients_at_once(pair_loss: PairLoss, rows: Rows) -> tuple[Float[Array, "B D"], Float[Array, "B D"]]:
    """Computes :func:`_gradients` from whole matrices of pairs, in few operations."""
    vectors, targets, weight, _ = rows
    margin = vectors @ targets.T - (vectors * targets).sum(1)[:, None]
    is_pair = pair_loss.is_pair(rows, rows)
    slope = jnp.where(is_pair, pair_loss.slope(margin), 0.0) * weight[:, None]
    slopes, total = slope.sum(1)[:, None], jnp.where(is_pair, weight[:, None], 0.0).sum(1).sum()
    scale = jnp.where(total > 0, 1.0 / jnp.where(total > 0, total, 1.0), 0.0)
    return scale * (slope @ targets - slopes * targets), scale * (slope.T @ vectors - slopes * vectors)


def _gradients_on_tpu(pair_loss: PairLoss, rows: Rows) -> tuple[Float[Array, "B D"], Float[Array, "B D"]]:
    """Computes :func:`_gradients_at_once` for a TPU, which has no fast way to reduce two matrices in one pass.

    Pairs are counted in the matrix of slopes, from which others are told by their zeros. Narrow vectors are stored by
    columns, so that factors of rows lie along the lanes.
    """
    vectors, targets, weight, _ = rows
    vectors, targets = by_columns(vectors), by_columns(targets)
    margin = vectors @ targets.T - (vectors * targets).sum(1)[:, None]
    slope = jnp.maximum(pair_loss.slope(margin), jnp.finfo(margin.dtype).tiny)
    slope = jnp.where(pair_loss.is_pair(rows, rows), slope, 0.0)
    slopes, pairs = weight * slope.sum(1), jax.lax.optimization_barrier((slope > 0).sum(1, dtype=slope.dtype))
    total = (weight * pairs).sum()
    scale = jnp.where(total > 0, 1.0 / jnp.where(total > 0, total, 1.0), 0.0)
    to_vectors = scale * (weight[:, None] * (slope @ targets) - slopes[:, None] * targets)
    to_targets = scale * (slope.T @ (weight[:, None] * vectors) - slopes[:, None] * vectors)
    return by_columns(to_vectors), by_columns(to_targets)


def _forward(pair_loss: PairLoss, rows: Rows) -> tuple[Array, tuple[Array, Array]]:
    return _mean(pair_loss, rows), cpu_or_device(
        functools.partial(_gradients, pair_loss, size=min(_CPU_TILE_ROWS, len(rows.weight))),
        functools.partial(_gradients_at_once, pair_loss),
        tpu=functools.partial(_gradients_on_tpu, pair_loss),
    )(rows)


def _backward(pair_loss: PairLoss, gradients: tuple[Array, Array], cotangent: Array) -> tuple[Rows]:
    to_vectors, to_targets = (cotangent * gradient for gradient in gradients)
    return (Rows(to_vectors, to_targets, None, None),)  # type: ignore[arg-type]


_mean.defvjp(_forward, _backward)
