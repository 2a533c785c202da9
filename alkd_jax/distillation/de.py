"""DE: experts rebuild the teacher's vectors of the batch's sessions and items from the student's."""

import functools
from typing import Any

import jax
from jaxtyping import Array, Float

from alkd_jax import training
from alkd_jax.distillation.entities import Entities, batch_items, batch_sessions, draw_items
from alkd_jax.distillation.experts import Experts, annealed_temperature, init_experts, reconstruction_errors
from alkd_jax.distillation.inputs import counted_rows, fit_with_distillation, noise_key, teacher_vectors
from alkd_jax.models import Encoder, Params
from alkd_jax.objectives import Loss
from alkd_jax.training.fit import ExtraParams
from alkd_jax.types import Batch, Sessions


def total_error(
    key: jax.Array, experts: Experts, entities: Entities, temperature: Float[Array, ""]
) -> Float[Array, ""]:
    """``Σ_n w_n ‖t_n − t̂_n‖²``, with fresh Gumbel noise."""
    noise = jax.random.gumbel(key, (entities.student.shape[0], experts["gate_bias"].shape[0]))
    errors = reconstruction_errors(experts, entities.student, entities.teacher, noise, temperature)
    return entities.weight @ errors


@functools.lru_cache(maxsize=64)
def expert_term(model: Encoder) -> Loss:
    """``(Σ_sessions l + ½ (Σ_positives l + Σ_negatives l)) / B`` over distinct entities; the negatives are uniform.

    ``params["experts"]`` holds those of sessions and items; ``batch.aside["distillation"]`` holds "teacher",
    "temperature_end" and "total" steps.

    Args:
        model: the student's backbone.
    """

    def term(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        guide = batch.loss_inputs["distillation"]
        keys = jax.random.split(noise_key(key), 4)
        counted = batch.weight > 0
        temperature = annealed_temperature(batch.step, guide["temperature_end"], total=guide["total"])
        sessions = batch_sessions(model, params, batch, guide["teacher"], key)
        drawn = draw_items(keys[0], model, len(counted))
        positives, negatives = (
            batch_items(model, params, items, guide["teacher"], counted) for items in (batch.target, drawn)
        )
        of_sessions, of_items = params["experts"]["session"], params["experts"]["item"]
        items = total_error(keys[2], of_items, positives, temperature)
        items += total_error(keys[3], of_items, negatives, temperature)
        return (total_error(keys[1], of_sessions, sessions, temperature) + 0.5 * items) / counted_rows(batch)

    return term


@functools.lru_cache(maxsize=64)
def init_expert_pair(num: int, teacher_dim: int) -> ExtraParams:
    """Draws experts for sessions and others for items, as a collection beside the student's parameters.

    Args:
        num: E, of either.
        teacher_dim: the teacher's width.
    """

    def extra_params_init(key: jax.Array, student: Encoder) -> Params:
        keys = zip(("session", "item"), jax.random.split(key), strict=True)
        widths = {"num_experts": num, "student_dim": student.dim, "teacher_dim": teacher_dim}
        return {"experts": {kind: init_experts(k, **widths) for kind, k in keys}}

    return extra_params_init


def distill(
    key: jax.Array,
    model: Encoder,
    teacher_model: Encoder,
    teacher_params: Params,
    train: Sessions,
    validation: Sessions,
    *,
    weight: float = 0.01,
    num_experts: int = 30,
    temperature_end: float = 1e-10,
    max_steps: int = 10_000,
    **options: Any,
) -> training.FitResult:
    """Trains a student whose vectors let experts rebuild the teacher's; the experts are dropped at the end.

    The weight is the authors', for a sum over entities divided by the batch size, as the base loss is a mean.

    Args:
        key: consumed; the same key trains the plain student.
        model: the student's backbone.
        teacher_model: the teacher's.
        teacher_params: its parameters, without a seed axis.
        train: the training sessions.
        validation: sessions that decide when to stop.
        weight: λ.
        num_experts: E, for sessions and again for items.
        temperature_end: the choice's temperature falls from 1 towards this over ``max_steps``, but not below 0.01.
        max_steps: as in :func:`alkd_jax.training.fit`.
        **options: ``base`` and ``loss_inputs`` of the student's own loss; options of :func:`alkd_jax.training.fit`.

    Raises:
        ValueError: as :func:`alkd_jax.training.fit`; the weight is negative, there is no expert, the temperature is
            not positive.

    Reference:
        Kang et al., DE-RRD: a knowledge distillation framework for recommender system, CIKM 2020.
    """
    check_experts(num_experts, temperature_end)
    guide = {
        "teacher": teacher_vectors(teacher_model, teacher_params, train),
        "weight": weight,
        "temperature_end": temperature_end,
        "total": max_steps,
    }

    extra_params_init = init_expert_pair(num_experts, teacher_model.dim)
    return fit_with_distillation(
        key,
        model,
        train,
        validation,
        expert_term(model),
        guide,
        extra_params_init=extra_params_init,
        max_steps=max_steps,
        **options,
    )


def check_experts(num_experts: int, temperature_end: float) -> None:
    """Raises ValueError where there is no expert or the final temperature is not in (0, 1]."""
    if num_experts < 1:
        raise ValueError(f"num_experts is {num_experts}; expected at least 1")
    if not 0 < temperature_end <= 1:
        raise ValueError(f"temperature_end is {temperature_end}; expected above 0 and at most 1")
