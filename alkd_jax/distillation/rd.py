"""RD, ranking distillation: the first items of the teacher's list are further positives beside the label.

Their weights fall with the position, and are 0 where the student already ranks an item as the teacher does.
"""

import dataclasses
import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax import training
from alkd_jax.checks import check_count
from alkd_jax.distillation.entities import sample_items
from alkd_jax.distillation.method import check_positive, check_weight, distillation_key, fit_with_distillation
from alkd_jax.distillation.teacher import TeacherModel, all_session_items, encode_teacher, teacher_lists
from alkd_jax.losses.reduction import weighted_mean
from alkd_jax.models import Encoder, Params
from alkd_jax.objectives import BoundLoss
from alkd_jax.ops.lookup import embedding_lookup
from alkd_jax.types import PAD, Batch, Sequences, Sessions


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of :func:`distill`.

    Attributes:
        weight: α, at least 0.
        length: K, the length of the teacher's lists, at least 1; they hold neither inputs nor target of their session.
        sharpness: λ of :func:`static_weights`, positive.
        mu: μ of :func:`dynamic_weights`, positive.
        dynamic_from: the first step with dynamic weights; the authors' ten epochs are about 100 steps here.
        num_sampled: C of :func:`dynamic_weights`, at least 1.
    """

    weight: float = 1.0
    length: int = 10
    sharpness: float = 1.0
    mu: float = 0.1
    dynamic_from: int = 100
    num_sampled: int = 100

    def __post_init__(self) -> None:
        check_weight(weight=self.weight)
        check_count(1, length=self.length, num_sampled=self.num_sampled)
        check_positive(sharpness=self.sharpness, mu=self.mu)


def static_weights(length: int, *, sharpness: Float[Array, ""] | float = 1.0) -> Float[Array, " K"]:
    """``a_r = exp(−r / λ) / Σ``, r = 1..K.

    Args:
        length: K, the length of a list.
        sharpness: λ, positive; the smaller it is, the larger the share of the first position.

    Returns:
        ``[K]`` weights that sum to 1.
    """
    return jax.nn.softmax(-jnp.arange(1, length + 1) / sharpness)


def dynamic_weights(
    list_scores: Float[Array, "B K"],
    sampled_scores: Float[Array, "B C"],
    *,
    num_items: int,
    mu: Float[Array, ""] | float = 0.1,
) -> Float[Array, "B K"]:
    """``d_r = max(0, tanh(μ (R_r − (r − 1))))``: 0 for an item that the student already ranks as high as the teacher.

    ``R_r = ⌊(V − 1) n_r / C⌋`` estimates the item's rank in the student; n_r of C random items have a higher score.

    Args:
        list_scores: the student's scores of the list's items, first position first.
        sampled_scores: the student's scores of uniformly sampled items.
        num_items: V.
        mu: μ, positive.

    Returns:
        ``[B, K]`` weights in [0, 1), without gradient.
    """
    num_above = (sampled_scores[:, None, :] > list_scores[:, :, None]).sum(-1)
    rank = (num_items - 1) * num_above // sampled_scores.shape[1]
    return jnp.maximum(0.0, jnp.tanh(mu * (rank - jnp.arange(list_scores.shape[1])[None])))


def list_loss(
    list_scores: Float[Array, "B K"],
    position_weight: Float[Array, "B K"],
    *,
    where: Bool[Array, "B K"] | None = None,
    weight: Float[Array, " B"] | None = None,
) -> Float[Array, ""]:
    """``−mean_b Σ_r w_br log σ(s_br)``; the weights of a list are not normalized, so all of them may be 0.

    Args:
        list_scores: s, the student's scores of the list's items.
        position_weight: w, which gets no gradient.
        where: True at positions that hold an item; default all.
        weight: weights of the rows in the mean; default 1.

    Reference:
        Tang and Wang, Ranking distillation: learning compact ranking models with high performance, KDD 2018.
    """
    position_weight = jax.lax.stop_gradient(position_weight)
    terms = position_weight * jax.nn.softplus(-list_scores)
    return weighted_mean((terms if where is None else jnp.where(where, terms, 0.0)).sum(-1), weight)


def final_weights(
    list_scores: Float[Array, "B K"],
    sampled_scores: Float[Array, "B C"],
    *,
    step: Int[Array, ""] | int,
    dynamic_from: Float[Array, ""] | float,
    num_items: int,
    sharpness: Float[Array, ""] | float = 1.0,
    mu: Float[Array, ""] | float = 0.1,
) -> Float[Array, "B K"]:
    """``a_r`` before step ``dynamic_from``, ``a_r d_r`` from then on.

    Args:
        list_scores: the student's scores of the list's items.
        sampled_scores: the student's scores of uniformly sampled items.
        step: number of steps taken.
        dynamic_from: the first step with dynamic weights.
        num_items: V.
        sharpness: see :func:`static_weights`.
        mu: see :func:`dynamic_weights`.
    """
    static = jnp.broadcast_to(static_weights(list_scores.shape[1], sharpness=sharpness)[None], list_scores.shape)
    dynamic = dynamic_weights(list_scores, sampled_scores, num_items=num_items, mu=mu)
    return jnp.where(step >= dynamic_from, static * dynamic, static)


@flax.struct.dataclass
class TeacherList(BoundLoss):
    """:func:`list_loss` of the teacher's lists.

    Attributes:
        lists: ``[N, K]`` a list for each training session, 0 in short lists.
        sharpness: λ of :func:`static_weights`.
        mu: μ of :func:`dynamic_weights`.
        dynamic_from: the first step with dynamic weights.
        num_sampled: C, the number of uniformly sampled items that estimate a rank in the student.
    """

    lists: Int[Array, "N K"]
    sharpness: Float[Array, ""] | float = 1.0
    mu: Float[Array, ""] | float = 0.1
    dynamic_from: Float[Array, ""] | float = 100.0
    num_sampled: int = flax.struct.field(pytree_node=False, default=100)

    def __call__(self, params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """Returns the loss of a batch."""
        lists = self.lists[batch.session]
        shape = len(lists), self.num_sampled
        sampled_items = sample_items(distillation_key(key), self.model, math.prod(shape)).reshape(shape)
        vectors, table = self.encode(params, batch, key), self.item_embeddings(params, key)
        list_scores, sampled_scores = (
            jnp.einsum("bd,bcd->bc", vectors, embedding_lookup(table, items)) for items in (lists, sampled_items)
        )
        weights = final_weights(
            list_scores,
            sampled_scores,
            step=batch.step,
            dynamic_from=self.dynamic_from,
            num_items=self.model.num_items,
            sharpness=self.sharpness,
            mu=self.mu,
        )
        return list_loss(list_scores, weights, where=lists != PAD, weight=batch.weight)


def distill(
    key: jax.Array,
    model: Encoder,
    teacher: TeacherModel,
    train: Sessions,
    validation: Sessions,
    *,
    options: Options = Options(),
    sequences: Sequences | None = None,
    **fit_options: Any,
) -> training.FitResult:
    """Trains a student with the top of the teacher's list as further positives.

    The parameters are those of :class:`alkd_jax.distillation.DistillationMethod`. The teacher's lists leave out the
    items of ``sequences``.

    Reference:
        Tang and Wang, Ranking distillation: learning compact ranking models with high performance, KDD 2018.
    """
    lists = teacher_lists(encode_teacher(teacher, train), options.length, all_session_items(train, sequences))
    sharpness, mu, dynamic_from = map(jnp.float32, (options.sharpness, options.mu, options.dynamic_from))
    loss = TeacherList(model, jnp.asarray(lists), sharpness, mu, dynamic_from, options.num_sampled)
    return fit_with_distillation(key, model, train, validation, loss, options.weight, **fit_options)
