"""DLLM2Rec: an LLM's lists as positives, weighted by position and by whether the student agrees."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.types import PAD

_LEAST = 1e-8
"""Weight of an item without confidence or agreement, so that no list weighs nothing."""


def importance_weights(
    agreed: Bool[Array, "B K"],
    *,
    where: Bool[Array, "B K"] | None = None,
    distance: Float[Array, "B K"] | None = None,
    position: float = 0.3,
    confidence: float = 0.0,
    consistency: float = 0.1,
) -> Float[Array, "B K"]:
    """``normalise(γ_p w^p + γ_c w^c + γ_o w^o)``, without gradient.

    ``w^p_r = exp(−r) / Σ``; ``w^c_r = (exp(−q_r) + 1e-8) / Σ``; ``w^o_r = [listed item in the student's own top K] +
    1e-8``, not normalised. ALKDRec leaves out the confidence, which the authors of DLLM2Rec weigh 0.5.

    Args:
        agreed: which listed items the student has in its own top K.
        where: which positions hold an item, all to the left; default all.
        distance: q, how far the LLM's words were from the item; needed where ``confidence`` is not 0.
        position: γ_p.
        confidence: γ_c.
        consistency: γ_o.

    Returns:
        Weights that sum to 1 over a list, 0 in an empty one.

    Raises:
        ValueError: there is a confidence weight but no distance.

    Reference:
        Cui et al., Distillation matters: empowering sequential recommenders to match the performance of large language
        models, RecSys 2024; Du et al., ALKDRec, AAAI 2025, appendix C.
    """
    if confidence and distance is None:
        raise ValueError(f"confidence is {confidence} but there is no distance; expected one for every listed item")
    where = jnp.ones(agreed.shape, bool) if where is None else where

    def normalised(values: Float[Array, "B K"]) -> Float[Array, "B K"]:
        values = jnp.where(where, values, 0.0)
        total = values.sum(-1, keepdims=True)
        return values / jnp.where(total > 0, total, 1.0)

    place = jnp.arange(1, agreed.shape[1] + 1, dtype=jnp.float32)
    # A constant factor cancels, and exp(1 − r) is the larger number.
    weights = position * normalised(jnp.broadcast_to(jnp.exp(1.0 - place)[None], agreed.shape))
    if distance is not None:
        weights += confidence * normalised(jnp.exp(-distance) + _LEAST)
    weights += consistency * (agreed + _LEAST)
    return jax.lax.stop_gradient(normalised(weights))


def agreement(all_scores: Float[Array, "B V"], listed: Int[Array, "B K"]) -> Bool[Array, "B K"]:
    """Which listed items stand in the student's own top K of the whole catalogue; column 0, the padding, is left out.

    Args:
        all_scores: the student's scores.
        listed: the LLM's lists.
    """
    real = all_scores[:, 1:]
    last = jax.lax.top_k(real, min(listed.shape[1], real.shape[1]))[0][:, -1:]
    return jnp.take_along_axis(all_scores, listed, axis=1) >= last


def robust_popularity(counts: Int[Array, " V"], *, power: float = 0.05) -> Float[Array, " V"]:
    """``((count + 1) / Σ (count + 1))^0.05`` over real items; 0 for the padding."""
    smoothed = (counts + 1.0).at[PAD].set(0.0)
    return jnp.where(smoothed > 0, (smoothed / smoothed.sum()) ** power, 0.0)


def robust_loss(
    all_scores: Float[Array, "B V"],
    target: Int[Array, "B K"],
    popularity: Float[Array, " V"],
    *,
    beta: float = 1.0,
) -> Float[Array, "B K"]:
    """``log(Σ_j exp(p_j s_j² / β) − exp(p_i s_i² / β) + exp(p_i (s_i − 1)² / β))`` of every target i.

    The worst case of a squared loss over distributions of items near the popularity, in logarithms: the sum overflows
    float32 for scores above 9.

    Args:
        all_scores: s; column 0, the padding, is left out.
        target: items i of each row.
        popularity: p, from :func:`robust_popularity`.
        beta: β, positive.

    Reference:
        Yang et al., A generic learning framework for sequential recommendation with distribution shifts, SIGIR 2023.
    """
    exponent = (popularity[None] * all_scores**2 / beta).at[:, PAD].set(-jnp.inf)

    @jax.checkpoint
    def of_position(item: Int[Array, " B"]) -> Float[Array, " B"]:
        score = jnp.take_along_axis(all_scores, item[:, None], axis=1)[:, 0]
        moved = popularity[item] * (score - 1.0) ** 2 / beta
        # The target's term is replaced, not subtracted: it may be nearly all of the sum.
        replaced = exponent.at[jnp.arange(len(item)), item].set(moved)
        return jax.nn.logsumexp(replaced, axis=1)

    return jax.lax.map(of_position, target.T).T
