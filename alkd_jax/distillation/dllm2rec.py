"""DLLM2Rec: the items of an LLM's lists are positives, weighted by position and by the student's agreement."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from alkd_jax import scoring, training
from alkd_jax.checks import check_at_least
from alkd_jax.distillation.alkdrec import ranking_examples
from alkd_jax.distillation.inputs import as_arrays, check_weight, distillation_key, fit_with_distillation
from alkd_jax.distillation.popularity_strata import item_counts
from alkd_jax.losses.reduction import weighted_mean
from alkd_jax.models import Encoder, Params
from alkd_jax.objectives import Loss, encode, in_batch_loss
from alkd_jax.ops.permutation import permuted_index
from alkd_jax.training.examples import Examples, sequences_of
from alkd_jax.types import PAD, Batch, Rankings, Sequences, Sessions

_EPSILON = 1e-8
"""Added to the weights of confidence and agreement, so that no list has the weight 0."""


def importance_weights(
    agrees: Bool[Array, "B K"],
    *,
    where: Bool[Array, "B K"] | None = None,
    distance: Float[Array, "B K"] | None = None,
    position: Float[Array, ""] | float = 0.3,
    confidence: float = 0.0,
    consistency: Float[Array, ""] | float = 0.1,
) -> Float[Array, "B K"]:
    """``w = normalize(γ_p w^p + γ_c w^c + γ_o w^o)``, without gradient.

    ``w^p_r = exp(−r) / Σ``; ``w^c_r = (exp(−q_r) + 1e-8) / Σ``; ``w^o_r = [the student's top K has the item] + 1e-8``,
    which is not normalized. ALKDRec leaves the confidence out; the authors of DLLM2Rec use γ_c = 0.5.

    Args:
        agrees: True for the items of the list that are also in the student's top K; see :func:`agreement`.
        where: True at positions that hold an item; default all.
        distance: q, the distance between the LLM's text and the item; needed where ``confidence`` is not 0.
        position: γ_p.
        confidence: γ_c.
        consistency: γ_o.

    Returns:
        ``[B, K]`` weights, which sum to 1 over a list and are 0 in an empty one.

    Raises:
        ValueError: ``confidence`` is not 0 and there is no ``distance``.

    Reference:
        Cui et al., Distillation matters: empowering sequential recommenders to match the performance of large language
        models, RecSys 2024; Du et al., ALKDRec, AAAI 2025, appendix C.
    """
    if confidence and distance is None:
        raise ValueError(f"confidence is {confidence} and distance is None; expected a distance for every item")
    where = jnp.ones(agrees.shape, bool) if where is None else where

    def normalize(values: Float[Array, "B K"]) -> Float[Array, "B K"]:
        values = jnp.where(where, values, 0.0)
        total = values.sum(-1, keepdims=True)
        return values / jnp.where(total > 0, total, 1.0)

    rank = jnp.arange(1, agrees.shape[1] + 1, dtype=jnp.float32)
    # exp(1 − r) in place of exp(−r): the constant factor cancels, and larger numbers underflow later.
    weights = position * normalize(jnp.broadcast_to(jnp.exp(1.0 - rank)[None], agrees.shape))
    if distance is not None:
        weights += confidence * normalize(jnp.exp(-distance) + _EPSILON)
    weights += consistency * (agrees + _EPSILON)
    return jax.lax.stop_gradient(normalize(weights))


def agreement(all_scores: Float[Array, "B V1"], list_items: Int[Array, "B K"]) -> Bool[Array, "B K"]:
    """Finds the items of each list that are in the student's top K of the catalogue; padding, column 0, is left out.

    Args:
        all_scores: the student's scores of the whole catalogue.
        list_items: the LLM's lists.
    """
    list_scores = jnp.take_along_axis(all_scores, list_items, axis=1)
    # Counting takes one pass and stores nothing; sorting the catalogue would take most of a step's time.
    num_above = (all_scores[:, None, 1:] > list_scores[:, :, None]).sum(-1)
    return num_above < list_items.shape[1]


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


@functools.lru_cache(maxsize=64)
def ranking_objective(
    model: Encoder, student_loss: Loss, *, list_batch: int | None = None, robust: bool = False
) -> Loss:
    """``L_rd = Σ_r mean_b w_br (l(b, c_br) + α l^D(b, c_br))``: the student's loss with every item of a list as target.

    The pairs of session and item are the rows of a batch with weights w, so that the student's loss takes the mean.
    ``batch.loss_inputs["distillation"]`` holds "lists": "items" ``[M, L]``, "mask", "session" ``[M]`` and "list_items"
    ``[M, K]``, 0 in short lists; "position" and "consistency", see :func:`importance_weights`. With ``robust``,
    ``batch.loss_inputs["robust"]`` holds "weight" (α), "beta" and "popularity".

    Args:
        model: the student's backbone.
        student_loss: the student's own loss l, a mean weighted by ``batch.weight``.
        list_batch: number of lists sampled for a step; None takes those of ``batch.row``.
        robust: add the distributionally robust loss l^D.
    """

    def loss(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        distillation_inputs = batch.loss_inputs["distillation"]
        sample_key, encode_key, loss_key = jax.random.split(distillation_key(key), 3)
        if list_batch is None:
            rows, valid = batch.row, (batch.weight > 0).astype(batch.weight.dtype)
        else:
            num_lists = distillation_inputs["lists"]["session"].shape[0]
            rows = permuted_index(sample_key, jnp.arange(min(list_batch, num_lists)), num_lists)
            valid = jnp.ones(rows.shape[0])
        lists = jax.tree.map(lambda array: array[rows], distillation_inputs["lists"])
        list_items = lists["list_items"]
        table = model.apply(params, method="item_embeddings")
        sessions = Batch(
            items=lists["items"],
            mask=lists["mask"],
            session=lists["session"],
            target=list_items[:, 0],
            weight=valid,
            row=rows,
            step=batch.step,
            loss_inputs=batch.loss_inputs,
        )
        all_scores = scoring.scores(encode(model, params, sessions, encode_key), table)
        weights = valid[:, None] * importance_weights(
            agreement(jax.lax.stop_gradient(all_scores), list_items),
            where=list_items != PAD,
            position=distillation_inputs["position"],
            consistency=distillation_inputs["consistency"],
        )
        repeat = functools.partial(jnp.repeat, repeats=list_items.shape[1], axis=0)
        pairs = Batch(
            items=repeat(sessions.items),
            mask=repeat(sessions.mask),
            session=repeat(sessions.session),
            target=list_items.ravel(),
            weight=weights.ravel(),
            row=repeat(rows),
            step=batch.step,
            loss_inputs=batch.loss_inputs,
        )
        value = student_loss(params, pairs, loss_key)
        if robust:
            robust_losses = _robust_losses(batch, all_scores, list_items)
            value += batch.loss_inputs["robust"]["weight"] * weighted_mean((weights * robust_losses).sum(1), valid)
        return value

    return loss


@functools.lru_cache(maxsize=64)
def robust_objective(model: Encoder, student_loss: Loss) -> Loss:
    """``L_student + α mean_b l^D(b, y_b)``: the student's loss with the distributionally robust loss added.

    Args:
        model: the student's backbone.
        student_loss: the student's own loss; ``batch.loss_inputs["robust"]`` is as in :func:`ranking_objective`.
    """

    def loss(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        table = model.apply(params, method="item_embeddings")
        all_scores = scoring.scores(encode(model, params, batch, key), table)
        robust_losses = _robust_losses(batch, all_scores, batch.target[:, None])
        return student_loss(params, batch, key) + batch.loss_inputs["robust"]["weight"] * weighted_mean(
            robust_losses[:, 0], batch.weight
        )

    return loss


def _robust_losses(batch: Batch, all_scores: Float[Array, "B V1"], target: Int[Array, "B K"]) -> Float[Array, "B K"]:
    robust = batch.loss_inputs["robust"]
    return robust_loss(all_scores, target, robust["popularity"], beta=robust["beta"])


def sessions_with_lists(rankings: Rankings, train: Sessions, length: int) -> tuple[dict[str, np.ndarray], Examples]:
    """Joins the lists with the inputs of their sessions; empty lists are left out.

    Args:
        rankings: lists for training sessions.
        train: the training sessions.
        length: K, the number of items taken from each list.

    Returns:
        The "lists" of :func:`ranking_objective`, and an example for each list, whose target is its first item.

    Raises:
        ValueError: all lists are empty, or one belongs to no training session.
    """
    is_nonempty = np.asarray(rankings.mask)[:, 0]
    if not is_nonempty.any():
        raise ValueError("rankings holds no items; expected a list that is not empty")
    rankings = rankings.take(is_nonempty)
    items, mask = np.asarray(rankings.items), np.asarray(rankings.mask)
    first_items = Rankings(np.asarray(rankings.session_id), items[:, :1], mask[:, :1])
    examples = ranking_examples(first_items, train, bounds=(1,))
    rows = np.asarray(examples.session)
    lists = {
        "items": np.asarray(train.items)[rows],
        "mask": np.asarray(train.mask)[rows],
        "session": rows,
        "list_items": np.where(mask, items, PAD)[:, :length].astype(np.int32),
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
    student_params: Params | None = None,
    length: int = 10,
    position: float = 0.3,
    consistency: float = 0.1,
    list_batch: int = 256,
    robust: float = 0.0,
    beta: float = 1.0,
    sequences: Sequences | None = None,
    loss: Loss | None = None,
    loss_inputs: Mapping[str, Any] | None = None,
    **options: Any,
) -> training.FitResult:
    """Trains a student with its own loss and with an LLM's lists for some of the training sessions.

    The method is as ALKDRec simplifies DLLM2Rec: there are few lists, no confidence, and no text embeddings, because
    the LLM does not return them.

    Args:
        key: a JAX key; the function consumes it. The same key trains the plain student.
        model: the student's backbone.
        rankings: the LLM's lists; in the paper they are those of 500 uniformly sampled sessions.
        train: the training sessions.
        validation: the sessions that decide when training stops.
        weight: λ of L_rd, at least 0; the default is the authors', their published command has 0.7.
        student_params: a trained student's parameters, with a leading seed axis, that are fine-tuned on the lists
            alone, as ALKDRec's are; by default a new student learns from lists and sessions together.
        length: K, the number of items taken from each list; ALKDRec's lists have 25.
        position: γ_p of :func:`importance_weights`.
        consistency: γ_o of :func:`importance_weights`.
        list_batch: number of lists sampled for a step, without replacement.
        robust: α, at least 0, of the distributionally robust loss of lists and sessions; the authors' default is 1.
        beta: β of :func:`robust_loss`.
        sequences: the training sessions at full length, from which the popularity in the robust loss is counted; by
            default the items that ``train`` holds.
        loss: the student's own loss, a mean weighted by ``batch.weight``; default in-batch BPR.
        loss_inputs: inputs of the student's own loss, which it reads from ``batch.loss_inputs``.
        **options: further options of :func:`alkd_jax.training.fit`.

    Returns:
        The trained student.

    Raises:
        ValueError: an option is out of its range, all lists are empty, a list belongs to no training session, or as in
            :func:`alkd_jax.training.fit`.

    Reference:
        Cui et al., Distillation matters, RecSys 2024; Du et al., ALKDRec, AAAI 2025, appendix C.
    """
    check_at_least(1, length=length, list_batch=list_batch)
    check_weight(robust)
    lists, examples = sessions_with_lists(rankings, train, length)
    distillation_inputs = {"lists": lists, "weight": weight, "position": position, "consistency": consistency}
    student_loss, is_robust = in_batch_loss(model) if loss is None else loss, robust > 0
    if is_robust:
        counts = item_counts(sequences_of(train) if sequences is None else sequences, model.num_items)
        popularity = robust_popularity(jnp.asarray(counts))
        loss_inputs = {
            **(loss_inputs or {}),
            "robust": as_arrays({"weight": robust, "beta": beta, "popularity": popularity}),
        }
    if student_params is not None:
        loss = ranking_objective(model, student_loss, robust=is_robust)  # type: ignore[arg-type]
        loss_inputs = {**(loss_inputs or {}), "distillation": as_arrays(distillation_inputs)}
        options |= {"initial": student_params, "examples": examples, "loss": loss, "loss_inputs": loss_inputs}
        return training.fit(key, model, train, validation, **options)
    list_batch = min(list_batch, len(lists["session"]))
    distillation_loss = ranking_objective(model, student_loss, list_batch=list_batch, robust=is_robust)  # type: ignore[arg-type]
    return fit_with_distillation(
        key,
        model,
        train,
        validation,
        distillation_loss,
        distillation_inputs,
        loss=robust_objective(model, student_loss) if is_robust else student_loss,  # type: ignore[arg-type]
        loss_inputs=loss_inputs,
        **options,
    )
