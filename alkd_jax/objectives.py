"""Training objectives: a loss bound to a backbone, in the form that ``fit`` takes.

Equal arguments return the same function object, so that a second training reuses the first one's compilation. What
differs from run to run (a sampler, frequencies, lists) is passed in ``batch.loss_inputs``, not through the function.
"""

import dataclasses
import functools
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alkd_jax import losses, scoring
from alkd_jax.checks import check_at_least, check_one_of
from alkd_jax.models import Encoder, Params
from alkd_jax.ops import lookup
from alkd_jax.samplers import Sampler
from alkd_jax.types import Batch


@runtime_checkable
class Loss(Protocol):
    """``loss(params, batch, key)``; the key is for dropout and sampled negatives."""

    def __call__(self, params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """Returns the mean loss of a batch."""
        ...


def encode(model: Encoder, params: Params, batch: Batch, key: jax.Array) -> Float[Array, "B *L D"]:
    """Encodes a batch with dropout on.

    Args:
        model: a backbone.
        params: its parameters; further collections are ignored.
        batch: the batch to encode.
        key: a JAX key for dropout.
    """
    return model.apply(params, batch.items, batch.mask, train=True, rngs={"dropout": key})


@dataclasses.dataclass(frozen=True)
class InBatchLoss:
    """In-batch BPR of one backbone; see :func:`in_batch_loss`.

    Attributes:
        model: a backbone.
        released: whether to compute the form of the authors' released code.
    """

    model: Encoder
    released: bool = False

    def __call__(self, params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """Returns the mean loss of a batch."""
        vectors = encode(self.model, params, batch, key)
        targets = lookup.embedding_lookup(self.model.apply(params, method="item_embeddings"), batch.target)
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
        self, params: Params, rows: dict[str, Float[Array, "..."]], batch: Batch, key: jax.Array
    ) -> Float[Array, ""]:
        """Computes the loss from rows of the item tables, so that it can be differentiated with respect to these.

        Args:
            params: the backbone's parameters; its item tables are not read.
            rows: the rows at :meth:`table_ids`, by the table's name.
            batch: the batch.
            key: a JAX key for dropout.
        """
        vectors = self.model.apply(
            params, rows["input_embedding"], batch.mask, train=True, rngs={"dropout": key}, method="encode_rows"
        )
        return losses.fused_in_batch_bpr(
            vectors, rows["output_embedding"], batch.target, batch.session, batch.weight, self.released
        )


@functools.lru_cache(maxsize=64)
def in_batch_loss(model: Encoder, *, released: bool = False) -> InBatchLoss:
    """In-batch BPR, the paper's loss. Rows of the same session are not negatives of each other unless ``released``.

    Args:
        model: a backbone.
        released: the form of the authors' released code, see :func:`alkd_jax.losses.in_batch_bpr`.
    """
    return InBatchLoss(model, released)


@functools.lru_cache(maxsize=64)
def in_batch_softmax(model: Encoder) -> Loss:
    """Softmax cross-entropy with the other rows' targets as negatives, corrected for how often they are targets.

    ``batch.loss_inputs["log_frequency"]`` holds log q, see :func:`alkd_jax.samplers.log_frequency`. Rows with the same
    target, or of the same session, are not negatives of each other.

    Args:
        model: a backbone.

    Reference:
        Yi et al., Sampling-bias-corrected neural modeling, RecSys 2019.
    """

    def loss(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        vectors = encode(model, params, batch, key)
        targets = lookup.embedding_lookup(model.apply(params, method="item_embeddings"), batch.target)
        log_prob = jnp.asarray(batch.loss_inputs["log_frequency"])[batch.target]
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

    return loss


@functools.lru_cache(maxsize=64)
def full_softmax(model: Encoder, *, chunk_size: int | None = None) -> Loss:
    """Softmax cross-entropy over the whole catalogue, see :func:`alkd_jax.losses.full_softmax`.

    Args:
        model: a backbone.
        chunk_size: items scored at a time; None holds all ``[B, V]`` scores.
    """

    def loss(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        vectors = encode(model, params, batch, key)
        table = model.apply(params, method="item_embeddings")
        return losses.full_softmax(vectors, table, batch.target, weight=batch.weight, chunk_size=chunk_size)

    return loss


@functools.lru_cache(maxsize=64)
def distilled_softmax(model: Encoder, *, chunk_size: int | None = None) -> Loss:
    """:func:`full_softmax` with a label that is a mixture of the target and a teacher's list.

    ``L = mean_b [log Z_b − (1 − λ) s_b,target − λ Σ_k g_bk s_bk / Σ_k g_bk]`` with λ in
    ``batch.loss_inputs["list_share"]`` and the lists of :func:`listwise_loss`. For a row whose gains are all 0, λ is 0.

    Args:
        model: a backbone.
        chunk_size: items scored at a time; None holds all ``[B, V]`` scores.

    Reference:
        Hinton et al., Distilling the knowledge in a neural network, 2015, with soft labels restricted to a list.
    """

    def loss(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        vectors = encode(model, params, batch, key)
        table = model.apply(params, method="item_embeddings")
        listed = jnp.asarray(batch.loss_inputs["list_items"])[batch.row]
        gain = jnp.where(listed > 0, jnp.asarray(batch.loss_inputs["list_gain"])[batch.row], 0.0)
        total = gain.sum(-1)
        list_scores = scoring.candidate_scores(vectors, lookup.embedding_lookup(table, listed))
        list_score = (gain * list_scores).sum(-1) / jnp.where(total > 0, total, 1.0)
        positive = scoring.candidate_scores(vectors, lookup.embedding_lookup(table, batch.target)[:, None])[:, 0]
        share = jnp.where(total > 0, batch.loss_inputs["list_share"], 0.0)
        label_score = (1 - share) * positive + share * list_score
        return losses.weighted_mean(losses.log_partition(vectors, table, chunk_size) - label_score, batch.weight)

    return loss


@functools.lru_cache(maxsize=64)
def self_normalized_softmax(model: Encoder, *, smoothing: float = 0.0, chunk_size: int | None = None) -> Loss:
    """Full softmax with a teacher's list as label, and a penalty that draws log Z to a given value.

    ``L = mean_b [log Z_b − (1 − ε) Σ_k g_bk s_bk − ε mean_v s_bv + (a_b + stop(log Z_b − a_b) − log m_b)²]``

    Each input holds one item, whose bias a adds to all its scores alike. The softmax does not depend on a, so the
    squared term alone determines it: it makes exp(score) an unnormalized probability with sum m. The log-sum-exp of a
    session's items then mixes their probabilities in proportion to m.

    The lists are those of :func:`listwise_loss`, with gains that sum to 1; log m is
    ``batch.loss_inputs["log_mass"]``, ``[E]``.

    Args:
        model: a late-interaction backbone.
        smoothing: ε in [0, 1), the share of the label that is uniform over the catalogue.
        chunk_size: items scored at a time; None holds all ``[B, V]`` scores.

    Raises:
        ValueError: ``smoothing`` is out of range.

    Reference:
        Devlin et al., Fast and robust neural network joint models, ACL 2014, self-normalization; Szegedy et al.,
        Rethinking the Inception architecture, CVPR 2016, label smoothing.
    """
    if not 0.0 <= smoothing < 1.0:
        raise ValueError(f"smoothing is {smoothing}; expected at least 0 and below 1")

    def loss(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        vectors = encode(model, params, batch, key)
        table = model.apply(params, method="item_embeddings")
        listed = jnp.asarray(batch.loss_inputs["list_items"])[batch.row]
        gain = jnp.where(listed > 0, jnp.asarray(batch.loss_inputs["list_gain"])[batch.row], 0.0)
        log_z = losses.log_partition(vectors, table, chunk_size)
        label_score = (gain * scoring.candidate_scores(vectors, lookup.embedding_lookup(table, listed))).sum(-1)
        if smoothing:
            mean_score = vectors[:, 0] @ table[1:].mean(0)
            label_score = (1 - smoothing) * label_score + smoothing * gain.sum(-1) * mean_score
        cross_entropy = log_z * gain.sum(-1) - label_score
        bias = vectors[:, 0, -2]
        excess = bias + jax.lax.stop_gradient(log_z - bias) - jnp.asarray(batch.loss_inputs["log_mass"])[batch.row]
        return losses.weighted_mean(cross_entropy + excess**2, batch.weight)

    return loss


@functools.lru_cache(maxsize=64)
def sampled_loss(model: Encoder, kind: str, *, num_negatives: int = 1) -> Loss:
    """BPR, binary cross-entropy or softmax with negatives that are sampled at every step.

    ``batch.loss_inputs["sampler"]`` is a :class:`alkd_jax.samplers.Sampler`. A sampled item that is the row's target or
    in its input is ignored. The softmax weights each sampled item by ``1 / (C q_v)`` and the target by 1, so that its
    partition function tends to that of the whole catalogue as C grows.

    Args:
        model: a backbone.
        kind: "bpr", "bce" or "softmax".
        num_negatives: C, the number of negatives sampled for each row.

    Raises:
        ValueError: the kind is unknown or ``num_negatives`` is below 1.

    Reference:
        Bengio and Senécal, Adaptive importance sampling, 2008; Khrylchenko et al., Correcting the logQ correction,
        RecSys 2025.
    """
    check_one_of("kind", kind, ("bpr", "bce", "softmax"))
    check_at_least(1, num_negatives=num_negatives)

    def loss(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        sampler: Sampler = batch.loss_inputs["sampler"]
        dropout_key, sampling_key = jax.random.split(key)
        vectors = encode(model, params, batch, dropout_key)
        table = model.apply(params, method="item_embeddings")
        sampled = sampler.draw(sampling_key, (batch.target.shape[0], num_negatives))
        is_unseen = (sampled != batch.target[:, None]) & (sampled[:, :, None] != batch.items[:, None, :]).all(-1)
        positive = scoring.candidate_scores(vectors, lookup.embedding_lookup(table, batch.target)[:, None])[:, 0]
        negative = scoring.candidate_scores(vectors, lookup.embedding_lookup(table, sampled))
        if kind == "softmax":
            return losses.sampled_softmax(
                positive,
                negative,
                log_prob_positive=jnp.zeros_like(positive),
                log_prob_negative=sampler.log_prob[sampled] + jnp.log(float(num_negatives)),
                where=is_unseen,
                weight=batch.weight,
            )
        pairwise = losses.sampled_bpr if kind == "bpr" else losses.binary_cross_entropy
        return pairwise(positive, negative, weight=batch.weight, where=is_unseen.astype(positive.dtype))

    return loss


@functools.lru_cache(maxsize=64)
def listwise_loss(model: Encoder) -> Loss:
    """Softmax cross-entropy over a teacher's list, see :func:`alkd_jax.losses.listwise_softmax`.

    ``batch.loss_inputs["list_items"]`` and ``batch.loss_inputs["list_gain"]``, ``[E, K]`` both, hold one list for each
    example; a place with gain 0 or item 0 is ignored.

    Args:
        model: a backbone.
    """

    def loss(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        vectors = encode(model, params, batch, key)
        listed = jnp.asarray(batch.loss_inputs["list_items"])[batch.row]
        gain = jnp.asarray(batch.loss_inputs["list_gain"])[batch.row]
        table = model.apply(params, method="item_embeddings")
        scores = scoring.candidate_scores(vectors, lookup.embedding_lookup(table, listed))
        return losses.listwise_softmax(scores, gain, where=listed > 0, weight=batch.weight)

    return loss
