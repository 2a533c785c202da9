"""Losses of single (session, item) pairs."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from alkd_jax.checks import check_between
from alkd_jax.losses.reduction import weighted_mean
from alkd_jax.ops.precision import at_least_float32


def binary_cross_entropy(
    positive: Float[Array, " B"],
    negative: Float[Array, "B C"],
    *,
    weight: Float[Array, " B"] | None = None,
    where: Float[Array, "B C"] | None = None,
) -> Float[Array, ""]:
    """Binary cross-entropy with label 1 for targets and label 0 for negatives.

    ``L = mean_b [softplus(−s⁺_b) + mean_c softplus(s⁻_bc)]``

    Args:
        positive: score s⁺ of each row's target.
        negative: scores s⁻ of its sampled negatives.
        weight: non-negative weight of each row; 0 excludes a row.
        where: weight of each negative within its row; 0 excludes a negative.

    Returns:
        The weighted mean over rows.
    """
    positive, negative = at_least_float32(positive), at_least_float32(negative)
    losses = jax.nn.softplus(negative)
    row_losses = jax.vmap(weighted_mean)(losses, where) if where is not None else losses.mean(-1)
    return weighted_mean(jax.nn.softplus(-positive) + row_losses, weight)


def generalized_cross_entropy(
    positive: Float[Array, " B"],
    negative: Float[Array, "B C"],
    *,
    num_items: int,
    calibration: float = 0.75,
    weight: Float[Array, " B"] | None = None,
    where: Bool[Array, "B C"] | None = None,
) -> Float[Array, ""]:
    """Generalized binary cross-entropy (gBCE), which corrects the overconfidence that sampled negatives cause.

    ``L = mean_b 1/(C + 1) [β softplus(−s⁺_b) + Σ_c softplus(s⁻_bc)]``, ``β = α (t (1 − 1/α) + 1/α)``,
    ``α = C / (V − 1)``

    Args:
        positive: score s⁺ of each row's target.
        negative: scores s⁻ of C negatives, sampled uniformly.
        num_items: V, at least 2.
        calibration: t in [0, 1]; 0 is the binary cross-entropy, 1 fits the probabilities of the softmax.
        weight: non-negative weight of each row; 0 excludes a row.
        where: True for negatives that count.

    Returns:
        The weighted mean over rows.

    Raises:
        ValueError: ``calibration`` is not in [0, 1].

    Reference:
        Petrov and Macdonald, gSASRec, RecSys 2023, eq. for gBCE.
    """
    check_between(0, 1, calibration=calibration)
    num_negatives = negative.shape[1]
    rate = num_negatives / (num_items - 1)
    beta = rate * (calibration * (1 - 1 / rate) + 1 / rate)
    losses = jax.nn.softplus(at_least_float32(negative))
    losses = losses if where is None else jnp.where(where, losses, 0.0)
    total = beta * jax.nn.softplus(-at_least_float32(positive)) + losses.sum(-1)
    return weighted_mean(total / (num_negatives + 1), weight)
