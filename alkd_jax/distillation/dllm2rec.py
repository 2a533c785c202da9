"""DLLM2Rec: the items of an LLM's lists are positives, weighted by position and by the student's agreement."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from alkd_jax import scoring, training
from alkd_jax.checks import check_count
from alkd_jax.distillation.alkdrec import ranking_examples
from alkd_jax.distillation.method import check_positive, check_weight, distillation_key, fit_with_distillation
from alkd_jax.distillation.popularity_strata import item_counts
from alkd_jax.distillation.robust import RobustLoss, RobustTerm, robust_popularity
from alkd_jax.losses.reduction import weighted_mean
from alkd_jax.models import Encoder, Params
from alkd_jax.objectives import BoundLoss, Loss
from alkd_jax.ops.permutation import permuted_index
from alkd_jax.training.arguments import select_loss
from alkd_jax.training.examples import Examples, sequences_of
from alkd_jax.types import PAD, Batch, Rankings, Sequences, Sessions

_EPSILON = 1e-8
"""Added to the weights of confidence and agreement, so that no list has the weight 0."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of :func:`distill`.

    Attributes:
        weight: λ of L_rd, at least 0; the default is the authors', their published command has 0.7.
        length: K, the number of items taken from each list, at least 1; ALKDRec's lists have 25.
        position: γ_p of :func:`importance_weights`.
        consistency: γ_o of :func:`importance_weights`.
        list_batch: number of lists sampled for a step, without replacement, at least 1.
        robust: α, at least 0, of the distributionally robust loss of lists and sessions; the authors' default is 1.
        beta: β of :func:`alkd_jax.distillation.robust.robust_loss`, positive.
    """

    weight: float = 0.8
    length: int = 10
    position: float = 0.3
    consistency: float = 0.1
    list_batch: int = 256
    robust: float = 0.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        check_count(1, length=self.length, list_batch=self.list_batch)
        check_weight(weight=self.weight, robust=self.robust)
        check_positive(beta=self.beta)


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


@flax.struct.dataclass
class SessionLists:
    """The lists of some training sessions, M of them, with the inputs of these sessions.

    Attributes:
        session: ``[M]`` row of the session in the training sessions.
        items: ``[M, L]`` the session's input.
        mask: ``[M, L]`` True where there is an item.
        list_items: ``[M, K]`` the LLM's list, 0 in short lists.
    """

    session: Int[Array, " M"]
    items: Int[Array, "M L"]
    mask: Bool[Array, "M L"]
    list_items: Int[Array, "M K"]


@flax.struct.dataclass
class ImportanceWeightedLists(BoundLoss):
    """``L_rd = Σ_r mean_b w_br (l(b, c_br) + α l^D(b, c_br))``: the student's loss with every item of a list as target.

    The pairs of session and item are the rows of a batch with weights w, so that the student's loss takes the mean.

    Attributes:
        student: the student's own loss l, a mean weighted by ``batch.weight``.
        lists: the LLM's lists, M of them.
        position: γ_p of :func:`importance_weights`.
        consistency: γ_o of :func:`importance_weights`.
        robust: l^D and α; None leaves the term out.
        list_batch: number of lists sampled for a step, without replacement; None takes those of ``batch.row``.
    """

    student: Loss
    lists: SessionLists
    position: Float[Array, ""] | float = 0.3
    consistency: Float[Array, ""] | float = 0.1
    robust: RobustTerm | None = None
    list_batch: int | None = flax.struct.field(pytree_node=False, default=None)

    def __call__(self, params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """Returns the loss of a batch."""
        sample_key, encode_key, loss_key = jax.random.split(distillation_key(key), 3)
        if self.list_batch is None:
            rows, valid = batch.row, (batch.weight > 0).astype(batch.weight.dtype)
        else:
            num_lists = len(self.lists.session)
            rows = permuted_index(sample_key, jnp.arange(min(self.list_batch, num_lists)), num_lists)
            valid = jnp.ones(rows.shape[0])
        lists = jax.tree.map(lambda array: array[rows], self.lists)
        list_items = lists.list_items
        sessions = Batch(lists.items, lists.mask, lists.session, list_items[:, 0], valid, rows, batch.step)
        all_scores = scoring.scores(self.encode(params, sessions, encode_key), self.item_embeddings(params, encode_key))
        weights = valid[:, None] * importance_weights(
            agreement(jax.lax.stop_gradient(all_scores), list_items),
            where=list_items != PAD,
            position=self.position,
            consistency=self.consistency,
        )
        repeat = functools.partial(jnp.repeat, repeats=list_items.shape[1], axis=0)
        items, mask, session, row = map(repeat, (lists.items, lists.mask, lists.session, rows))
        pairs = Batch(items, mask, session, list_items.ravel(), weights.ravel(), row, batch.step)
        value = self.student(params, pairs, loss_key)
        if self.robust is not None:
            robust_losses = self.robust.losses(all_scores, list_items)
            value += self.robust.weight * weighted_mean((weights * robust_losses).sum(1), valid)
        return value


def sessions_with_lists(rankings: Rankings, train: Sessions, length: int) -> tuple[SessionLists, Examples]:
    """Joins the lists with the inputs of their sessions; empty lists are left out.

    Args:
        rankings: lists for training sessions.
        train: the training sessions.
        length: K, the number of items taken from each list.

    Returns:
        The lists, and an example for each, whose target is its first item.

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
    lists = SessionLists(
        session=jnp.asarray(rows),
        items=jnp.asarray(np.asarray(train.items)[rows]),
        mask=jnp.asarray(np.asarray(train.mask)[rows]),
        list_items=jnp.asarray(np.where(mask, items, PAD)[:, :length], jnp.int32),
    )
    return lists, examples


