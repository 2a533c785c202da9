"""Ranking losses over score matrices."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


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
    margin = jnp.diagonal(scores)[:, None] - scores
    pair_weight = weight[:, None] * (weight > 0)[None, :]
    if released:
        losses = -jnp.log(1e-10 + jax.nn.sigmoid(margin))
    else:
        losses = jax.nn.softplus(-margin)
        allowed = target[:, None] != target[None, :]
        pair_weight = pair_weight * (allowed if negatives is None else allowed & negatives)
    total = pair_weight.sum()
    return jnp.where(total > 0, (pair_weight * losses).sum() / jnp.where(total > 0, total, 1.0), 0.0)
