"""Hierarchical topology distillation: cosines within groups of entities, and between groups by their prototypes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.distillation.entities import unit
from alkd_jax.distillation.experts import Experts, gate

LEVELS = ("entities", "prototypes")
"""What prototypes are compared with: the paper's (P, e) and (P, P)."""


def assign(experts: Experts, teacher: Float[Array, "N T"]) -> Int[Array, " N"]:
    """``argmax_k α_k``: the group of every entity, from the teacher's vector; no gradient."""
    return jnp.argmax(gate(experts, teacher), axis=-1)


def _cosines(x: Float[Array, "N D"], y: Float[Array, "M D"]) -> Float[Array, "N M"]:
    return jnp.matmul(unit(x), unit(y).T, precision=jax.lax.Precision.HIGHEST)


def entity_topology_loss(
    student: Float[Array, "N D"],
    teacher: Float[Array, "N T"],
    group: Int[Array, " N"],
    *,
    weight: Float[Array, " N"] | None = None,
    positive_only: bool = True,
) -> Float[Array, ""]:
    """``Σ w_i w_j (cos(s_i, s_j) − cos(t_i, t_j))²`` over ordered pairs of one group.

    Args:
        student: s, which learns.
        teacher: t, which does not.
        group: of each entity.
        weight: w; default 1.
        positive_only: leave out pairs whose teacher cosine is not positive, as the authors' code does.

    Reference:
        Kang et al., Topology distillation for recommender system, KDD 2021, entity level.
    """
    weight = jnp.ones(student.shape[0]) if weight is None else weight
    wanted = _cosines(*(jax.lax.stop_gradient(teacher),) * 2)
    counts = group[:, None] == group[None, :]
    if positive_only:
        counts &= wanted > 0
    difference = jnp.where(counts, _cosines(student, student) - wanted, 0.0)
    return weight @ (difference**2) @ weight


def prototypes(
    vectors: Float[Array, "N D"], group: Int[Array, " N"], *, num_groups: int, weight: Float[Array, " N"]
) -> tuple[Float[Array, "G D"], Bool[Array, " G"]]:
    """The weighted mean of every group's members, and which groups have any."""
    member = jax.nn.one_hot(group, num_groups) * weight[:, None]
    total = member.sum(0)
    return (member.T @ vectors) / (total + 1e-10)[:, None], total > 0


def group_topology_loss(
    student: Float[Array, "N D"],
    teacher: Float[Array, "N T"],
    group: Int[Array, " N"],
    *,
    num_groups: int,
    weight: Float[Array, " N"] | None = None,
    level: str = "entities",
) -> Float[Array, ""]:
    """``Σ_g Σ_e w_e (cos(P^S_g, s_e) − cos(P^T_g, t_e))²``, or the same between prototypes.

    With "entities" the student's prototypes are constants, as in the authors' code. With "prototypes" that would leave
    nothing to learn, so there the gradient goes through them: a deviation from that code.

    Args:
        student: s, which learns.
        teacher: t, which does not.
        group: of each entity, in ``0..num_groups-1``.
        num_groups: G; groups without members count for nothing.
        weight: w, also in the prototypes' means; default 1.
        level: one of :data:`LEVELS`.

    Raises:
        ValueError: the level is unknown.

    Reference:
        Kang et al., Topology distillation for recommender system, KDD 2021, group level.
    """
    if level not in LEVELS:
        raise ValueError(f"level is {level!r}; expected one of {', '.join(LEVELS)}")
    weight = jnp.ones(student.shape[0]) if weight is None else weight
    teacher = jax.lax.stop_gradient(teacher)
    student_mean, present = prototypes(student, group, num_groups=num_groups, weight=weight)
    teacher_mean, _ = prototypes(teacher, group, num_groups=num_groups, weight=weight)
    if level == "prototypes":
        difference = _cosines(student_mean, student_mean) - _cosines(teacher_mean, teacher_mean)
        other = present.astype(weight.dtype)
    else:
        difference = _cosines(jax.lax.stop_gradient(student_mean), student) - _cosines(teacher_mean, teacher)
        other = weight
    return present.astype(weight.dtype) @ (difference**2) @ other
