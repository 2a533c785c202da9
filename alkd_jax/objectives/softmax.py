"""Softmax losses over the whole catalogue or a list, with the target or a teacher's list as label."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alkd_jax import losses, scoring
from alkd_jax.models import Params
from alkd_jax.objectives.base import BoundLoss, Objective
from alkd_jax.ops.lookup import embedding_lookup
from alkd_jax.types import Batch


@flax.struct.dataclass
class FullSoftmax(BoundLoss):
    """Softmax cross-entropy over the whole catalogue, see :func:`alkd_jax.losses.full_softmax`.

    Attributes:
        chunk_size: items scored at a time; None holds all ``[B, V]`` scores.
    """

    chunk_size: int | None = flax.struct.field(pytree_node=False, default=None)

    def __call__(self, params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """Returns the mean loss of a batch."""
        vectors, table = self.encode(params, batch, key), self.item_embeddings(params, key)
        return losses.full_softmax(vectors, table, batch.target, weight=batch.weight, chunk_size=self.chunk_size)


@flax.struct.dataclass
class ListwiseSoftmax(Objective):
    """Softmax cross-entropy over a teacher's list, see :func:`alkd_jax.losses.listwise_softmax`.

    Attributes:
        list_items: ``[E, K]`` a list for each example; a place with gain 0 or item 0 is ignored.
        list_gain: ``[E, K]`` the gain of each place.
    """

    list_items: Any
    list_gain: Any

    def candidates(self, batch: Batch, key: jax.Array) -> Int[Array, "B K"]:
        """Returns the listed items."""
        return jnp.asarray(self.list_items)[batch.row]

    def loss(self, params: Params, batch: Batch, candidates: Int[Array, "B K"], key: jax.Array) -> Float[Array, ""]:
        """Returns the mean loss of a batch."""
        vectors, gain = self.encode(params, batch, key), jnp.asarray(self.list_gain)[batch.row]
        scores = scoring.candidate_scores(vectors, embedding_lookup(self.item_embeddings(params, key), candidates))
        return losses.listwise_softmax(scores, gain, where=candidates > 0, weight=batch.weight)


@flax.struct.dataclass
class DistilledSoftmax(BoundLoss):
    """:class:`FullSoftmax` with a label that is a mixture of the target and a teacher's list.

    ``L = mean_b [log Z_b − (1 − λ) s_b,target − λ Σ_k g_bk s_bk / Σ_k g_bk]``, λ = 0 for a row whose gains are all 0.

    Attributes:
        list_items: ``[E, K]`` a list for each example; a place with gain 0 or item 0 is ignored.
        list_gain: ``[E, K]`` the gain of each place.
        share: λ in [0, 1].
        chunk_size: items scored at a time; None holds all ``[B, V]`` scores.

    Reference:
        Hinton et al., Distilling the knowledge in a neural network, 2015, with soft labels restricted to a list.
    """

    list_items: Any
    list_gain: Any
    share: Any
    chunk_size: int | None = flax.struct.field(pytree_node=False, default=None)

    def __call__(self, params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """Returns the mean loss of a batch."""
        vectors, table = self.encode(params, batch, key), self.item_embeddings(params, key)
        candidates = jnp.asarray(self.list_items)[batch.row]
        gain = jnp.where(candidates > 0, jnp.asarray(self.list_gain)[batch.row], 0.0)
        total = gain.sum(-1)
        list_scores = scoring.candidate_scores(vectors, embedding_lookup(table, candidates))
        list_score = (gain * list_scores).sum(-1) / jnp.where(total > 0, total, 1.0)
        positive = scoring.candidate_scores(vectors, embedding_lookup(table, batch.target)[:, None])[:, 0]
        share = jnp.where(total > 0, self.share, 0.0)
        label_score = (1 - share) * positive + share * list_score
        return losses.weighted_mean(losses.log_partition(vectors, table, self.chunk_size) - label_score, batch.weight)


@flax.struct.dataclass
class SelfNormalizedSoftmax(BoundLoss):
    """Full softmax with a teacher's list as label, and a penalty that draws log Z to a given value.

    ``L = mean_b [log Z_b − (1 − ε) Σ_k g_bk s_bk − ε mean_v s_bv + (a_b + stop(log Z_b − a_b) − log m_b)²]``

    The backbone is a late-interaction one. Each input holds one item, whose bias a adds to all its scores alike. The
    softmax does not depend on a, so the squared term alone determines it: it makes exp(score) an unnormalized
    probability with sum m. The log-sum-exp of a session's items then mixes their probabilities in proportion to m.

    Attributes:
        list_items: ``[E, K]`` a list for each example; a place with gain 0 or item 0 is ignored.
        list_gain: ``[E, K]`` the gain of each place; the gains of a list sum to 1.
        log_mass: ``[E]`` log m.
        smoothing: ε in [0, 1), the share of the label that is uniform over the catalogue.
        chunk_size: items scored at a time; None holds all ``[B, V]`` scores.

    Raises:
        ValueError: ``smoothing`` is out of range.

    Reference:
        Devlin et al., Fast and robust neural network joint models, ACL 2014, self-normalization; Szegedy et al.,
        Rethinking the Inception architecture, CVPR 2016, label smoothing.
    """

    list_items: Any
    list_gain: Any
    log_mass: Any
    smoothing: float = flax.struct.field(pytree_node=False, default=0.0)
    chunk_size: int | None = flax.struct.field(pytree_node=False, default=None)

    def __post_init__(self) -> None:
        """Checks the options."""
        if not 0.0 <= self.smoothing < 1.0:
            raise ValueError(f"smoothing is {self.smoothing}; expected at least 0 and below 1")

    def __call__(self, params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """Returns the mean loss of a batch."""
        vectors, table = self.encode(params, batch, key), self.item_embeddings(params, key)
        candidates = jnp.asarray(self.list_items)[batch.row]
        gain = jnp.where(candidates > 0, jnp.asarray(self.list_gain)[batch.row], 0.0)
        log_z = losses.log_partition(vectors, table, self.chunk_size)
        label_score = (gain * scoring.candidate_scores(vectors, embedding_lookup(table, candidates))).sum(-1)
        if self.smoothing:
            mean_score = vectors[:, 0] @ table[1:].mean(0, dtype=vectors.dtype)
            label_score = (1 - self.smoothing) * label_score + self.smoothing * gain.sum(-1) * mean_score
        cross_entropy = log_z * gain.sum(-1) - label_score
        bias = vectors[:, 0, -2]
        excess = bias + jax.lax.stop_gradient(log_z - bias) - jnp.asarray(self.log_mass)[batch.row]
        return losses.weighted_mean(cross_entropy + excess**2, batch.weight)
