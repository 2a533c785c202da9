"""DLLM2Rec: an LLM's lists as positives, weighted by position and by whether the student agrees."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from alkd_jax import scoring, training
from alkd_jax.distillation.alkdrec import list_examples
from alkd_jax.distillation.inputs import as_arrays, check_weight, fit_with_distillation, noise_key
from alkd_jax.distillation.popularity_strata import item_counts
from alkd_jax.losses.reduction import weighted_mean
from alkd_jax.models import Encoder, Params
from alkd_jax.objectives import Loss, encode, in_batch_loss
from alkd_jax.ops.permutation import permuted_index
from alkd_jax.training.examples import Examples, sequences_of
from alkd_jax.types import PAD, Batch, Rankings, Sequences, Sessions

_LEAST = 1e-8
"""Weight of an item without confidence or agreement, so that no list weighs nothing."""


def importance_weights(
    agreed: Bool[Array, "B K"],
    *,
    where: Bool[Array, "B K"] | None = None,
    distance: Float[Array, "B K"] | None = None,
    position: Float[Array, ""] | float = 0.3,
    confidence: float = 0.0,
    consistency: Float[Array, ""] | float = 0.1,
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
    own = jnp.take_along_axis(all_scores, listed, axis=1)
    # Counting is one pass that nothing is stored of; a sort of the catalogue would be most of a step's time.
    better = (all_scores[:, None, 1:] > own[:, :, None]).sum(-1)
    return better < listed.shape[1]


def robust_popularity(counts: Int[Array, " V"], *, power: float = 0.05) -> Float[Array, " V"]:
    """``((count + 1) / Σ (count + 1))^0.05`` over real items; 0 for the padding."""
    smoothed = (counts + 1.0).at[PAD].set(0.0)
    return jnp.where(smoothed > 0, (smoothed / smoothed.sum()) ** power, 0.0)


def robust_loss(
    all_scores: Float[Array, "B V"],
    target: Int[Array, "B K"],
    popularity: Float[Array, " V"],
    *,
    beta: Float[Array, ""] | float = 1.0,
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


@functools.lru_cache(maxsize=64)
def ranking_loss(model: Encoder, base: Loss, *, list_batch: int | None = None, robust: bool = False) -> Loss:
    """``L_rd = Σ_r mean_b w_br (l(b, c_br) + α l^D(b, c_br))``: the base loss with every listed item as the positive.

    With the lists as rows of a batch weighted by w, that is the base loss's own weighted mean.
    ``batch.aside["distillation"]`` holds "lists": "items" ``[M, L]``, "mask", "session" ``[M]`` and "listed" ``[M, K]``
    (0 after the last); "position" and "consistency", see :func:`importance_weights`. With ``robust``,
    ``batch.aside["robust"]`` holds "weight" (α), "beta" and "popularity".

    Args:
        model: the student's backbone.
        base: its loss, a mean by ``batch.weight``.
        list_batch: how many of the lists to draw for a step; None takes those of ``batch.row``.
        robust: add the distributionally robust loss.
    """

    def loss(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        guide = batch.loss_inputs["distillation"]
        draw_key, encode_key, base_key = jax.random.split(noise_key(key), 3)
        if list_batch is None:
            rows, counted = batch.row, (batch.weight > 0).astype(batch.weight.dtype)
        else:
            num_lists = guide["lists"]["session"].shape[0]
            rows = permuted_index(draw_key, jnp.arange(min(list_batch, num_lists)), num_lists)
            counted = jnp.ones(rows.shape[0])
        lists = jax.tree.map(lambda leaf: leaf[rows], guide["lists"])
        listed = lists["listed"]
        table = model.apply(params, method="item_embeddings")
        labelled = Batch(
            items=lists["items"],
            mask=lists["mask"],
            session=lists["session"],
            target=listed[:, 0],
            weight=counted,
            row=rows,
            step=batch.step,
            loss_inputs=batch.loss_inputs,
        )
        all_scores = scoring.scores(encode(model, params, labelled, encode_key), table)
        weights = counted[:, None] * importance_weights(
            agreement(jax.lax.stop_gradient(all_scores), listed),
            where=listed != PAD,
            position=guide["position"],
            consistency=guide["consistency"],
        )
        spread = functools.partial(jnp.repeat, repeats=listed.shape[1], axis=0)
        pairs = Batch(
            items=spread(labelled.items),
            mask=spread(labelled.mask),
            session=spread(labelled.session),
            target=listed.ravel(),
            weight=weights.ravel(),
            row=spread(rows),
            step=batch.step,
            loss_inputs=batch.loss_inputs,
        )
        value = base(params, pairs, base_key)
        if robust:
            worst = _worst(batch, all_scores, listed)
            value += batch.loss_inputs["robust"]["weight"] * weighted_mean((weights * worst).sum(1), counted)
        return value

    return loss


@functools.lru_cache(maxsize=64)
def robust_base(model: Encoder, base: Loss) -> Loss:
    """``L_base + α mean_b l^D(b, y_b)``; what it needs as in :func:`ranking_loss`."""

    def loss(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        table = model.apply(params, method="item_embeddings")
        worst = _worst(batch, scoring.scores(encode(model, params, batch, key), table), batch.target[:, None])
        return base(params, batch, key) + batch.loss_inputs["robust"]["weight"] * weighted_mean(
            worst[:, 0], batch.weight
        )

    return loss


def _worst(batch: Batch, all_scores: Float[Array, "B V"], target: Int[Array, "B K"]) -> Float[Array, "B K"]:
    robust = batch.loss_inputs["robust"]
    return robust_loss(all_scores, target, robust["popularity"], beta=robust["beta"])


def labelled_lists(rankings: Rankings, train: Sessions, length: int) -> tuple[dict[str, np.ndarray], Examples]:
    """The heads of the lists with their sessions, and one example a list; empty lists are left out.

    Args:
        rankings: lists for training sessions.
        train: the training sessions.
        length: K.

    Raises:
        ValueError: there is no list, or one of a session that is not a training session.
    """
    kept = np.asarray(rankings.mask)[:, 0]
    if not kept.any():
        raise ValueError("there are no lists to learn from")
    session_id, items, mask = (np.asarray(a)[kept] for a in (rankings.session_id, rankings.items, rankings.mask))
    examples = list_examples(Rankings(session_id, items[:, :1], mask[:, :1]), train, bounds=(1,))
    rows = np.asarray(examples.session)
    lists = {
        "items": np.asarray(train.items)[rows],
        "mask": np.asarray(train.mask)[rows],
        "session": rows,
        "listed": np.where(mask, items, PAD)[:, :length].astype(np.int32),
    }
    return lists, examples


def distill(
    key: jax.Array,
    model: Encoder,
    rankings: Rankings,
    train: Sessions,
    validation: Sessions,
    *,
    weight: float = 0.8,
    student: Params | None = None,
    length: int = 10,
    position: float = 0.3,
    consistency: float = 0.1,
    list_batch: int = 256,
    robust: float = 0.0,
    beta: float = 1.0,
    sequences: Sequences | None = None,
    base: Loss | None = None,
    loss_inputs: Mapping[str, Any] | None = None,
    **options: Any,
) -> training.FitResult:
    """Trains a student by its own loss and by an LLM's lists for some of the sessions.

    As ALKDRec simplifies DLLM2Rec: few lists, no confidence, and no text embeddings, which its LLM does not give.

    Args:
        key: consumed; the same key trains the plain student.
        model: the student's backbone.
        rankings: the lists; the paper's are 500, and are drawn uniformly here.
        train: the training sessions.
        validation: sessions that decide when to stop.
        weight: λ of L_rd. The authors' default; their published command has 0.7.
        student: trained parameters with a leading seed axis, to be fine-tuned on the lists alone, as ALKDRec does with
            its own; by default lists and sessions are learned together from scratch.
        length: K, how much of a list to learn; ALKDRec's have 25.
        position: γ_p.
        consistency: γ_o.
        list_batch: lists drawn for a step, without replacement.
        robust: α of the distributionally robust loss, in both terms; the authors' default is 1.
        beta: β of it.
        sequences: the training sessions uncut, for popularity there; by default as much of them as ``train`` holds.
        base: the student's own loss, a mean by ``batch.weight``; default in-batch BPR.
        loss_inputs: what the base loss finds in ``batch.aside``.
        **options: of :func:`alkd_jax.training.fit`.

    Raises:
        ValueError: as :func:`alkd_jax.training.fit`; a weight is negative, a size below 1, there are no lists, or one
            is of no training session.

    Reference:
        Cui et al., Distillation matters, RecSys 2024; Du et al., ALKDRec, AAAI 2025, appendix C.
    """
    for name, size in (("length", length), ("list_batch", list_batch)):
        if size < 1:
            raise ValueError(f"{name} is {size}; expected at least 1")
    check_weight(robust)
    lists, examples = labelled_lists(rankings, train, length)
    guide = {"lists": lists, "weight": weight, "position": position, "consistency": consistency}
    base, is_robust = in_batch_loss(model) if base is None else base, robust > 0
    if is_robust:
        counts = item_counts(sequences_of(train) if sequences is None else sequences, model.num_items)
        popularity = robust_popularity(jnp.asarray(counts))
        loss_inputs = {
            **(loss_inputs or {}),
            "robust": as_arrays({"weight": robust, "beta": beta, "popularity": popularity}),
        }
    if student is not None:
        loss = ranking_loss(model, base, robust=is_robust)  # type: ignore[arg-type]
        loss_inputs = {**(loss_inputs or {}), "distillation": as_arrays(guide)}
        options |= {"initial": student, "examples": examples, "loss": loss, "loss_inputs": loss_inputs}
        return training.fit(key, model, train, validation, **options)
    term = ranking_loss(model, base, list_batch=min(list_batch, len(lists["session"])), robust=is_robust)  # type: ignore[arg-type]
    base = robust_base(model, base) if is_robust else base  # type: ignore[arg-type]
    return fit_with_distillation(
        key, model, train, validation, term, guide, base=base, loss_inputs=loss_inputs, **options
    )
