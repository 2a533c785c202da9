"""Softmax cross-entropy over the catalogue, over a sample of it, and over a teacher's list."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.losses.reduction import weighted_mean
from alkd_jax.ops.log_partition import log_partition
from alkd_jax.types import PAD


def full_softmax(
    vectors: Float[Array, "B D"],
    table: Float[Array, "V D"],
    target: Int[Array, " B"],
    *,
    weight: Float[Array, " B"] | None = None,
) -> Float[Array, ""]:
    """Cross-entropy over the whole catalogue, padding left out, with all scores in memory.

    ``L = mean_b [log Σ_{v ≥ 1} exp(u_b · Y_v) − u_b · Y_target]``

    Args:
        vectors: u.
        table: Y, row 0 the padding.
        target: items in ``1..V-1``.
        weight: of the rows; 0 takes one out.
    """
    scores = (vectors @ table.T).at[:, PAD].set(-jnp.inf)
    own = jnp.take_along_axis(scores, target[:, None], axis=1)[:, 0]
    return weighted_mean(jax.nn.logsumexp(scores, axis=1) - own, weight)


def chunked_softmax(
    vectors: Float[Array, "B D"],
    table: Float[Array, "V D"],
    target: Int[Array, " B"],
    *,
    weight: Float[Array, " B"] | None = None,
    chunk_size: int = 8192,
) -> Float[Array, ""]:
    """:func:`full_softmax` with at most ``[B, chunk_size]`` scores in memory, forward and backward.

    Args:
        vectors: u.
        table: Y, row 0 the padding.
        target: items in ``1..V-1``.
        weight: of the rows; 0 takes one out.
        chunk_size: items scored at a time, at least 1.

    Raises:
        ValueError: chunk_size is below 1.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; expected at least 1")
    own = (vectors * table[target]).sum(-1)
    return weighted_mean(log_partition(vectors, table, min(chunk_size, table.shape[0])) - own, weight)


def sampled_softmax(
    positive: Float[Array, " B"],
    negative: Float[Array, "B C"],
    *,
    log_chance_positive: Float[Array, " B"],
    log_chance_negative: Float[Array, "B C"],
    where: Bool[Array, "B C"] | None = None,
    weight: Float[Array, " B"] | None = None,
) -> Float[Array, ""]:
    """Cross-entropy over the target and sampled items, corrected for how often each item is sampled.

    ``L = mean_b [log Σ_{v ∈ {target} ∪ C_b} exp(s_bv − log q_v) − (s_b,target − log q_target)]``

    With in-batch negatives, q is how often an item is a target; with sampled ones, the sampler's probability.

    Args:
        positive: score of each row's target.
        negative: scores of its negatives.
        log_chance_positive: log q of the target; any constant may be added to all log q.
        log_chance_negative: log q of the negatives.
        where: which negatives count: not those equal to the target.
        weight: of the rows; 0 takes one out.

    Reference:
        Bengio and Senécal, Adaptive importance sampling, 2008; Yi et al., Sampling-bias-corrected modeling, 2019.
    """
    own = positive - log_chance_positive
    others = negative - log_chance_negative
    if where is not None:
        others = jnp.where(where, others, -jnp.inf)
    return weighted_mean(jax.nn.logsumexp(jnp.concatenate([own[:, None], others], axis=1), axis=1) - own, weight)


def listwise_softmax(
    scores: Float[Array, "B K"],
    gain: Float[Array, "B K"],
    *,
    where: Bool[Array, "B K"] | None = None,
    weight: Float[Array, " B"] | None = None,
) -> Float[Array, ""]:
    """Cross-entropy between a teacher's list and the student's softmax over the same items.

    ``L = −mean_b Σ_k (g_bk / Σ_j g_bj) log softmax_k(s_b)``

    Args:
        scores: the student's scores of the listed items.
        gain: what the teacher gives them, non-negative: position weights, or chances.
        where: which positions hold an item.
        weight: of the rows; a row without gain counts for nothing.
    """
    where = jnp.ones(scores.shape, bool) if where is None else where
    gain = jnp.where(where, gain, 0.0)
    total = gain.sum(-1, keepdims=True)
    # A finite stand-in for -inf, so that a row without items has a gradient of 0 and not NaN.
    log_share = jnp.where(where, jax.nn.log_softmax(jnp.where(where, scores, -1e30), axis=-1), 0.0)
    losses = -(gain / jnp.where(total > 0, total, 1.0) * log_share).sum(-1)
    rows = (total[:, 0] > 0).astype(scores.dtype)
    return weighted_mean(losses, rows if weight is None else rows * weight)
