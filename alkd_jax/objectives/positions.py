"""Losses of causal backbones: one pass over a session predicts the next item after every position.

Each is the sum over positions of weight and loss: the weights of a batch sum to 1 on average, so that every target of
the training data counts alike, whatever the lengths of the sessions that it is batched with.
"""

from typing import ClassVar

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alkd_jax import losses
from alkd_jax.checks import check_count, check_one_of
from alkd_jax.models import Encoder, Params
from alkd_jax.models.encoder import times_for
from alkd_jax.objectives.base import BoundLoss, Objective
from alkd_jax.ops.lookup import embedding_lookup
from alkd_jax.ops.precision import at_least_float32
from alkd_jax.ops.products import position_scores
from alkd_jax.samplers import Sampler
from alkd_jax.types import Batch

NEGATIVES = ("position", "session", "batch")
"""What has sampled negatives of its own."""


@flax.struct.dataclass
class PositionSoftmax(BoundLoss):
    """Softmax cross-entropy over the whole catalogue, of every position, see :func:`alkd_jax.losses.full_softmax`.

    Attributes:
        chunk_size: items scored at a time; None holds all ``[B L, V]`` scores.
    """

    chunk_size: int | None = flax.struct.field(pytree_node=False, default=None)
    reads_positions: ClassVar[bool] = True

    def __call__(self, params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """Returns the loss of a batch."""
        vectors, table = encode_positions(self.model, params, batch, key), self.item_embeddings(params, key)
        rows, target, weight = vectors.reshape(-1, vectors.shape[-1]), batch.target.ravel(), batch.weight.ravel()
        loss = losses.full_softmax(rows, table, target, weight=weight, chunk_size=self.chunk_size)
        return weight.sum() * loss


@flax.struct.dataclass
class PositionSampledLoss(Objective):
    """Softmax, binary cross-entropy or its generalized form, of every position, with negatives sampled at every step.

    A sampled item that is the position's target is ignored.

    Attributes:
        sampler: the distribution of negatives.
        kind: "softmax", "bce" or "gbce".
        num_negatives: C, the number of negatives of a position.
        negatives: what has negatives of its own: every "position"; every "session", whose positions share them; or the
            "batch", whose sessions share them.
        corrected: whether the softmax weights each sampled item by ``1 / (C q_v)``, so that its partition function
            tends to that of the whole catalogue as C grows; otherwise every sampled item counts once, as in eSASRec.
        calibration: t of "gbce", see :func:`alkd_jax.losses.generalized_cross_entropy`.
        num_items: V; None for the number of items of the sampler.

    Raises:
        ValueError: an option is unknown or out of range.

    Reference:
        Kang and McAuley, SASRec, ICDM 2018, "bce"; Petrov and Macdonald, gSASRec, RecSys 2023, "gbce"; Klenitskiy and
        Vasilev, RecSys 2023, and Tikhonovich et al., eSASRec, RecSys 2025, "softmax".
    """

    sampler: Sampler
    kind: str = flax.struct.field(pytree_node=False, default="softmax")
    num_negatives: int = flax.struct.field(pytree_node=False, default=256)
    negatives: str = flax.struct.field(pytree_node=False, default="position")
    corrected: bool = flax.struct.field(pytree_node=False, default=False)
    calibration: float = flax.struct.field(pytree_node=False, default=0.75)
    num_items: int | None = flax.struct.field(pytree_node=False, default=None)
    reads_positions: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Checks the options."""
        check_one_of("kind", self.kind, ("softmax", "bce", "gbce"))
        check_one_of("negatives", self.negatives, NEGATIVES)
        check_count(1, num_negatives=self.num_negatives)

    def candidates(self, batch: Batch, key: jax.Array) -> Int[Array, "B *L C"]:
        """Returns the sampled items; those of the first positions are the same whatever the length of the batch."""
        key, (num_sessions, length) = jax.random.split(key)[1], batch.target.shape
        if self.negatives == "batch":
            return self.sampler.draw(key, (1, self.num_negatives))
        shape = num_sessions, self.num_negatives
        if self.negatives == "session":
            return self.sampler.draw(key, shape)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(length))
        return jax.vmap(lambda key: self.sampler.draw(key, shape), out_axes=1)(keys)

    def on_rows(self, ids: Int[Array, " R"]) -> "Objective":
        """Returns the objective of some rows; its sampler gives their probabilities and cannot draw."""
        options = {"sampler": self.sampler.on_rows(ids), "num_items": self.catalogue_size}
        return super().on_rows(ids).replace(**options)  # type: ignore[attr-defined]

    @property
    def catalogue_size(self) -> int:
        """V, the number of items that negatives are sampled from."""
        return self.sampler.log_prob.shape[0] - 1 if self.num_items is None else self.num_items

    def loss(self, params: Params, batch: Batch, candidates: Int[Array, "B *L C"], key: jax.Array) -> Float[Array, ""]:
        """Returns the loss of a batch."""
        vectors = encode_positions(self.model, params, batch, jax.random.split(key)[0])
        table = self.item_embeddings(params, key)
        positive = jnp.einsum("bld,bld->bl", vectors, at_least_float32(embedding_lookup(table, batch.target)))
        if self.negatives == "position":
            negative = position_scores(vectors, table, candidates)
        else:
            rows = at_least_float32(embedding_lookup(table, candidates))
            equation = "bld,bcd->blc" if self.negatives == "session" else "bld,zcd->blc"
            negative, candidates = jnp.einsum(equation, vectors, rows), candidates[:, None]
        where = jnp.broadcast_to(candidates != batch.target[..., None], negative.shape)
        log_prob = jnp.zeros_like(negative)
        if self.corrected:
            log_prob += self.sampler.log_prob[candidates] + jnp.log(float(self.num_negatives))
        negative, where, log_prob = (array.reshape(-1, array.shape[-1]) for array in (negative, where, log_prob))
        return batch.weight.sum() * self._mean(positive.ravel(), negative, where, log_prob, batch.weight.ravel())

    def _mean(self, positive: Array, negative: Array, where: Array, log_prob: Array, weight: Array) -> Array:
        """Returns the weighted mean over positions."""
        if self.kind == "bce":
            return losses.binary_cross_entropy(positive, negative, weight=weight, where=where.astype(negative.dtype))
        if self.kind == "gbce":
            return losses.generalized_cross_entropy(
                positive,
                negative,
                num_items=self.catalogue_size,
                calibration=self.calibration,
                weight=weight,
                where=where,
            )
        return losses.sampled_softmax(
            positive,
            negative,
            log_prob_positive=jnp.zeros_like(positive),
            log_prob_negative=log_prob,
            where=where,
            weight=weight,
        )


def encode_positions(model: Encoder, params: Params, batch: Batch, key: jax.Array) -> Float[Array, "B L D"]:
    """Encodes every position of a batch with dropout on; returns vectors in float32.

    Args:
        model: a causal backbone.
        params: its parameters; further collections are ignored.
        batch: the batch to encode.
        key: a JAX key for dropout.
    """
    options = {"train": True, "rngs": {"dropout": key}, "method": "encode_positions"}
    inputs = batch.items, batch.mask, *times_for(model, batch.seconds)
    return at_least_float32(model.apply(params, *inputs, **options))