def distill(
    key: jax.Array,
    model: Encoder,
    rankings: Rankings,
    train: Sessions,
    validation: Sessions,
    *,
    options: Options = Options(),
    student_params: Params | None = None,
    sequences: Sequences | None = None,
    loss: Callable[..., Any] | None = None,
    **fit_options: Any,
) -> training.FitResult:
    """Trains a student with its own loss and with an LLM's lists for some of the training sessions.

    The method is as ALKDRec simplifies DLLM2Rec: there are few lists, no confidence, and no text embeddings, because
    the LLM does not return them. The further parameters are those of
    :class:`alkd_jax.distillation.DistillationMethod`.

    Args:
        rankings: the LLM's lists; in the paper they are those of 500 uniformly sampled sessions.
        student_params: a trained student's parameters, with a leading seed axis, that are fine-tuned on the lists
            alone, as ALKDRec's are; by default a new student learns from lists and sessions together.
        sequences: the training sessions at full length, from which the popularity in the robust loss is counted.
        loss: the student's own loss, a mean weighted by ``batch.weight``; default in-batch BPR.

    Raises:
        ValueError: all lists are empty, a list belongs to no training session, or as in
            :func:`alkd_jax.training.fit`.

    Reference:
        Cui et al., Distillation matters, RecSys 2024; Du et al., ALKDRec, AAAI 2025, appendix C.
    """
    lists, examples = sessions_with_lists(rankings, train, options.length)
    student, robust = select_loss(loss, model), None
    if options.robust > 0:
        counts = item_counts(sequences_of(train) if sequences is None else sequences, model.num_items)
        popularity = robust_popularity(jnp.asarray(counts))
        robust = RobustTerm(jnp.float32(options.robust), jnp.float32(options.beta), popularity)
    ranking_loss = ImportanceWeightedLists(
        model, student, lists, jnp.float32(options.position), jnp.float32(options.consistency), robust
    )
    if student_params is not None:
        fit_options |= {"initial": student_params, "examples": examples, "loss": ranking_loss}
        return training.fit(key, model, train, validation, **fit_options)
    return fit_with_distillation(
        key,
        model,
        train,
        validation,
        ranking_loss.replace(list_batch=min(options.list_batch, len(examples.target))),  # type: ignore[attr-defined]
        options.weight,
        loss=student if robust is None else RobustLoss(model, student, robust),
        **fit_options,
    )
