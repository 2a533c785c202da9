"""Softmax cross-entropy over the catalogue, over a sample of it, and over a teacher's list."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.checks import check_count
from alkd_jax.losses.reduction import weighted_mean
from alkd_jax.ops.log_partition import log_partition
from alkd_jax.ops.lookup import embedding_lookup
from alkd_jax.ops.precision import at_least_float32
from alkd_jax.ops.products import candidate_scores


def full_softmax(
    vectors: Float[Array, "B *L D"],
    table: Float[Array, "V D"],
    target: Int[Array, " B"],
    *,
    weight: Float[Array, " B"] | None = None,
    chunk_size: int | None = None,
) -> Float[Array, ""]:
    """Cross-entropy over the whole catalogue, the padding left out.

    ``L = mean_b [log Σ_{v ≥ 1} exp(s_bv) − s_b,target]``, ``s_bv = u_b · Y_v``

    Args:
        vectors: u; one vector for each session, or one for each position, whose scores are pooled by log-sum-exp.
        table: Y; row 0 is the padding.
        target: items in ``1..V-1``.
        weight: non-negative weight of each row; 0 excludes a row.
        chunk_size: items scored at a time, forward and backward; None holds all ``[B, V]`` scores.

    Raises:
        ValueError: ``chunk_size`` is below 1.
    """
    if chunk_size is not None:
        check_count(1, chunk_size=chunk_size)
    positive = candidate_scores(vectors, embedding_lookup(table, target)[:, None])[:, 0]
    return weighted_mean(log_partition(vectors, table, chunk_size) - positive, weight)


def sampled_softmax(
    positive: Float[Array, " B"],
    negative: Float[Array, "B C"],
    *,
    log_prob_positive: Float[Array, " B"],
    log_prob_negative: Float[Array, "B C"],
    where: Bool[Array, "B C"] | None = None,
    weight: Float[Array, " B"] | None = None,
) -> Float[Array, ""]:
    """Cross-entropy over the target and sampled items C_b, corrected for each item's sampling probability q.

    ``L = mean_b [log Σ_{v ∈ {target} ∪ C_b} exp(s_bv − log q_v) − (s_b,target − log q_target)]``

    With in-batch negatives, q is how often an item is a target; with sampled ones, the sampler's probability.

    Args:
        positive: score of each row's target.
        negative: scores of its negatives.
        log_prob_positive: log q of the target; any constant may be added to all log q.
        log_prob_negative: log q of the negatives.
        where: True for negatives that count; False for those equal to the target.
        weight: non-negative weight of each row; 0 excludes a row.

    Reference:
        Bengio and Senécal, Adaptive importance sampling, 2008; Yi et al., Sampling-bias-corrected modeling, 2019.
    """
    corrected = at_least_float32(positive) - log_prob_positive
    others = at_least_float32(negative) - log_prob_negative
    if where is not None:
        others = jnp.where(where, others, -jnp.inf)
    log_z = jax.nn.logsumexp(jnp.concatenate([corrected[:, None], others], axis=1), axis=1)
    return weighted_mean(log_z - corrected, weight)


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
        scores: the student's scores s of the listed items.
        gain: the teacher's non-negative weights g of the items, such as position weights or probabilities.
        where: True at places that hold an item.
        weight: non-negative weight of each row; a row whose gains are all 0 is excluded.
    """
    scores = at_least_float32(scores)
    where = jnp.ones(scores.shape, bool) if where is None else where
    gain = jnp.where(where, gain, 0.0)
    total = gain.sum(-1, keepdims=True)
    # A finite number in place of -inf, so that a row without items has a gradient of 0 and not NaN.
    log_prob = jnp.where(where, jax.nn.log_softmax(jnp.where(where, scores, -1e30), axis=-1), 0.0)
    losses = -(gain / jnp.where(total > 0, total, 1.0) * log_prob).sum(-1)
    has_gain = (total[:, 0] > 0).astype(scores.dtype)
    return weighted_mean(losses, has_gain if weight is None else has_gain * weight)
