"""Full topology distillation: the student's cosines between all entities of a batch follow the teacher's."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from alkd_jax import training
from alkd_jax.distillation.entities import Entities, batch_items, batch_sessions, draw_items, normalize, stack
from alkd_jax.distillation.inputs import counted_rows, fit_with_distillation, noise_key, teacher_vectors
from alkd_jax.models import Encoder, Params
from alkd_jax.objectives import Loss
from alkd_jax.types import Batch, Sessions


def full_topology_loss(
    student: Float[Array, "N D"], teacher: Float[Array, "N T"], *, weight: Float[Array, " N"] | None = None
) -> Float[Array, ""]:
    """``Σ_ij w_i w_j (cos(s_i, s_j) − cos(t_i, t_j))²`` over all ordered pairs.

    Computed as ``‖ŜᵀWŜ‖² − 2 ‖ŜᵀWT̂‖² + ‖T̂ᵀWT̂‖²`` (Frobenius) with unit rows, which is the same and needs no
    ``[N, N]`` array: ``N (D + T)²`` operations in place of ``N² (D + T)``. A sum of N² squares that cancel is exact to
    about ``1e-7 N²``.

    Args:
        student: s, which learns.
        teacher: t, which does not.
        weight: w; default 1. With :func:`alkd_jax.distillation.entities.once` repeated entities count once.

    Returns:
        The sum, not divided by anything.

    Reference:
        Kang et al., Topology distillation for recommender system, KDD 2021, eq. for FTD.
    """
    weight = jnp.ones(student.shape[0]) if weight is None else weight
    s, t = normalize(student), normalize(jax.lax.stop_gradient(teacher))
    weighted_s, weighted_t = weight[:, None] * s, weight[:, None] * t

    def square(left: Float[Array, "N A"], right: Float[Array, "N C"]) -> Float[Array, ""]:
        return (jnp.matmul(left.T, right, precision=jax.lax.Precision.HIGHEST) ** 2).sum()

    return square(s, weighted_s) - 2.0 * square(s, weighted_t) + square(t, weighted_t)


def batch_entities(
    model: Encoder, params: Params, batch: Batch, key: jax.Array, draw_key: jax.Array
) -> tuple[Entities, Entities]:
    """The batch's distinct sessions, and its distinct items: targets and as many uniform negatives together.

    Args:
        model: the student's backbone.
        params: its parameters.
        batch: ``batch.aside["distillation"]["teacher"]`` is the teacher.
        key: for the student's dropout.
        draw_key: for the negatives.
    """
    teacher, counted = batch.loss_inputs["distillation"]["teacher"], batch.weight > 0
    drawn = draw_items(draw_key, model, len(counted))
    items = batch_items(
        model, params, jnp.concatenate([batch.target, drawn]), teacher, jnp.concatenate([counted, counted])
    )
    return batch_sessions(model, params, batch, teacher, key), items


@functools.lru_cache(maxsize=64)
def topology_term(model: Encoder) -> Loss:
    """:func:`full_topology_loss` of a batch's distinct sessions and items, divided by B.

    ``batch.aside["distillation"]`` holds "teacher".

    Args:
        model: the student's backbone.
    """

    def term(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        entities = stack(*batch_entities(model, params, batch, key, noise_key(key)))
        loss = full_topology_loss(entities.student, entities.teacher, weight=entities.weight)
        return loss / counted_rows(batch)

    return term


def distill(
    key: jax.Array,
    model: Encoder,
    teacher_model: Encoder,
    teacher_params: Params,
    train: Sessions,
    validation: Sessions,
    *,
    weight: float = 0.001,
    **options: Any,
) -> training.FitResult:
    """Trains a student whose vectors stand to each other at the angles of the teacher's.

    The weight is the authors', for a sum over pairs divided by the batch size, as the base loss is a mean. The sum has
    about ``(3 B)²`` terms, so its pull grows with the batch.

    Args:
        key: consumed; the same key trains the plain student.
        model: the student's backbone.
        teacher_model: the teacher's.
        teacher_params: its parameters, without a seed axis.
        train: the training sessions.
        validation: sessions that decide when to stop.
        weight: λ.
        **options: ``base`` and ``loss_inputs`` of the student's own loss; options of :func:`alkd_jax.training.fit`.

    Raises:
        ValueError: as :func:`alkd_jax.training.fit`; the weight is negative.

    Reference:
        Kang et al., Topology distillation for recommender system, KDD 2021.
    """
    guide = {"teacher": teacher_vectors(teacher_model, teacher_params, train), "weight": weight}
    return fit_with_distillation(key, model, train, validation, topology_term(model), guide, **options)
