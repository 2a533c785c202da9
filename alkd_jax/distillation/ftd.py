"""FTD, full topology distillation: the student's cosines between all entities of a batch match the teacher's."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from alkd_jax import training
from alkd_jax.distillation.entities import RepresentationLoss, concatenate, normalize, num_valid_rows
from alkd_jax.distillation.method import check_weight, distillation_key, fit_with_distillation
from alkd_jax.distillation.teacher import TeacherModel, encode_teacher
from alkd_jax.models import Encoder, Params
from alkd_jax.types import Batch, Sessions


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of :func:`distill`.

    Attributes:
        weight: λ, at least 0. The default is the authors'. It belongs to a sum over pairs divided by the batch size,
            because the student's own loss is a mean. The sum has about ``(3 B)²`` terms, so the strength of the
            distillation grows with the batch.
    """

    weight: float = 0.001

    def __post_init__(self) -> None:
        check_weight(weight=self.weight)


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


@flax.struct.dataclass
class FullTopology(RepresentationLoss):
    """:func:`full_topology_loss` of a batch's distinct sessions and items, divided by B."""

    def __call__(self, params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """Returns the loss of a batch."""
        entities = concatenate(*self.batch_entities(params, batch, key, distillation_key(key)))
        total = full_topology_loss(entities.student, entities.teacher, weight=entities.weight)
        return total / num_valid_rows(batch)


def distill(
    key: jax.Array,
    model: Encoder,
    teacher: TeacherModel,
    train: Sessions,
    validation: Sessions,
    *,
    options: Options = Options(),
    **fit_options: Any,
) -> training.FitResult:
    """Trains a student so that the angles between its vectors match those between the teacher's.

    The parameters are those of :class:`alkd_jax.distillation.DistillationMethod`.

    Reference:
        Kang et al., Topology distillation for recommender system, KDD 2021.
    """
    topology = FullTopology(model, encode_teacher(teacher, train))
    return fit_with_distillation(key, model, train, validation, topology, options.weight, **fit_options)
