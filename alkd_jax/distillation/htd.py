"""Hierarchical topology distillation: cosines within groups of entities, and between groups by their prototypes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax import training
from alkd_jax.distillation.de import check_experts, init_expert_pair, total_error
from alkd_jax.distillation.entities import Entities, normalize, stack
from alkd_jax.distillation.experts import Experts, annealed_temperature, gate
from alkd_jax.distillation.ftd import batch_entities
from alkd_jax.distillation.inputs import counted_rows, fit_with_distillation, noise_key, teacher_vectors
from alkd_jax.models import Encoder, Params
from alkd_jax.objectives import Loss
from alkd_jax.types import Batch, Sessions

LEVELS = ("entities", "prototypes")
"""What prototypes are compared with: the paper's (P, e) and (P, P)."""


def assign(experts: Experts, teacher: Float[Array, "N T"]) -> Int[Array, " N"]:
    """``argmax_k α_k``: the group of every entity, from the teacher's vector; no gradient."""
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
    _check_level(level)
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


def hierarchical_topology_loss(
    sessions: Entities,
    items: Entities,
    groups: tuple[Int[Array, " N"], Int[Array, " M"]],
    *,
    num_groups: int,
    level: str = "entities",
    positive_only: bool = True,
) -> Float[Array, ""]:
    """Entity level plus group level; sessions and items have groups of their own, so no pair crosses at the first.

    Args:
        sessions: distinct by weight.
        items: likewise.
        groups: of sessions and of items, each in ``0..num_groups-1``.
        num_groups: K, of either kind.
        level: see :func:`group_topology_loss`.
        positive_only: see :func:`entity_topology_loss`.
    """
    inside = sum(
        entity_topology_loss(kind.student, kind.teacher, group, weight=kind.weight, positive_only=positive_only)
        for kind, group in zip((sessions, items), groups, strict=True)
    )
    both, group = stack(sessions, items), jnp.concatenate([groups[0], num_groups + groups[1]])
    between = group_topology_loss(
        both.student, both.teacher, group, num_groups=2 * num_groups, weight=both.weight, level=level
    )
    return inside + between


@functools.lru_cache(maxsize=64)
def hierarchy_term(model: Encoder, *, level: str = "entities", positive_only: bool = True) -> Loss:
    """``(a L_TD + (1 − a) L_GA) / B``: topology within and between groups, and the experts that learn the groups.

    L_GA is DE's error with every distinct item once. ``params["experts"]`` are as for DE; ``batch.aside
    ["distillation"]`` holds "teacher", "topology" (a), "temperature_end" and "total" steps.

    Args:
        model: the student's backbone.
        level: see :func:`group_topology_loss`.
        positive_only: see :func:`entity_topology_loss`.
    """

    def term(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        guide = batch.loss_inputs["distillation"]
        keys = jax.random.split(noise_key(key), 3)
        temperature = annealed_temperature(batch.step, guide["temperature_end"], total=guide["total"])
        kinds = batch_entities(model, params, batch, key, keys[0])
        experts = params["experts"]["session"], params["experts"]["item"]
        sessions, items = (assign(own, kind.teacher) for own, kind in zip(experts, kinds, strict=True))
        assignment = sum(
            total_error(k, own, kind, temperature) for k, own, kind in zip(keys[1:], experts, kinds, strict=True)
        )
        topology = hierarchical_topology_loss(
            *kinds,
            (sessions, items),
            num_groups=experts[0]["gate_bias"].shape[0],
            level=level,
            positive_only=positive_only,
        )
        share = guide["topology"]
        return (share * topology + (1.0 - share) * assignment) / counted_rows(batch)

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
    topology: float = 0.5,
    num_groups: int = 30,
    level: str = "entities",
    positive_only: bool = True,
    temperature_end: float = 1e-10,
    max_steps: int = 10_000,
    **options: Any,
) -> training.FitResult:
    """Trains a student whose vectors follow the teacher's angles finely within learned groups, coarsely between.

    The weight is the authors', for sums divided by the batch size, as the base loss is a mean. The experts that learn
    the groups are dropped at the end.

    Args:
        key: consumed; the same key trains the plain student.
        model: the student's backbone.
        teacher_model: the teacher's.
        teacher_params: its parameters, without a seed axis.
        train: the training sessions.
        validation: sessions that decide when to stop.
        weight: λ.
        topology: a, the share of the topology; the rest is the experts'.
        num_groups: K, for sessions and again for items.
        level: "entities" compares prototypes with entities, as the authors by default; "prototypes" with each other.
        positive_only: leave out pairs within a group whose teacher cosine is not positive, as the authors' code does.
        temperature_end: as in :func:`alkd_jax.distillation.de.distil`.
        max_steps: as in :func:`alkd_jax.training.fit`.
        **options: ``base`` and ``loss_inputs`` of the student's own loss; options of :func:`alkd_jax.training.fit`.

    Raises:
        ValueError: as :func:`alkd_jax.training.fit`; the weight is negative, ``topology`` is not in 0..1, there is no
            group, the level is unknown, the temperature is not positive.

    Reference:
        Kang et al., Topology distillation for recommender system, KDD 2021.
    """
    check_experts(num_groups, temperature_end)
    _check_level(level)
    if not 0 <= topology <= 1:
        raise ValueError(f"topology is {topology}; expected a share from 0 to 1")
    guide = {
        "teacher": teacher_vectors(teacher_model, teacher_params, train),
        "weight": weight,
        "topology": topology,
        "temperature_end": temperature_end,
        "total": max_steps,
    }

    extra_params_init = init_expert_pair(num_groups, teacher_model.dim)
    term = hierarchy_term(model, level=level, positive_only=positive_only)
    return fit_with_distillation(
        key, model, train, validation, term, guide, extra_params_init=extra_params_init, max_steps=max_steps, **options
    )


def _check_level(level: str) -> None:
    if level not in LEVELS:
        raise ValueError(f"level is {level!r}; expected one of {', '.join(LEVELS)}")
