"""Bayesian personalized ranking (BPR), with the batch's other targets or with sampled items as negatives."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.losses.reduction import weighted_mean
from alkd_jax.ops.in_batch_pairs import PairLoss, Rows, mean_over_pairs
from alkd_jax.ops.precision import at_least_float32


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
    scores = at_least_float32(scores)
    weight = jnp.ones(len(scores), scores.dtype) if weight is None else weight
    allowed = jnp.broadcast_to((weight > 0)[None, :], scores.shape)
    if not released:
        allowed &= target[:, None] != target[None, :]
        allowed = allowed if negatives is None else allowed & negatives
    pair_loss = _RELEASED if released else _CLEAN
    return weighted_mean(pair_loss.loss(scores - jnp.diagonal(scores)[:, None]), weight[:, None] * allowed)


def fused_in_batch_bpr(
    vectors: Float[Array, "B D"],
    target_vectors: Float[Array, "B D"],
    target: Int[Array, " B"],
    session: Int[Array, " B"],
    weight: Float[Array, " B"],
    released: bool = False,
) -> Float[Array, ""]:
    """Computes :func:`in_batch_bpr` from vectors, without an array of all pairs in the backward pass.

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
    rows = Rows(at_least_float32(vectors), at_least_float32(target_vectors), weight, (target, session))
    return mean_over_pairs(_RELEASED if released else _CLEAN, rows)


def _differs(rows: Rows, columns: Rows) -> Bool[Array, "R C"]:
    """Which columns are negatives of which rows: those of another item, another session and a positive weight."""
    (target, session), (targets, sessions) = rows.labels, columns.labels
    differs = (target[:, None] != targets[None, :]) & (session[:, None] != sessions[None, :])
    return _counts(rows, columns) & differs


def _counts(rows: Rows, columns: Rows) -> Bool[Array, "R C"]:
    """Which columns are negatives in the released form: those of a positive weight."""
    return jnp.broadcast_to(columns.weight[None, :] > 0, rows.weight.shape + columns.weight.shape)


def _released_loss(margin: Float[Array, "R B"]) -> Float[Array, "R B"]:
    """``−log(1e-10 + σ(−m))``."""
    return -jnp.log(1e-10 + jax.nn.sigmoid(-margin))


def _released_slope(margin: Float[Array, "R B"]) -> Float[Array, "R B"]:
    """``σ(m) σ(−m) / (1e-10 + σ(−m))``."""
    prob = jax.nn.sigmoid(-margin)
    return jax.nn.sigmoid(margin) * prob / (1e-10 + prob)


_CLEAN = PairLoss(jax.nn.softplus, jax.nn.sigmoid, _differs)
_RELEASED = PairLoss(_released_loss, _released_slope, _counts)


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
    positive, negative = at_least_float32(positive), at_least_float32(negative)
    losses = jax.nn.softplus(negative - positive[:, None])
    row_losses = jax.vmap(weighted_mean)(losses, where) if where is not None else losses.mean(-1)
    return weighted_mean(row_losses, weight)


def bpr_max(
    positive: Float[Array, " B"],
    negative: Float[Array, "B C"],
    *,
    regularization: float = 1.0,
    elu: float = 0.0,
    where: Bool[Array, "B C"] | None = None,
    weight: Float[Array, " B"] | None = None,
) -> Float[Array, ""]:
    """BPR-max: each negative counts as much as its share of a softmax over the negatives.

    ``w_bc = softmax_c(s⁻_bc)``, ``L = mean_b [−log(Σ_c w_bc σ(s⁺_b − s⁻_bc) + 1e-24) + λ Σ_c w_bc (s⁻_bc)²]``

    Args:
        positive: score s⁺ of each row's target.
        negative: scores s⁻ of its negatives.
        regularization: λ.
        elu: a in ``s ← s if s > 0, else a (exp(s) − 1)``, which all scores pass through first; 0 leaves them as they
            are.
        where: True for negatives that count.
        weight: non-negative weight of each row; 0 excludes a row.

    Reference:
        Hidasi and Karatzoglou, Recurrent neural networks with top-k gains, CIKM 2018, eq. 10 and 12.
    """
    positive, negative = at_least_float32(positive), at_least_float32(negative)
    if elu > 0:
        positive, negative = (jax.nn.elu(scores, elu) for scores in (positive, negative))
    # A finite number in place of −∞, so that a row without negatives has a gradient of 0 and not NaN.
    share = jax.nn.softmax(negative if where is None else jnp.where(where, negative, -1e30), axis=1)
    share = share if where is None else jnp.where(where, share, 0.0)
    wins = (share * jax.nn.sigmoid(positive[:, None] - negative)).sum(1)
    return weighted_mean(-jnp.log(wins + 1e-24) + regularization * (share * negative**2).sum(1), weight)
