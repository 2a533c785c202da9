"""The distributionally robust loss that DLLM2Rec adds to the student's own: the worst case over item distributions."""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alkd_jax import scoring
from alkd_jax.losses.reduction import weighted_mean
from alkd_jax.models import Params
from alkd_jax.objectives import BoundLoss, Loss
from alkd_jax.types import PAD, Batch


def robust_popularity(counts: Int[Array, " V1"], *, power: float = 0.05) -> Float[Array, " V1"]:
    """``p_i = ((count_i + 1) / Σ_j (count_j + 1))^0.05`` over real items; 0 for padding.

    Args:
        counts: how often each item occurs.
        power: the exponent.
    """
    smoothed = (counts + 1.0).at[PAD].set(0.0)
    return jnp.where(smoothed > 0, (smoothed / smoothed.sum()) ** power, 0.0)


def robust_loss(
    all_scores: Float[Array, "B V1"],
    target: Int[Array, "B K"],
    popularity: Float[Array, " V1"],
    *,
    beta: Float[Array, ""] | float = 1.0,
) -> Float[Array, "B K"]:
    """``log(Σ_j exp(p_j s_j² / β) − exp(p_i s_i² / β) + exp(p_i (s_i − 1)² / β))`` of every target i.

    This is the worst case of a squared loss over item distributions close to the popularity. It is computed in
    logarithms, because the sum overflows float32 for scores above 9.

    Args:
        all_scores: s, scores of the whole catalogue; padding, column 0, is left out.
        target: i, K items for each row.
        popularity: p, from :func:`robust_popularity`.
        beta: β, positive.

    Returns:
        ``[B, K]`` losses.

    Reference:
        Yang et al., A generic learning framework for sequential recommendation with distribution shifts, SIGIR 2023.
    """
    exponent = (popularity[None] * all_scores**2 / beta).at[:, PAD].set(-jnp.inf)

    @jax.checkpoint
    def loss_of_column(item: Int[Array, " B"]) -> Float[Array, " B"]:
        score = jnp.take_along_axis(all_scores, item[:, None], axis=1)[:, 0]
        target_exponent = popularity[item] * (score - 1.0) ** 2 / beta
        # The target's term is replaced, not subtracted: it may be nearly all of the sum, and would cancel.
        exponents = exponent.at[jnp.arange(len(item)), item].set(target_exponent)
        return jax.nn.logsumexp(exponents, axis=1)

    return jax.lax.map(loss_of_column, target.T).T


@flax.struct.dataclass
class RobustTerm:
    """The distributionally robust loss l^D, :func:`robust_loss`, with its weight.

    Attributes:
        weight: α.
        beta: β.
        popularity: ``[V1]`` p, from :func:`robust_popularity`.
    """

    weight: Float[Array, ""] | float
    beta: Float[Array, ""] | float
    popularity: Float[Array, " V1"]

    def losses(self, all_scores: Float[Array, "B V1"], target: Int[Array, "B K"]) -> Float[Array, "B K"]:
        """Returns l^D of every target, without the weight."""
        return robust_loss(all_scores, target, self.popularity, beta=self.beta)


@flax.struct.dataclass
class RobustLoss(BoundLoss):
    """``L_student + α mean_b l^D(b, y_b)``: the student's loss with the distributionally robust loss added.

    Attributes:
        student: the student's own loss.
        robust: l^D and α.
    """

    student: Loss
    robust: RobustTerm

    def __call__(self, params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """Returns the loss of a batch."""
        all_scores = scoring.scores(self.encode(params, batch, key), self.item_embeddings(params, key))
        robust_losses = self.robust.losses(all_scores, batch.target[:, None])
        return self.student(params, batch, key) + self.robust.weight * weighted_mean(robust_losses[:, 0], batch.weight)
