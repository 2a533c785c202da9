"""DE, distillation experts: small networks reconstruct the teacher's session and item vectors from the student's."""

import functools
from typing import Any

import jax
from jaxtyping import Array, Float

from alkd_jax import training
from alkd_jax.checks import check_at_least
from alkd_jax.distillation.entities import item_entities, sample_items, session_entities
from alkd_jax.distillation.experts import (
    annealed_temperature,
    check_temperature,
    init_expert_pair,
    reconstruction_loss,
)
from alkd_jax.distillation.inputs import distillation_key, encode_teacher, fit_with_distillation, num_valid_rows
from alkd_jax.models import Encoder, Params
from alkd_jax.objectives import Loss
from alkd_jax.types import Batch, Sessions


@functools.lru_cache(maxsize=64)
def expert_objective(model: Encoder) -> Loss:
    """``(Σ_sessions l + ½ (Σ_positives l + Σ_negatives l)) / B`` over distinct entities; the negatives are uniform.

    l is :func:`alkd_jax.distillation.experts.reconstruction_errors`. ``params["experts"]`` holds the experts of
    sessions and those of items; ``batch.loss_inputs["distillation"]`` holds "teacher", "temperature_end" and
    "total_steps".

    Args:
        model: the student's backbone.
    """

    def loss(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        distillation_inputs = batch.loss_inputs["distillation"]
        teacher, total_steps = distillation_inputs["teacher"], distillation_inputs["total_steps"]
        keys = jax.random.split(distillation_key(key), 4)
        valid = batch.weight > 0
        temperature = annealed_temperature(batch.step, distillation_inputs["temperature_end"], total=total_steps)
        sessions = session_entities(model, params, batch, teacher, key)
        sampled_items = sample_items(keys[0], model, len(valid))
        positives, negatives = (
            item_entities(model, params, items, teacher, valid) for items in (batch.target, sampled_items)
        )
        experts = params["experts"]
        item_loss = reconstruction_loss(keys[2], experts["item"], positives, temperature)
        item_loss += reconstruction_loss(keys[3], experts["item"], negatives, temperature)
        session_loss = reconstruction_loss(keys[1], experts["session"], sessions, temperature)
        return (session_loss + 0.5 * item_loss) / num_valid_rows(batch)

    return loss


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
    """Trains a student together with experts that reconstruct the teacher's vectors; only the student is returned.

    The default weight is the authors'. It belongs to a sum over entities divided by the batch size, because the
    student's own loss is a mean.

    Args:
        key: a JAX key; the function consumes it. The same key trains the plain student.
        model: the student's backbone.
        teacher_model: the teacher's backbone.
        teacher_params: its parameters, without a seed axis.
        train: the training sessions.
        validation: the sessions that decide when training stops.
        weight: λ, at least 0.
        num_experts: E, of the sessions and again of the items, at least 1.
        temperature_end: in (0, 1]; the temperature falls from 1 towards it over ``max_steps``, but not below 0.01.
        max_steps: as in :func:`alkd_jax.training.fit`.
        **options: ``loss`` and ``loss_inputs`` of the student's own loss; further options of
            :func:`alkd_jax.training.fit`.

    Returns:
        The trained student.

    Raises:
        ValueError: an option is out of its range, or as in :func:`alkd_jax.training.fit`.

    Reference:
        Kang et al., DE-RRD: a knowledge distillation framework for recommender system, CIKM 2020.
    """
    check_at_least(1, num_experts=num_experts)
    check_temperature(temperature_end)
    distillation_inputs = {
        "teacher": encode_teacher(teacher_model, teacher_params, train),
        "weight": weight,
        "temperature_end": temperature_end,
        "total_steps": max_steps,
    }
    distillation_loss = expert_objective(model)
    return fit_with_distillation(
        key,
        model,
        train,
        validation,
        distillation_loss,
        distillation_inputs,
        extra_params_init=init_expert_pair(num_experts, teacher_model.dim),
        max_steps=max_steps,
        **options,
    )
