"""HTD, hierarchical topology distillation: the student matches the teacher's cosines within and between groups.

Groups of entities are learned by experts; a group is represented by its prototype, the mean of its members.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax import training
from alkd_jax.checks import check_at_least, check_between, check_one_of
from alkd_jax.distillation.entities import Entities, batch_entities, concatenate, normalize
from alkd_jax.distillation.experts import (
    Experts,
    annealed_temperature,
    check_temperature,
    gate,
    init_expert_pair,
    reconstruction_loss,
)
from alkd_jax.distillation.inputs import distillation_key, encode_teacher, fit_with_distillation, num_valid_rows
from alkd_jax.models import Encoder, Params
from alkd_jax.objectives import Loss
from alkd_jax.types import Batch, Sessions

LEVELS = ("entities", "prototypes")
"""What the group level compares prototypes with: entities or prototypes, the paper's (P, e) and (P, P)."""


def assign_groups(experts: Experts, teacher: Float[Array, "N T"]) -> Int[Array, " N"]:
    """``argmax_k α_k``: the group of every entity is the expert that the gate finds most likely; it has no gradient."""
    return jnp.argmax(gate(experts, teacher), axis=-1)


def _cosines(x: Float[Array, "N D"], y: Float[Array, "M D"]) -> Float[Array, "N M"]:
    return jnp.matmul(normalize(x), normalize(y).T, precision=jax.lax.Precision.HIGHEST)


def entity_topology_loss(
    student: Float[Array, "N D"],
    teacher: Float[Array, "N T"],
    group: Int[Array, " N"],
    *,
    weight: Float[Array, " N"] | None = None,
    positive_only: bool = True,
) -> Float[Array, ""]:
    """``Σ w_i w_j (cos(s_i, s_j) − cos(t_i, t_j))²`` over the ordered pairs within the same group.

    Args:
        student: s, the student's vectors, which are trained.
        teacher: t, the teacher's vectors, which get no gradient.
        group: the group of each entity.
        weight: w; default 1.
        positive_only: leave out pairs whose teacher cosine is not positive, as the authors' code does.

    Reference:
        Kang et al., Topology distillation for recommender system, KDD 2021, entity level.
    """
    weight = jnp.ones(student.shape[0]) if weight is None else weight
    teacher = jax.lax.stop_gradient(teacher)
    teacher_cosines = _cosines(teacher, teacher)
    where = group[:, None] == group[None, :]
    if positive_only:
        where &= teacher_cosines > 0
    difference = jnp.where(where, _cosines(student, student) - teacher_cosines, 0.0)
    return weight @ (difference**2) @ weight


def prototypes(
    vectors: Float[Array, "N D"], group: Int[Array, " N"], *, num_groups: int, weight: Float[Array, " N"]
) -> tuple[Float[Array, "G D"], Bool[Array, " G"]]:
    """Computes the weighted mean of the members of every group.

    Args:
        vectors: of the entities.
        group: the group of each entity, in ``0..num_groups-1``.
        num_groups: G.
        weight: the weight of each entity.

    Returns:
        The means, and which groups have a member of positive weight.
    """
    membership = jax.nn.one_hot(group, num_groups) * weight[:, None]
    total = membership.sum(0)
    return (membership.T @ vectors) / (total + 1e-10)[:, None], total > 0


def group_topology_loss(
    student: Float[Array, "N D"],
    teacher: Float[Array, "N T"],
    group: Int[Array, " N"],
    *,
    num_groups: int,
    weight: Float[Array, " N"] | None = None,
    level: str = "entities",
) -> Float[Array, ""]:
    """``Σ_g Σ_e w_e (cos(P^S_g, s_e) − cos(P^T_g, t_e))²``, or the same sum over pairs of prototypes.

    With "entities" the student's prototypes get no gradient, as in the authors' code. With "prototypes" there would
    then be no gradient at all, so it flows through the prototypes there; this deviates from the authors' code.

    Args:
        student: s, the student's vectors, which are trained.
        teacher: t, the teacher's vectors, which get no gradient.
        group: the group of each entity, in ``0..num_groups-1``.
        num_groups: G; groups without members add nothing.
        weight: w, also used in the means that are the prototypes; default 1.
        level: one of :data:`LEVELS`.

    Raises:
        ValueError: the level is unknown.

    Reference:
        Kang et al., Topology distillation for recommender system, KDD 2021, group level.
    """
    check_one_of("level", level, LEVELS)
    weight = jnp.ones(student.shape[0]) if weight is None else weight
    teacher = jax.lax.stop_gradient(teacher)
    student_prototypes, is_nonempty = prototypes(student, group, num_groups=num_groups, weight=weight)
    teacher_prototypes, _ = prototypes(teacher, group, num_groups=num_groups, weight=weight)
    if level == "prototypes":
        difference = _cosines(student_prototypes, student_prototypes) - _cosines(teacher_prototypes, teacher_prototypes)
        column_weight = is_nonempty.astype(weight.dtype)
    else:
        difference = _cosines(jax.lax.stop_gradient(student_prototypes), student)
        difference = difference - _cosines(teacher_prototypes, teacher)
        column_weight = weight
    return is_nonempty.astype(weight.dtype) @ (difference**2) @ column_weight


