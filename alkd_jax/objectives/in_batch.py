"""Losses whose negatives are the targets of a batch's other rows."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alkd_jax import losses, scoring
from alkd_jax.models import Params
from alkd_jax.objectives.base import PER_ITEM, Objective
from alkd_jax.ops.lookup import embedding_lookup
from alkd_jax.types import Batch


@flax.struct.dataclass
class InBatchBPR(Objective):
    """In-batch BPR, the paper's loss. Rows of the same session are not negatives of each other unless ``released``.

    Attributes:
        released: whether to compute the form of the authors' released code, see :func:`alkd_jax.losses.in_batch_bpr`.
    """

    released: bool = flax.struct.field(pytree_node=False, default=False)

    def loss(self, params: Params, batch: Batch, candidates: None, key: jax.Array) -> Float[Array, ""]:
        """Returns the mean loss of a batch."""
        vectors = self.encode(params, batch, key)
        targets = embedding_lookup(self.item_embeddings(params, key), batch.target)
        if vectors.ndim > 2:
            scores = scoring.logsumexp_pool(vectors @ targets.T)
            other_session = batch.session[:, None] != batch.session[None, :]
            return losses.in_batch_bpr(
                scores, batch.target, weight=batch.weight, negatives=other_session, released=self.released
            )
        return losses.fused_in_batch_bpr(vectors, targets, batch.target, batch.session, batch.weight, self.released)

    def table_ids(self, batch: Batch) -> dict[str, Int[Array, "..."]]:
        """Returns the rows that the loss reads of each item table, by the table's name.

        The result is empty for a backbone whose tables are not separate parameters for input and output.
        """
        is_separate = getattr(self.model, "separate_tables", False)
        return {"input_embedding": batch.items, "output_embedding": batch.target} if is_separate else {}

    def loss_from_rows(
        self,
        params: Params,
        rows: dict[str, Float[Array, "..."]],
        batch: Batch,
        key: jax.Array,
        *,
        method: str = "encode_rows",
    ) -> Float[Array, ""]:
        """Computes the loss from rows of the item tables, so that it can be differentiated with respect to these.

        Args:
            params: the backbone's parameters; its item tables are not read.
            rows: the rows at :meth:`table_ids`, by the table's name.
            batch: the batch.
            key: a JAX key for dropout.
            method: of the backbone; "encode_masked_rows" for rows that are 0 where there is no item.
        """
        vectors = self.model.apply(
            params, rows["input_embedding"], batch.mask, train=True, rngs={"dropout": key}, method=method
        )
        return losses.fused_in_batch_bpr(
            vectors, rows["output_embedding"], batch.target, batch.session, batch.weight, self.released
        )


@flax.struct.dataclass
class InBatchSoftmax(Objective):
    """Softmax cross-entropy with the other rows' targets as negatives, corrected for how often they are targets.

    Rows with the same target, or of the same session, are not negatives of each other.

    Attributes:
        log_frequency: ``[V1]`` log q, see :func:`alkd_jax.samplers.log_frequency`.

    Reference:
        Yi et al., Sampling-bias-corrected neural modeling, RecSys 2019.
    """

    log_frequency: Any = flax.struct.field(metadata=PER_ITEM)

    def loss(self, params: Params, batch: Batch, candidates: None, key: jax.Array) -> Float[Array, ""]:
        """Returns the mean loss of a batch."""
        vectors = self.encode(params, batch, key)
        targets = embedding_lookup(self.item_embeddings(params, key), batch.target)
        log_prob = jnp.asarray(self.log_frequency)[batch.target]
        scores = scoring.logsumexp_pool(vectors @ targets.T)
        differs = (batch.target[:, None] != batch.target[None, :]) & (batch.session[:, None] != batch.session[None, :])
        return losses.sampled_softmax(
            jnp.diagonal(scores),
            scores,
            log_prob_positive=log_prob,
            log_prob_negative=jnp.broadcast_to(log_prob, scores.shape),
            where=differs & (batch.weight > 0)[None, :],
            weight=batch.weight,
        )
