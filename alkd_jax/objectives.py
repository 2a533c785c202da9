"""Training objectives: a loss bound to a backbone, as ``fit`` takes it.

Equal arguments give the same function object, so that a second training reuses the first one's compilation. What varies
from run to run (a sampler, frequencies, lists) comes in ``batch.aside``, not through the function.
"""

import dataclasses
import functools
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alkd_jax import losses, scoring
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
        params: its parameters; further collections beside its own are left alone.
        batch: what to encode.
        key: for dropout.
    """
    return model.apply(params, batch.items, batch.mask, train=True, rngs={"dropout": key})


@dataclasses.dataclass(frozen=True)
class InBatchLoss:
    """In-batch BPR of one backbone; see :func:`in_batch_loss`.

    Attributes:
        model: a backbone.
        released: the authors' form.
    """

    model: Encoder
    released: bool = False

    def __call__(self, params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """Returns the mean loss of a batch."""
        vectors = encode(self.model, params, batch, key)
        targets = lookup.embedding_lookup(self.model.apply(params, method="item_embeddings"), batch.target)
        if vectors.ndim > 2:
            scores = scoring.logsumexp_pool(vectors @ targets.T)
            apart = batch.session[:, None] != batch.session[None, :]
            return losses.in_batch_bpr(
                scores, batch.target, weight=batch.weight, negatives=apart, released=self.released
            )
        return losses.fused_in_batch_bpr(vectors, targets, batch.target, batch.session, batch.weight, self.released)

    def places(self, batch: Batch) -> dict[str, Int[Array, "..."]]:
        """Which rows of which tables it reads; none where it needs more of them."""
        separate = getattr(self.model, "separate_tables", False)
        return {"input_embedding": batch.items, "output_embedding": batch.target} if separate else {}

    def of_rows(
        self, params: Params, rows: dict[str, Float[Array, "..."]], batch: Batch, key: jax.Array
    ) -> Float[Array, ""]:
        """The loss from the rows at :meth:`places`, the tables themselves left alone."""
        vectors = self.model.apply(
            params, rows["input_embedding"], batch.mask, train=True, rngs={"dropout": key}, method="read"
        )
        return losses.fused_in_batch_bpr(
            vectors, rows["output_embedding"], batch.target, batch.session, batch.weight, self.released
        )


@functools.lru_cache(maxsize=64)
def in_batch_loss(model: Encoder, *, released: bool = False) -> InBatchLoss:
    """In-batch BPR, the paper's loss; rows of one session are no negatives of each other unless ``released``.

    Args:
        model: a backbone.
        released: the authors' form, see :func:`alkd_jax.losses.in_batch_bpr`.
    """
    return InBatchLoss(model, released)


@functools.lru_cache(maxsize=64)
def in_batch_softmax(model: Encoder) -> Loss:
    """Softmax cross-entropy with the other rows' targets as negatives, corrected for how often they are targets.

    ``batch.aside["log_frequency"]`` holds log q, see :func:`alkd_jax.samplers.log_frequency`. Rows of the same target,
    or of the same session, are no negatives of each other.

    Args:
        model: a backbone.

    Reference:
        Yi et al., Sampling-bias-corrected neural modeling, RecSys 2019.
    """

    def loss(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        vectors = encode(model, params, batch, key)
        targets = lookup.embedding_lookup(model.apply(params, method="item_embeddings"), batch.target)
        log_chance = jnp.asarray(batch.loss_inputs["log_frequency"])[batch.target]
        scores = scoring.logsumexp_pool(vectors @ targets.T)
        differs = (batch.target[:, None] != batch.target[None, :]) & (batch.session[:, None] != batch.session[None, :])
        return losses.sampled_softmax(
            jnp.diagonal(scores),
            scores,
            log_chance_positive=log_chance,
            log_chance_negative=jnp.broadcast_to(log_chance, scores.shape),
            where=differs & (batch.weight > 0)[None, :],
            weight=batch.weight,
        )

    return loss


@functools.lru_cache(maxsize=64)
def full_softmax(model: Encoder, *, chunk_size: int | None = None) -> Loss:
    """Softmax cross-entropy over the whole catalogue.

    Args:
        model: a backbone.
        chunk_size: items scored at a time; None holds all ``[B, V]`` scores.
    """

    def loss(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        vectors = encode(model, params, batch, key)
        table = model.apply(params, method="item_embeddings")
        own = scoring.candidate_scores(vectors, lookup.embedding_lookup(table, batch.target)[:, None])[:, 0]
        return losses.weighted_mean(_log_partition(vectors, table, chunk_size) - own, batch.weight)

    return loss


@functools.lru_cache(maxsize=64)
def distilled_softmax(model: Encoder, *, chunk_size: int | None = None) -> Loss:
    """:func:`full_softmax` towards the target and a teacher's list together.

    ``L = mean_b [log Z_b − (1 − λ) s_b,target − λ Σ_k g_bk s_bk / Σ_k g_bk]``, λ in ``batch.aside["list_share"]``, the
    lists as in :func:`listwise_loss`. A row without gain learns its target alone.

    Args:
        model: a backbone.
        chunk_size: items scored at a time; None holds all ``[B, V]`` scores.

    Reference:
        Hinton et al., Distilling the knowledge in a neural network, 2015, with soft labels cut to a list.
    """

    def loss(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        vectors = encode(model, params, batch, key)
        table = model.apply(params, method="item_embeddings")
        listed = jnp.asarray(batch.loss_inputs["list_items"])[batch.row]
        gain = jnp.where(listed > 0, jnp.asarray(batch.loss_inputs["list_gain"])[batch.row], 0.0)
        total = gain.sum(-1)
        of_listed = scoring.candidate_scores(vectors, lookup.embedding_lookup(table, listed))
        taught = (gain * of_listed).sum(-1) / jnp.where(total > 0, total, 1.0)
        own = scoring.candidate_scores(vectors, lookup.embedding_lookup(table, batch.target)[:, None])[:, 0]
        share = jnp.where(total > 0, batch.loss_inputs["list_share"], 0.0)
        wanted = (1 - share) * own + share * taught
        return losses.weighted_mean(_log_partition(vectors, table, chunk_size) - wanted, batch.weight)

    return loss


@functools.lru_cache(maxsize=64)
def self_normalized_softmax(model: Encoder, *, smoothing: float = 0.0, chunk_size: int | None = None) -> Loss:
    """Full softmax towards a teacher's list, with the sum of all scores drawn to a given mass.

    ``L = mean_b [log Z_b − (1 − ε) Σ_k g_bk s_bk − ε mean_v s_bv + (a_b + stop(log Z_b − a_b) − log m_b)²]``, for
    inputs of one item, whose bias a adds to all its scores alike. The softmax cannot see a; the square makes exp(score)
    a measure of mass m, so that a session's scores mix its items' in proportion to what each has to say.

    Lists as in :func:`listwise_loss`, with gains that sum to 1; log m in ``batch.aside["log_mass"]``, ``[E]``.

    Args:
        model: late interaction.
        smoothing: ε in [0, 1), share of the label that goes to all items alike.
        chunk_size: items scored at a time; None holds all ``[B, V]`` scores.

    Raises:
        ValueError: smoothing is out of range.

    Reference:
        Devlin et al., Fast and robust neural network joint models, ACL 2014, self-normalisation; Szegedy et al.,
        Rethinking the Inception architecture, CVPR 2016, label smoothing.
    """
    if not 0.0 <= smoothing < 1.0:
        raise ValueError(f"smoothing is {smoothing}; expected in [0, 1)")

    def loss(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        vectors = encode(model, params, batch, key)
        table = model.apply(params, method="item_embeddings")
        listed = jnp.asarray(batch.loss_inputs["list_items"])[batch.row]
        gain = jnp.where(listed > 0, jnp.asarray(batch.loss_inputs["list_gain"])[batch.row], 0.0)
        log_z = _log_partition(vectors, table, chunk_size)
        wanted = (gain * scoring.candidate_scores(vectors, lookup.embedding_lookup(table, listed))).sum(-1)
        if smoothing:
            wanted = (1 - smoothing) * wanted + smoothing * gain.sum(-1) * (vectors[:, 0] @ table[1:].mean(0))
        taught = log_z * gain.sum(-1) - wanted
        bias = vectors[:, 0, -2]
        excess = bias + jax.lax.stop_gradient(log_z - bias) - jnp.asarray(batch.loss_inputs["log_mass"])[batch.row]
        return losses.weighted_mean(taught + excess**2, batch.weight)

    return loss


def _log_partition(vectors: Float[Array, "B *L D"], table: Float[Array, "V D"], chunk_size: int | None) -> Array:
    """``log Σ_{v ≥ 1} exp(score(b, v))``; of several vectors, the soft maximum of theirs, since sums commute."""
    flat = vectors.reshape(-1, vectors.shape[-1])
    log_z = losses.log_partition(flat, table, min(chunk_size or table.shape[0], table.shape[0]))
    return log_z if vectors.ndim == 2 else jax.nn.logsumexp(log_z.reshape(vectors.shape[:-1]), axis=1)


@functools.lru_cache(maxsize=64)
def sampled_loss(model: Encoder, kind: str, *, num_negatives: int = 1) -> Loss:
    """BPR, BCE or softmax against items drawn afresh at every step.

    ``batch.aside["sampler"]`` is a :class:`alkd_jax.samplers.Sampler`. Drawn items that are the row's target, or in its
    input, count for nothing. The softmax weighs each draw by ``1 / (C q_v)`` and the target by 1, so that its partition
    function tends to the whole catalogue's as C grows.

    Args:
        model: a backbone.
        kind: "bpr", "bce" or "softmax".
        num_negatives: C, drawn for each row.

    Raises:
        ValueError: the kind is unknown or ``num_negatives`` below 1.

    Reference:
        Bengio and Senécal, Adaptive importance sampling, 2008; Khrylchenko et al., Correcting the logQ correction,
        RecSys 2025.
    """
    if kind not in ("bpr", "bce", "softmax"):
        raise ValueError(f"kind is {kind!r}; expected 'bpr', 'bce' or 'softmax'")
    if num_negatives < 1:
        raise ValueError(f"num_negatives is {num_negatives}; expected at least 1")

    def loss(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        sampler: Sampler = batch.loss_inputs["sampler"]
        dropout_key, draw_key = jax.random.split(key)
        vectors = encode(model, params, batch, dropout_key)
        table = model.apply(params, method="item_embeddings")
        drawn = sampler.draw(draw_key, (batch.target.shape[0], num_negatives))
        fresh = (drawn != batch.target[:, None]) & (drawn[:, :, None] != batch.items[:, None, :]).all(-1)
        positive = scoring.candidate_scores(vectors, lookup.embedding_lookup(table, batch.target)[:, None])[:, 0]
        negative = scoring.candidate_scores(vectors, lookup.embedding_lookup(table, drawn))
        if kind == "softmax":
            return losses.sampled_softmax(
                positive,
                negative,
                log_chance_positive=jnp.zeros_like(positive),
                log_chance_negative=sampler.log_prob[drawn] + jnp.log(float(num_negatives)),
                where=fresh,
                weight=batch.weight,
            )
        pairwise = losses.sampled_bpr if kind == "bpr" else losses.binary_cross_entropy
        return pairwise(positive, negative, weight=batch.weight, where=fresh.astype(positive.dtype))

    return loss


@functools.lru_cache(maxsize=64)
def listwise_loss(model: Encoder) -> Loss:
    """Softmax cross-entropy over a teacher's list, the row's own list among ``batch.aside``'s.

    ``batch.aside["list_items"]`` and ``batch.aside["list_gain"]``, both ``[E, K]``, hold one list an example; a gain of
    0 leaves a place out. See :func:`alkd_jax.losses.listwise_softmax`.

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
