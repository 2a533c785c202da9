"""Distillation experts: small networks, picked by the teacher's vector, rebuild that vector from the student's."""

from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Experts: TypeAlias = dict[str, Array]
"""E experts and their gate: ``gate_kernel [T, E]``, ``gate_bias [E]``, ``hidden_kernel [E, D, H]``,
``hidden_bias [E, H]``, ``out_kernel [E, H, T]``, ``out_bias [E, T]``."""


def init_experts(key: jax.Array, *, num_experts: int, student_dim: int, teacher_dim: int) -> Experts:
    """Fresh experts, uniform in ±1/√inputs; the hidden width H is the mean of both widths, or half of equal ones.

    Parameters: ``E (D H + H + H T + T)`` in the experts and ``E (T + 1)`` in the gate.

    Args:
        key: consumed.
        num_experts: E, at least 1.
        student_dim: D.
        teacher_dim: T.

    Raises:
        ValueError: there is no expert.
    """
    if num_experts < 1:
        raise ValueError(f"num_experts is {num_experts}; expected at least 1")
    equal = student_dim == teacher_dim
    hidden = max(1, student_dim // 2 if equal else (student_dim + teacher_dim) // 2)
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
        name: jax.random.uniform(k, shape, minval=-(inputs**-0.5), maxval=inputs**-0.5)
        for k, (name, (inputs, shape)) in zip(keys, shapes.items(), strict=True)
    }


def gate(experts: Experts, teacher: Float[Array, "N T"]) -> Float[Array, "N E"]:
    """``log softmax(W t + b)``: how likely each expert is for an entity, from the teacher's vector alone."""
    return jax.nn.log_softmax(teacher @ experts["gate_kernel"] + experts["gate_bias"][None], axis=-1)


def relaxed_choice(
    log_chance: Float[Array, "N E"], noise: Float[Array, "N E"], temperature: Float[Array, ""] | float
) -> Float[Array, "N E"]:
    """``softmax((log(α + 1e-10) + g) / T)``: at T → 0 a draw from α, at T → ∞ the mean of all.

    Args:
        log_chance: log α.
        noise: g, standard Gumbel, fresh for every entity and step.
        temperature: T, positive.

    Reference:
        Jang et al., Categorical reparameterization with Gumbel-softmax, ICLR 2017.
    """
    return jax.nn.softmax((jnp.log(jnp.exp(log_chance) + 1e-10) + noise) / temperature, axis=-1)


def reconstruct(experts: Experts, student: Float[Array, "N D"], choice: Float[Array, "N E"]) -> Float[Array, "N T"]:
    """``t̂ = Σ_k v_k (A_k relu(C_k s + c_k) + a_k)``."""
    hidden = jnp.einsum("nd,edh->neh", student, experts["hidden_kernel"]) + experts["hidden_bias"][None]
    # Mixing before the second layer keeps [N, E, T] out of memory.
    mixed = choice[..., None] * jax.nn.relu(hidden)
    return jnp.einsum("neh,eht->nt", mixed, experts["out_kernel"]) + choice @ experts["out_bias"]


def reconstruction_errors(
    experts: Experts,
    student: Float[Array, "N D"],
    teacher: Float[Array, "N T"],
    noise: Float[Array, "N E"],
    temperature: Float[Array, ""] | float,
) -> Float[Array, " N"]:
    """``‖t − t̂‖²`` of every entity, with the experts chosen by the teacher's vector.

    Args:
        experts: learn, as does ``student``.
        student: s.
        teacher: t, which does not learn.
        noise: see :func:`relaxed_choice`.
        temperature: T, positive; see :func:`annealed_temperature`.

    Reference:
        Kang et al., DE-RRD: a knowledge distillation framework for recommender system, CIKM 2020, eq. 1–4.
    """
    teacher = jax.lax.stop_gradient(teacher)
    choice = relaxed_choice(gate(experts, teacher), noise, temperature)
    return ((teacher - reconstruct(experts, student, choice)) ** 2).sum(-1)


def annealed_temperature(
    step: Int[Array, ""] | int, end: Float[Array, ""] | float, *, total: Float[Array, ""] | int, floor: float = 1e-2
) -> Float[Array, ""]:
    """``max(floor, end^(step / total))``: from 1 towards ``end``, exponentially.

    The authors go on to 1e-10, where the gate's gradient is 0 nearly everywhere and 1e10 elsewhere; their own runs
    stop long before. The floor keeps ours from it.

    Args:
        step: steps taken.
        end: temperature at the last step, without the floor; positive.
        total: planned steps.
        floor: least temperature.
    """
    return jnp.maximum(floor, jnp.exp(jnp.log(end) * step / total))
