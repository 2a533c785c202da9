"""DE, distillation experts: small networks reconstruct the teacher's session and item vectors from the student's."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from alkd_jax import training
from alkd_jax.checks import check_count
from alkd_jax.distillation.entities import RepresentationLoss, num_valid_rows, sample_items
from alkd_jax.distillation.experts import ExpertInit, annealed_temperature, reconstruction_loss
from alkd_jax.distillation.method import check_fraction, check_weight, distillation_key, fit_with_distillation
from alkd_jax.distillation.teacher import TeacherModel, encode_teacher
from alkd_jax.models import Encoder, Params
from alkd_jax.types import Batch, Sessions


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of :func:`distill`.

    The default weight is the authors'. It belongs to a sum over entities divided by the batch size, because the
    student's own loss is a mean.

    Attributes:
        weight: λ, at least 0.
        num_experts: E, of the sessions and again of the items, at least 1.
        temperature_end: in (0, 1]; the temperature falls from 1 towards it over ``max_steps``, but not below 0.01.
    """

    weight: float = 0.01
    num_experts: int = 30
    temperature_end: float = 1e-10

    def __post_init__(self) -> None:
        check_weight(weight=self.weight)
        check_count(1, num_experts=self.num_experts)
        check_fraction(temperature_end=self.temperature_end)


@flax.struct.dataclass
class ExpertReconstruction(RepresentationLoss):
    """``(Σ_sessions l + ½ (Σ_positives l + Σ_negatives l)) / B`` over distinct entities; the negatives are uniform.

    l is :func:`alkd_jax.distillation.experts.reconstruction_errors`. ``params["experts"]`` holds the experts of
    sessions and those of items.

    Attributes:
        temperature_end: see :class:`Options`.
        total_steps: number of steps over which the temperature falls.
    """

    temperature_end: Float[Array, ""] | float
    total_steps: Float[Array, ""] | float

    def __call__(self, params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """Returns the loss of a batch."""
        keys = jax.random.split(distillation_key(key), 4)
        valid = batch.weight > 0
        temperature = annealed_temperature(batch.step, self.temperature_end, total=self.total_steps)
        sessions = self.session_entities(params, batch, key)
        sampled_items = sample_items(keys[0], self.model, len(valid))
        positives, negatives = (
            self.item_entities(params, items, valid, key) for items in (batch.target, sampled_items)
        )
        experts = params["experts"]
        item_loss = reconstruction_loss(keys[2], experts["item"], positives, temperature)
        item_loss += reconstruction_loss(keys[3], experts["item"], negatives, temperature)
        session_loss = reconstruction_loss(keys[1], experts["session"], sessions, temperature)
        return (session_loss + 0.5 * item_loss) / num_valid_rows(batch)


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
    """Trains a student together with experts that reconstruct the teacher's vectors; only the student is returned.

    The parameters are those of :class:`alkd_jax.distillation.DistillationMethod`.

    Reference:
        Kang et al., DE-RRD: a knowledge distillation framework for recommender system, CIKM 2020.
    """
    temperature_end, total_steps = map(jnp.float32, (options.temperature_end, max_steps))
    embeddings = encode_teacher(teacher, train)
    loss = ExpertReconstruction(model, embeddings, temperature_end, total_steps)
    init = ExpertInit(options.num_experts, embeddings.items.shape[1])
    return fit_with_distillation(
        key, model, train, validation, loss, options.weight, extra_params_init=init, max_steps=max_steps, **fit_options
    )