def hierarchical_topology_loss(
    sessions: Entities,
    items: Entities,
    groups: tuple[Int[Array, " N"], Int[Array, " M"]],
    *,
    num_groups: int,
    level: str = "entities",
    positive_only: bool = True,
) -> Float[Array, ""]:
    """Adds the entity level and the group level; sessions and items have separate groups.

    The entity level therefore compares no session with an item.

    Args:
        sessions: sessions, weighted so that each distinct one counts once.
        items: items, weighted likewise.
        groups: the groups of the sessions and those of the items, each in ``0..num_groups-1``.
        num_groups: K, the number of groups of either kind.
        level: see :func:`group_topology_loss`.
        positive_only: see :func:`entity_topology_loss`.
    """
    entity_loss = sum(
        entity_topology_loss(
            entities.student, entities.teacher, group, weight=entities.weight, positive_only=positive_only
        )
        for entities, group in zip((sessions, items), groups, strict=True)
    )
    entities, group = concatenate(sessions, items), jnp.concatenate([groups[0], num_groups + groups[1]])
    group_loss = group_topology_loss(
        entities.student, entities.teacher, group, num_groups=2 * num_groups, weight=entities.weight, level=level
    )
    return entity_loss + group_loss


@functools.lru_cache(maxsize=64)
def hierarchy_objective(model: Encoder, *, level: str = "entities", positive_only: bool = True) -> Loss:
    """``(a L_TD + (1 − a) L_GA) / B``: the topology within and between groups, and the experts that learn the groups.

    L_GA is the reconstruction error of DE with every distinct item once. ``params["experts"]`` are as for DE.
    ``batch.loss_inputs["distillation"]`` holds "teacher", "topology" (a), "temperature_end" and "total_steps".

    Args:
        model: the student's backbone.
        level: see :func:`group_topology_loss`.
        positive_only: see :func:`entity_topology_loss`.
    """

    def loss(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        distillation_inputs = batch.loss_inputs["distillation"]
        teacher, total_steps = distillation_inputs["teacher"], distillation_inputs["total_steps"]
        keys = jax.random.split(distillation_key(key), 3)
        temperature = annealed_temperature(batch.step, distillation_inputs["temperature_end"], total=total_steps)
        sessions, items = batch_entities(model, params, batch, teacher, key, keys[0])
        session_experts, item_experts = params["experts"]["session"], params["experts"]["item"]
        groups = assign_groups(session_experts, sessions.teacher), assign_groups(item_experts, items.teacher)
        pairs = zip(keys[1:], (session_experts, item_experts), (sessions, items), strict=True)
        assignment_loss = sum(
            reconstruction_loss(noise_key, experts, entities, temperature) for noise_key, experts, entities in pairs
        )
        topology_loss = hierarchical_topology_loss(
            sessions,
            items,
            groups,
            num_groups=session_experts["gate_bias"].shape[0],
            level=level,
            positive_only=positive_only,
        )
        topology = distillation_inputs["topology"]
        return (topology * topology_loss + (1.0 - topology) * assignment_loss) / num_valid_rows(batch)

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
    topology: float = 0.5,
    num_groups: int = 30,
    level: str = "entities",
    positive_only: bool = True,
    temperature_end: float = 1e-10,
    max_steps: int = 10_000,
    **options: Any,
) -> training.FitResult:
    """Trains a student to match the teacher's angles: between all entities within learned groups, and between groups.

    The default weight is the authors'. It belongs to sums divided by the batch size, because the student's own loss is
    a mean. The experts that learn the groups are trained along; only the student is returned.

    Args:
        key: a JAX key; the function consumes it. The same key trains the plain student.
        model: the student's backbone.
        teacher_model: the teacher's backbone.
        teacher_params: its parameters, without a seed axis.
        train: the training sessions.
        validation: the sessions that decide when training stops.
        weight: λ, at least 0.
        topology: a in [0, 1], the weight of the topology loss; the experts' loss has weight 1 − a.
        num_groups: K, of the sessions and again of the items, at least 1.
        level: "entities" compares prototypes with entities, the authors' default; "prototypes" with each other.
        positive_only: leave out pairs within a group whose teacher cosine is not positive, as the authors' code does.
        temperature_end: as in :func:`alkd_jax.distillation.de.distill`.
        max_steps: as in :func:`alkd_jax.training.fit`.
        **options: ``loss`` and ``loss_inputs`` of the student's own loss; further options of
            :func:`alkd_jax.training.fit`.

    Returns:
        The trained student.

    Raises:
        ValueError: an option is out of its range, or as in :func:`alkd_jax.training.fit`.

    Reference:
        Kang et al., Topology distillation for recommender system, KDD 2021.
    """
    check_at_least(1, num_groups=num_groups)
    check_temperature(temperature_end)
    check_one_of("level", level, LEVELS)
    check_between(0, 1, topology=topology)
    distillation_inputs = {
        "teacher": encode_teacher(teacher_model, teacher_params, train),
        "weight": weight,
        "topology": topology,
        "temperature_end": temperature_end,
        "total_steps": max_steps,
    }
    distillation_loss = hierarchy_objective(model, level=level, positive_only=positive_only)
    return fit_with_distillation(
        key,
        model,
        train,
        validation,
        distillation_loss,
        distillation_inputs,
        extra_params_init=init_expert_pair(num_groups, teacher_model.dim),
        max_steps=max_steps,
        **options,
    )
