"""Losses whose negatives are sampled at every step."""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alkd_jax import losses, scoring
from alkd_jax.checks import check_count, check_one_of
from alkd_jax.models import Params
from alkd_jax.objectives.base import Objective
from alkd_jax.ops.lookup import embedding_lookup
from alkd_jax.samplers import Sampler
from alkd_jax.types import Batch


@flax.struct.dataclass
class SampledLoss(Objective):
    """BPR, binary cross-entropy or softmax with negatives that are sampled at every step.

    A sampled item that is the row's target or in its input is ignored. The softmax weights each sampled item by
    ``1 / (C q_v)`` and the target by 1, so that its partition function tends to that of the whole catalogue as C grows.

    Attributes:
        sampler: the distribution of negatives.
        kind: "bpr", "bce" or "softmax".
        num_negatives: C, the number of negatives sampled for each row.

    Raises:
        ValueError: the kind is unknown or ``num_negatives`` is below 1.

    Reference:
        Bengio and Senécal, Adaptive importance sampling, 2008; Khrylchenko et al., Correcting the logQ correction,
        RecSys 2025.
    """

    sampler: Sampler
    kind: str = flax.struct.field(pytree_node=False)
    num_negatives: int = flax.struct.field(pytree_node=False, default=1)

    def __post_init__(self) -> None:
        """Checks the options."""
        check_one_of("kind", self.kind, ("bpr", "bce", "softmax"))
        check_count(1, num_negatives=self.num_negatives)

    def candidates(self, batch: Batch, key: jax.Array) -> Int[Array, "B C"]:
        """Returns the sampled items."""
        return self.sampler.draw(jax.random.split(key)[1], (batch.target.shape[0], self.num_negatives))

    def on_rows(self, ids: Int[Array, " R"]) -> "Objective":
        """Returns the objective of some rows; its sampler gives their probabilities and cannot draw."""
        return super().on_rows(ids).replace(sampler=self.sampler.on_rows(ids))  # type: ignore[attr-defined]

    def loss(self, params: Params, batch: Batch, candidates: Int[Array, "B C"], key: jax.Array) -> Float[Array, ""]:
        """Returns the mean loss of a batch."""
        vectors, table = self.encode(params, batch, jax.random.split(key)[0]), self.item_embeddings(params, key)
        is_unseen = (candidates != batch.target[:, None]) & (candidates[:, :, None] != batch.items[:, None, :]).all(-1)
        positive = scoring.candidate_scores(vectors, embedding_lookup(table, batch.target)[:, None])[:, 0]
        negative = scoring.candidate_scores(vectors, embedding_lookup(table, candidates))
        if self.kind == "softmax":
            return losses.sampled_softmax(
                positive,
                negative,
                log_prob_positive=jnp.zeros_like(positive),
                log_prob_negative=self.sampler.log_prob[candidates] + jnp.log(float(self.num_negatives)),
                where=is_unseen,
                weight=batch.weight,
            )
        pairwise = losses.sampled_bpr if self.kind == "bpr" else losses.binary_cross_entropy
        return pairwise(positive, negative, weight=batch.weight, where=is_unseen.astype(positive.dtype))
