"""FTD, full topology distillation: the student's cosines between all entities of a batch match the teacher's."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from alkd_jax import training
from alkd_jax.distillation.entities import batch_entities, concatenate, normalize
from alkd_jax.distillation.inputs import distillation_key, encode_teacher, fit_with_distillation, num_valid_rows
from alkd_jax.models import Encoder, Params
from alkd_jax.objectives import Loss
from alkd_jax.types import Batch, Sessions


def full_topology_loss(
    student: Float[Array, "N D"], teacher: Float[Array, "N T"], *, weight: Float[Array, " N"] | None = None
) -> Float[Array, ""]:
    """``Σ_ij w_i w_j (cos(s_i, s_j) − cos(t_i, t_j))²`` over all ordered pairs.

    The sum is computed as ``‖ŜᵀWŜ‖² − 2 ‖ŜᵀWT̂‖² + ‖T̂ᵀWT̂‖²`` (Frobenius norms, rows of length 1). This is equal and
    needs no ``[N, N]`` array: it takes ``N (D + T)²`` operations in place of ``N² (D + T)``. Since N² squares may
    cancel, the absolute error is about ``1e-7 N²``.

    Args:
        student: s, the student's vectors, which are trained.
        teacher: t, the teacher's vectors, which get no gradient.
        weight: w; default 1. With :func:`alkd_jax.distillation.entities.inverse_counts` repeated entities count once.

    Returns:
        The sum, which is not divided by the number of pairs.

    Reference:
        Kang et al., Topology distillation for recommender system, KDD 2021, eq. for FTD.
    """
    weight = jnp.ones(student.shape[0]) if weight is None else weight
    s, t = normalize(student), normalize(jax.lax.stop_gradient(teacher))
    weighted_s, weighted_t = weight[:, None] * s, weight[:, None] * t

    def squared_norm(left: Float[Array, "N A"], right: Float[Array, "N C"]) -> Float[Array, ""]:
        return (jnp.matmul(left.T, right, precision=jax.lax.Precision.HIGHEST) ** 2).sum()

    return squared_norm(s, weighted_s) - 2.0 * squared_norm(s, weighted_t) + squared_norm(t, weighted_t)


@functools.lru_cache(maxsize=64)
def topology_objective(model: Encoder) -> Loss:
    """:func:`full_topology_loss` of a batch's distinct sessions and items, divided by B.

    ``batch.loss_inputs["distillation"]`` holds "teacher".

    Args:
        model: the student's backbone.
    """

    def loss(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        teacher = batch.loss_inputs["distillation"]["teacher"]
        entities = concatenate(*batch_entities(model, params, batch, teacher, key, distillation_key(key)))
        total = full_topology_loss(entities.student, entities.teacher, weight=entities.weight)
        return total / num_valid_rows(batch)

    return loss


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
    """Trains a student so that the angles between its vectors match those between the teacher's.

    The default weight is the authors'. It belongs to a sum over pairs divided by the batch size, because the student's
    own loss is a mean. The sum has about ``(3 B)²`` terms, so the strength of the distillation grows with the batch.

    Args:
        key: a JAX key; the function consumes it. The same key trains the plain student.
        model: the student's backbone.
        teacher_model: the teacher's backbone.
        teacher_params: its parameters, without a seed axis.
        train: the training sessions.
        validation: the sessions that decide when training stops.
        weight: λ, at least 0.
        **options: ``loss`` and ``loss_inputs`` of the student's own loss; further options of
            :func:`alkd_jax.training.fit`.

    Returns:
        The trained student.

    Raises:
        ValueError: the weight is negative, or as in :func:`alkd_jax.training.fit`.

    Reference:
        Kang et al., Topology distillation for recommender system, KDD 2021.
    """
    distillation_inputs = {"teacher": encode_teacher(teacher_model, teacher_params, train), "weight": weight}
    distillation_loss = topology_objective(model)
    return fit_with_distillation(key, model, train, validation, distillation_loss, distillation_inputs, **options)
