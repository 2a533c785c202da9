"""HTD, hierarchical topology distillation: the student matches the teacher's cosines within and between groups.

Groups of entities are learned by experts; a group is represented by its prototype, the mean of its members.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax import training
from alkd_jax.checks import check_between, check_count, check_one_of
from alkd_jax.distillation.entities import Entities, RepresentationLoss, concatenate, normalize, num_valid_rows
from alkd_jax.distillation.experts import (
    ExpertInit,
    Experts,
    annealed_temperature,
    gate,
    reconstruction_loss,
)
from alkd_jax.distillation.method import check_fraction, check_weight, distillation_key, fit_with_distillation
from alkd_jax.distillation.teacher import TeacherModel, encode_teacher
from alkd_jax.models import Encoder, Params
from alkd_jax.types import Batch, Sessions

LEVELS = ("entities", "prototypes")
"""What the group level compares prototypes with: entities or prototypes, the paper's (P, e) and (P, P)."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of :func:`distill`.

    The default weight is the authors'. It belongs to sums divided by the batch size, because the student's own loss is
    a mean.

    Attributes:
        weight: λ, at least 0.
        topology: a in [0, 1], the weight of the topology loss; the experts' loss has weight 1 − a.
        num_groups: K, of the sessions and again of the items, at least 1.
        level: "entities" compares prototypes with entities, the authors' default; "prototypes" with each other.
        positive_only: leave out pairs within a group whose teacher cosine is not positive, as the authors' code does.
        temperature_end: as in :class:`alkd_jax.distillation.de.Options`.
    """

    weight: float = 0.001
    topology: float = 0.5
    num_groups: int = 30
    level: str = "entities"
    positive_only: bool = True
    temperature_end: float = 1e-10

    def __post_init__(self) -> None:
        check_weight(weight=self.weight)
        check_between(0, 1, topology=self.topology)
        check_count(1, num_groups=self.num_groups)
        check_one_of("level", self.level, LEVELS)
        check_fraction(temperature_end=self.temperature_end)


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


@flax.struct.dataclass
class HierarchicalTopology(RepresentationLoss):
    """``(a L_TD + (1 − a) L_GA) / B``: the topology within and between groups, and the experts that learn the groups.

    L_GA is the reconstruction error of DE with every distinct item once. ``params["experts"]`` are as for DE.

    Attributes:
        topology: a in [0, 1].
        temperature_end: see :class:`Options`.
        total_steps: number of steps over which the temperature falls.
        level: see :func:`group_topology_loss`.
        positive_only: see :func:`entity_topology_loss`.
    """

    topology: Float[Array, ""] | float
    temperature_end: Float[Array, ""] | float
    total_steps: Float[Array, ""] | float
    level: str = flax.struct.field(pytree_node=False, default="entities")
    positive_only: bool = flax.struct.field(pytree_node=False, default=True)

    def __call__(self, params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """Returns the loss of a batch."""
        keys = jax.random.split(distillation_key(key), 3)
        temperature = annealed_temperature(batch.step, self.temperature_end, total=self.total_steps)
        entities = self.batch_entities(params, batch, key, keys[0])
        experts = params["experts"]["session"], params["experts"]["item"]
        assignment_loss = sum(map(reconstruction_loss, keys[1:], experts, entities, (temperature, temperature)))
        topology_loss = self._topology_loss(experts, entities)
        return (self.topology * topology_loss + (1.0 - self.topology) * assignment_loss) / num_valid_rows(batch)

    def _topology_loss(self, experts: tuple[Experts, Experts], entities: tuple[Entities, Entities]) -> Float[Array, ""]:
        """Adds the entity level and the group level. Sessions and items have separate groups.

        The entity level therefore compares no session with an item.
        """
        groups = tuple(assign_groups(one, kind.teacher) for one, kind in zip(experts, entities, strict=True))
        entity_loss = sum(
            entity_topology_loss(
                kind.student, kind.teacher, group, weight=kind.weight, positive_only=self.positive_only
            )
            for kind, group in zip(entities, groups, strict=True)
        )
        both, num_groups = concatenate(*entities), experts[0]["gate_bias"].shape[0]
        group = jnp.concatenate([groups[0], num_groups + groups[1]])
        return entity_loss + group_topology_loss(
            both.student, both.teacher, group, num_groups=2 * num_groups, weight=both.weight, level=self.level
        )


def distill(
    key: jax.Array,
    model: Encoder,
    teacher: TeacherModel,
    train: Sessions,
    validation: Sessions,
    *,
    options: Options = Options(),
    max_steps: int = 10_000,
    **fit_options: Any,
) -> training.FitResult:
    """Trains a student to match the teacher's angles: between all entities within learned groups, and between groups.

    The experts that learn the groups are trained along; only the student is returned. The parameters are those of
    :class:`alkd_jax.distillation.DistillationMethod`.

    Reference:
        Kang et al., Topology distillation for recommender system, KDD 2021.
    """
    topology, temperature_end, total_steps = map(jnp.float32, (options.topology, options.temperature_end, max_steps))
    embeddings, level = encode_teacher(teacher, train), options.level
    loss = HierarchicalTopology(model, embeddings, topology, temperature_end, total_steps, level, options.positive_only)
    init = ExpertInit(options.num_groups, embeddings.items.shape[1])
    return fit_with_distillation(
        key, model, train, validation, loss, options.weight, extra_params_init=init, max_steps=max_steps, **fit_options
    )
