"""Distillation experts: small networks that reconstruct the teacher's vectors from the student's.

A gate chooses among the experts by the teacher's vector.
"""

import dataclasses
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alkd_jax.checks import check_count
from alkd_jax.distillation.entities import Entities
from alkd_jax.models import Encoder, Params
from alkd_jax.models.encoder import vector_width

Experts: TypeAlias = dict[str, Array]
"""Parameters of E experts and their gate: ``gate_kernel [T, E]``, ``gate_bias [E]``, ``hidden_kernel [E, D, H]``,
``hidden_bias [E, H]``, ``out_kernel [E, H, T]``, ``out_bias [E, T]``."""


def init_experts(key: jax.Array, *, num_experts: int, student_dim: int, teacher_dim: int) -> Experts:
    """Initializes experts, uniformly in ±1/√(number of inputs).

    The hidden width H is the mean of both widths, or half of them where they are equal. There are
    ``E (D H + H + H T + T)`` parameters in the experts and ``E (T + 1)`` in the gate.

    Args:
        key: a JAX key; the function consumes it.
        num_experts: E, at least 1.
        student_dim: D, the student's width.
        teacher_dim: T, the teacher's width.

    Raises:
        ValueError: ``num_experts`` is below 1.
    """
    check_count(1, num_experts=num_experts)
    is_equal = student_dim == teacher_dim
    hidden = max(1, student_dim // 2 if is_equal else (student_dim + teacher_dim) // 2)
    shapes = {
        "gate_kernel": (teacher_dim, (teacher_dim, num_experts)),
        "gate_bias": (teacher_dim, (num_experts,)),
        "hidden_kernel": (student_dim, (num_experts, student_dim, hidden)),
        "hidden_bias": (student_dim, (num_experts, hidden)),
        "out_kernel": (hidden, (num_experts, hidden, teacher_dim)),
        "out_bias": (hidden, (num_experts, teacher_dim)),
    }
    keys = jax.random.split(key, len(shapes))
    return {
        name: jax.random.uniform(param_key, shape, minval=-(fan_in**-0.5), maxval=fan_in**-0.5)
        for param_key, (name, (fan_in, shape)) in zip(keys, shapes.items(), strict=True)
    }


@dataclasses.dataclass(frozen=True)
class ExpertInit:
    """Initializes experts of sessions and others of items, as the ``extra_params_init`` of ``alkd_jax.training.fit``.

    Attributes:
        num_experts: E, of either kind.
        teacher_dim: T, the width of the teacher's vectors.
    """

    num_experts: int
    teacher_dim: int

    def __call__(self, key: jax.Array, student: Encoder) -> Params:
        """Returns the collection "experts"."""
        keys = zip(("session", "item"), jax.random.split(key), strict=True)
        sizes = {"num_experts": self.num_experts, "student_dim": vector_width(student), "teacher_dim": self.teacher_dim}
        return {"experts": {kind: init_experts(kind_key, **sizes) for kind, kind_key in keys}}


def gate(experts: Experts, teacher: Float[Array, "N T"]) -> Float[Array, "N E"]:
    """``log α = log softmax(W t + b)``: the log-probability of each expert, from the teacher's vector alone."""
    return jax.nn.log_softmax(teacher @ experts["gate_kernel"] + experts["gate_bias"][None], axis=-1)


def gumbel_softmax(
    log_prob: Float[Array, "N E"], noise: Float[Array, "N E"], temperature: Float[Array, ""] | float
) -> Float[Array, "N E"]:
    """``v = softmax((log(α + 1e-10) + g) / τ)``: one-hot samples from α for τ → 0, uniform weights for τ → ∞.

    Args:
        log_prob: log α.
        noise: g, standard Gumbel, fresh for every entity and step.
        temperature: τ, positive.

    Returns:
        ``[N, E]`` weights of the experts; rows sum to 1.

    Reference:
        Jang et al., Categorical reparameterization with Gumbel-softmax, ICLR 2017.
    """
    return jax.nn.softmax((jnp.log(jnp.exp(log_prob) + 1e-10) + noise) / temperature, axis=-1)


def reconstruct(
    experts: Experts, student: Float[Array, "N D"], expert_weight: Float[Array, "N E"]
) -> Float[Array, "N T"]:
    """``t̂ = Σ_k v_k (A_k relu(C_k s + c_k) + a_k)``.

    Args:
        experts: A, a, C and c.
        student: s, the student's vectors.
        expert_weight: v, see :func:`gumbel_softmax`.
    """
    hidden = jnp.einsum("nd,edh->neh", student, experts["hidden_kernel"]) + experts["hidden_bias"][None]
    # The weighted sum is taken before the second layer, so that no array of shape [N, E, T] is made.
    weighted = expert_weight[..., None] * jax.nn.relu(hidden)
    return jnp.einsum("neh,eht->nt", weighted, experts["out_kernel"]) + expert_weight @ experts["out_bias"]


def reconstruction_errors(
    experts: Experts,
    student: Float[Array, "N D"],
    teacher: Float[Array, "N T"],
    noise: Float[Array, "N E"],
    temperature: Float[Array, ""] | float,
) -> Float[Array, " N"]:
    """``‖t − t̂‖²`` of every entity, with the experts chosen by the teacher's vector.

    Args:
        experts: the experts, which are trained.
        student: s, the student's vectors, which are trained.
        teacher: t, the teacher's vectors, which get no gradient.
        noise: g, see :func:`gumbel_softmax`.
        temperature: τ, positive; see :func:`annealed_temperature`.

    Reference:
        Kang et al., DE-RRD: a knowledge distillation framework for recommender system, CIKM 2020, eq. 1–4.
    """
    teacher = jax.lax.stop_gradient(teacher)
    expert_weight = gumbel_softmax(gate(experts, teacher), noise, temperature)
    return ((teacher - reconstruct(experts, student, expert_weight)) ** 2).sum(-1)


def reconstruction_loss(
    key: jax.Array, experts: Experts, entities: Entities, temperature: Float[Array, ""]
) -> Float[Array, ""]:
    """``Σ_n w_n ‖t_n − t̂_n‖²``, with fresh Gumbel noise.

    Args:
        key: a JAX key; the function consumes it.
        experts: the experts.
        entities: sessions or items.
        temperature: τ, positive.
    """
    noise = jax.random.gumbel(key, (entities.student.shape[0], experts["gate_bias"].shape[0]))
    errors = reconstruction_errors(experts, entities.student, entities.teacher, noise, temperature)
    return entities.weight @ errors


def annealed_temperature(
    step: Int[Array, ""] | int,
    end: Float[Array, ""] | float,
    *,
    total: Float[Array, ""] | float | int,
    floor: float = 1e-2,
) -> Float[Array, ""]:
    """``τ = max(floor, end^(step / total))``: exponential decay from 1 towards ``end``.

    The authors' schedule ends at 1e-10, where the gate's gradient is 0 nearly everywhere and 1e10 elsewhere; their
    runs stop early, long before that. The floor prevents such gradients here.

    Args:
        step: number of steps taken.
        end: temperature at the last step, without the floor; positive.
        total: number of planned steps.
        floor: the lowest temperature.
    """
    return jnp.maximum(floor, jnp.exp(jnp.log(end) * step / total))
