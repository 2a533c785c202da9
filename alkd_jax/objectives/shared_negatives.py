"""GRU4Rec's losses: the negatives of a row are the other rows' targets, and sampled items that all rows share."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alkd_jax import losses
from alkd_jax.checks import check_count, check_one_of
from alkd_jax.models import Params
from alkd_jax.objectives.base import PER_ITEM, Objective
from alkd_jax.ops.lookup import embedding_lookup
from alkd_jax.ops.precision import at_least_float32
from alkd_jax.samplers import Sampler
from alkd_jax.types import Batch


@flax.struct.dataclass
class SharedNegatives(Objective):
    """Softmax cross-entropy or BPR-max over the targets of the batch and C sampled items.

    The softmax is corrected by ``logq`` times the log of an item's count (as another row's target) or of its sampling
    probability (as a sampled item). The loss is divided by the number of rows, those of weight 0 included.

    Attributes:
        sampler: the distribution of sampled items, in the paper ``count^α``.
        log_frequency: ``[V1]`` log q of the batch's targets, see :func:`alkd_jax.samplers.log_frequency`.
        kind: "softmax" or "bpr_max".
        num_negatives: C.
        logq: how much of the correction is made, 0 or 1 in the authors' settings; for "softmax".
        regularization: λ of BPR-max.
        elu: of BPR-max, see :func:`alkd_jax.losses.bpr_max`.
        repeats: whether an item that equals the row's target is a negative too, as in the authors' code.

    Raises:
        ValueError: the kind is unknown or ``num_negatives`` is below 1.

    Reference:
        Hidasi and Karatzoglou, Recurrent neural networks with top-k gains, CIKM 2018; Yi et al., RecSys 2019, logQ.
    """

    sampler: Sampler
    log_frequency: Any = flax.struct.field(metadata=PER_ITEM)
    kind: str = flax.struct.field(pytree_node=False, default="softmax")
    num_negatives: int = flax.struct.field(pytree_node=False, default=2048)
    logq: float = flax.struct.field(pytree_node=False, default=1.0)
    regularization: float = flax.struct.field(pytree_node=False, default=1.0)
    elu: float = flax.struct.field(pytree_node=False, default=0.0)
    repeats: bool = flax.struct.field(pytree_node=False, default=False)

    def __post_init__(self) -> None:
        """Checks the options."""
        check_one_of("kind", self.kind, ("softmax", "bpr_max"))
        check_count(1, num_negatives=self.num_negatives)

    def candidates(self, batch: Batch, key: jax.Array) -> Int[Array, " C"]:
        """Returns the sampled items, which all rows share."""
        return self.sampler.draw(jax.random.split(key)[1], (self.num_negatives,))

    def on_rows(self, ids: Int[Array, " R"]) -> "Objective":
        """Returns the objective of some rows; its sampler gives their probabilities and cannot draw."""
        return super().on_rows(ids).replace(sampler=self.sampler.on_rows(ids))  # type: ignore[attr-defined]

    def loss(self, params: Params, batch: Batch, candidates: Int[Array, " C"], key: jax.Array) -> Float[Array, ""]:
        """Returns the loss of a batch, whose sessions are encoded from their first item on."""
        vectors = self.encode(params, batch, jax.random.split(key)[0])
        return self.loss_of_vectors(params, vectors, batch, candidates, key)

    def loss_of_vectors(
        self,
        params: Params,
        vectors: Float[Array, "B D"],
        batch: Batch,
        candidates: Int[Array, " C"],
        key: jax.Array,
    ) -> Float[Array, ""]:
        """Returns the loss of a batch, given its session vectors; the key is for dropout of the table."""
        items = jnp.concatenate([batch.target, candidates])
        rows = at_least_float32(embedding_lookup(self.item_embeddings(params, key), items))
        scores = at_least_float32(vectors) @ rows.T
        batch_size = len(batch.target)
        is_own = jnp.arange(len(items))[None] == jnp.arange(batch_size)[:, None]
        is_negative = ~is_own & jnp.concatenate([batch.weight > 0, jnp.ones(len(candidates), bool)])[None]
        if not self.repeats:
            is_negative &= items[None] != batch.target[:, None]
        positive = jnp.diagonal(scores[:, :batch_size])
        if self.kind == "bpr_max":
            options = {"regularization": self.regularization, "elu": self.elu}
            mean = losses.bpr_max(positive, scores, where=is_negative, weight=batch.weight, **options)
        else:
            frequency = self.logq * jnp.asarray(self.log_frequency)[batch.target]
            log_prob = jnp.concatenate([frequency, self.logq * self.sampler.log_prob[candidates]])
            mean = losses.sampled_softmax(
                positive,
                scores,
                log_prob_positive=frequency,
                log_prob_negative=jnp.broadcast_to(log_prob, scores.shape),
                where=is_negative,
                weight=batch.weight,
            )
        return mean * batch.weight.sum() / batch_size
