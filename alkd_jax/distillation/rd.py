"""Ranking distillation: the head of the teacher's list joins the label as positives, by position and by need."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from alkd_jax.losses.mean import weighted_mean


def static_weights(length: int, *, sharpness: float = 1.0) -> Float[Array, " K"]:
    """``a_r = exp(−r / λ) / Σ``, r = 1..K.

    Args:
        length: K.
        sharpness: λ; the smaller, the more the first position has.
    """
    return jax.nn.softmax(-jnp.arange(1, length + 1) / sharpness)


def dynamic_weights(
    listed: Float[Array, "B K"], sampled: Float[Array, "B C"], *, num_items: int, mu: float = 0.1
) -> Float[Array, "B K"]:
    """``max(0, tanh(μ (R_r − (r − 1))))``: what the student already ranks where the teacher does weighs nothing.

    R_r = ``⌊(V − 1) n_r / C⌋`` estimates an item's rank in the student from the n_r of C random items above it.

    Args:
        listed: the student's scores of the list, best position first.
        sampled: its scores of items drawn uniformly.
        num_items: V.
        mu: μ.

    Returns:
        Weights in [0, 1), without gradient.
    """
    above = (sampled[:, None, :] > listed[:, :, None]).sum(-1)
    rank = (num_items - 1) * above // sampled.shape[1]
    return jnp.maximum(0.0, jnp.tanh(mu * (rank - jnp.arange(listed.shape[1])[None])))


def list_loss(
    listed: Float[Array, "B K"],
    position_weight: Float[Array, "B K"],
    *,
    where: Bool[Array, "B K"] | None = None,
    weight: Float[Array, " B"] | None = None,
) -> Float[Array, ""]:
    """``−mean_b Σ_r w_br log σ(s_br)``; weights are not made to sum to 1, so all may be 0.

    Args:
        listed: the student's scores of the list.
        position_weight: w, which has no gradient.
        where: which positions hold an item.
        weight: of the rows; 0 takes one out.

    Reference:
        Tang and Wang, Ranking distillation: learning compact ranking models with high performance, KDD 2018.
    """
    position_weight = jax.lax.stop_gradient(position_weight)
    terms = position_weight * jax.nn.softplus(-listed)
    return weighted_mean((terms if where is None else jnp.where(where, terms, 0.0)).sum(-1), weight)
