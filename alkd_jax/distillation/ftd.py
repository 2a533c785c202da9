"""Full topology distillation: the student's cosines between all entities of a batch follow the teacher's."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from alkd_jax.distillation.entities import unit


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
    s, t = unit(student), unit(jax.lax.stop_gradient(teacher))
    weighted_s, weighted_t = weight[:, None] * s, weight[:, None] * t

    def square(left: Float[Array, "N A"], right: Float[Array, "N C"]) -> Float[Array, ""]:
        return (jnp.matmul(left.T, right, precision=jax.lax.Precision.HIGHEST) ** 2).sum()

    return square(s, weighted_s) - 2.0 * square(s, weighted_t) + square(t, weighted_t)
