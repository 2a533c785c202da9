"""What the distillation methods share: their signature, and training with a loss that is added to the student's own.

Every number that a search for options varies (the weight, a temperature) is an array of the loss, so one compiled
program serves a whole grid. The distillation loss draws its noise from a separate key, so the batches and the noise of
the student's own loss are those of the plain student. With weight 0 a method runs the plain student's program, and its
steps are equal to the bit.
"""

from collections.abc import Callable
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from alkd_jax import training
from alkd_jax.models import Encoder, Params
from alkd_jax.objectives import Loss
from alkd_jax.training.arguments import select_loss
from alkd_jax.training.initial import ExtraParamsInit
from alkd_jax.types import Batch, Sessions

_DISTILLATION_STREAM = 0x6B64
"""Number folded into a step's key to get the key of the distillation loss."""


class DistillationMethod(Protocol):
    """The signature of the methods, and of a user's own, which is named by ``package.module:attribute``."""

    def __call__(
        self, key: jax.Array, model: Encoder, teacher: Any, train: Sessions, validation: Sessions, **fit_options: Any
    ) -> training.FitResult:
        """Trains students.

        The methods of this package also take ``options``, the ``Options`` of their module; making these raises
        ``ValueError`` for one that is out of its range. Methods that leave a session's items out of the teacher's
        lists, or count items, take ``sequences``, the training sessions at full length; by default the items that
        ``train`` holds.

        Args:
            key: a JAX key; the function consumes it. The same key trains the plain student.
            model: the student's backbone.
            teacher: a :class:`alkd_jax.distillation.TeacherModel`, or the :class:`alkd_jax.Rankings` of an LLM.
            train: the training sessions.
            validation: the sessions that decide when training stops.
            **fit_options: options of :func:`alkd_jax.training.fit`; ``loss`` is the student's own loss.

        Returns:
            The trained student.

        Raises:
            ValueError: as in :func:`alkd_jax.training.fit`.
        """
        ...


@flax.struct.dataclass
class Regularized:
    """``L = L_student + λ L_distillation``.

    Attributes:
        student: the loss of the plain student.
        distillation: the distillation loss; it gets the same key for the same dropout, and draws its noise from
            :func:`distillation_key`.
        weight: λ.
    """

    student: Loss
    distillation: Loss
    weight: Float[Array, ""] | float

    def __call__(self, params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """Returns the loss of a batch."""
        return self.student(params, batch, key) + self.weight * self.distillation(params, batch, key)


def distillation_key(key: jax.Array) -> jax.Array:
    """Derives the key of the distillation loss from a step's key, which the student's own loss uses as it is."""
    return jax.random.fold_in(key, _DISTILLATION_STREAM)


def fit_with_distillation(
    key: jax.Array,
    model: Encoder,
    train: Sessions,
    validation: Sessions,
    distillation: Loss,
    weight: float,
    *,
    loss: Callable[..., Any] | None = None,
    extra_params_init: ExtraParamsInit | None = None,
    **fit_options: Any,
) -> training.FitResult:
    """Trains a student with the sum of its own loss and a distillation loss; see :class:`DistillationMethod`.

    Args:
        distillation: the loss that is added.
        weight: λ of :class:`Regularized`, at least 0.
        loss: the student's own loss; default in-batch BPR.
        extra_params_init: function that makes further parameters, which the distillation loss trains.
        **fit_options: further options of :func:`alkd_jax.training.fit`.

    Returns:
        The trained student, without the further parameters.

    Raises:
        ValueError: "targets" among the options is not "last": the teacher's vectors encode sessions without their
            held-out item, so that they match no other target; or the weight is negative or not finite.
    """
    if fit_options.get("targets", "last") != "last":
        raise ValueError(
            f"targets is {fit_options['targets']!r}; expected 'last', the target of the teacher's session vectors"
        )
    check_weight(weight=weight)
    student = select_loss(loss, model)
    if weight == 0:
        # The compiler may round the sum with a term of 0 differently from the sum without it.
        return training.fit(key, model, train, validation, loss=student, **fit_options)
    regularized = Regularized(student, distillation, jnp.float32(weight))
    return training.fit(
        key, model, train, validation, loss=regularized, extra_params_init=extra_params_init, **fit_options
    )


def check_weight(**weights: float) -> None:
    """Raises ValueError for a weight that is negative or not finite."""
    for name, weight in weights.items():
        if not 0 <= weight < np.inf:
            raise ValueError(f"{name} is {weight}; expected a finite number, at least 0")


def check_positive(**numbers: float) -> None:
    """Raises ValueError for a number that is not above 0 or not finite."""
    for name, number in numbers.items():
        if not 0 < number < np.inf:
            raise ValueError(f"{name} is {number}; expected a finite number above 0")


def check_fraction(**numbers: float) -> None:
    """Raises ValueError for a number that is not above 0 and at most 1."""
    for name, number in numbers.items():
        if not 0 < number <= 1:
            raise ValueError(f"{name} is {number}; expected above 0 and at most 1")
