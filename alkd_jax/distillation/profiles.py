"""Profile distillation: at first the student's session vectors reconstruct vectors of the sessions' profiles."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from alkd_jax import training
from alkd_jax.checks import check_between, check_count
from alkd_jax.data.profile_vectors import ProfileVectors
from alkd_jax.distillation.method import check_fraction
from alkd_jax.models import Encoder, Params
from alkd_jax.models.encoder import vector_width
from alkd_jax.models.vector_components import whitened_components
from alkd_jax.objectives import BoundLoss, Loss
from alkd_jax.training.arguments import select_loss
from alkd_jax.types import Batch, Sessions

DECODER = "profile_decoder"
"""Name of the further parameters, which are not returned."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of :func:`distill`.

    Attributes:
        alpha: α in [0, 1), the share of the profiles in the loss of the first stage. The authors use 0.4.
        first_steps: in (0, 1], the share of ``max_steps`` after which the student's own loss is alone. Training may
            stop before.
        dim: P', number of components of the profiles' vectors, at least 1.
    """

    alpha: float = 0.4
    first_steps: float = 0.1
    dim: int = 16

    def __post_init__(self) -> None:
        check_between(0, 1, alpha=self.alpha)
        if self.alpha == 1:
            raise ValueError("alpha is 1; expected below 1, so that the student's own loss counts")
        check_fraction(first_steps=self.first_steps)
        check_count(1, dim=self.dim)


@dataclasses.dataclass(frozen=True)
class DecoderInit:
    """Makes the linear decoder of session vectors, as the ``extra_params_init`` of ``alkd_jax.training.fit``.

    Attributes:
        dim: P'.
    """

    dim: int

    def __call__(self, key: jax.Array, model: Encoder) -> Params:
        """Returns the decoder's kernel and bias."""
        width = vector_width(model)
        kernel = jax.random.normal(key, (width, self.dim)) / width**0.5
        return {DECODER: {"kernel": kernel, "bias": jnp.zeros(self.dim)}}


@flax.struct.dataclass
class ProfileDistillation(BoundLoss):
    """``α β MSE(H(s), T(profile)) + (1 − α) L_student`` in the first stage, then ``L_student``.

    ``H(s)`` is a linear function of the session's vector, which is trained along. β is the ratio of both losses'
    values, ``L_student / MSE``, and gets no gradient. The mean is over the sessions of a batch that have a profile;
    without any the term is 0.

    Attributes:
        student: the student's own loss.
        profiles: ``[N, P']`` T(profile) of each training session.
        has_profile: ``[N]`` 1 where a session has a profile, else 0.
        alpha: α.
        first_steps: number of steps of the first stage.

    Reference:
        Pre-trained LLMs meet sequential recommenders, ECIR 2026, arXiv 2604.21536. There H pools hidden states, and
        the rule for β is not given; the ratio of the values is ours.
    """

    student: Loss
    profiles: Float[Array, "N P"]
    has_profile: Float[Array, " N"]
    alpha: Float[Array, ""] | float
    first_steps: Float[Array, ""] | float

    def __call__(self, params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """Returns the loss of a batch."""
        own = self.student(params, batch, key)
        distance = self.distance(params, batch, key)
        ratio = jax.lax.stop_gradient(jnp.abs(own) / jnp.maximum(distance, 1e-12))
        first = self.alpha * ratio * distance + (1.0 - self.alpha) * own
        return jnp.where(batch.step < self.first_steps, first, own)

    def distance(self, params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """Returns the mean squared difference of decoded session vectors from the profiles of a batch's sessions."""
        vectors, decoder = self.encode(params, batch, key), params[DECODER]
        decoded = vectors @ decoder["kernel"] + decoder["bias"][None, :]
        weight = self.has_profile[batch.session] * (batch.weight > 0)
        squares = ((decoded - self.profiles[batch.session]) ** 2).mean(1)
        return (weight * squares).sum() / jnp.maximum(weight.sum(), 1.0)


def reduced_profiles(
    profiles: ProfileVectors, train: Sessions, dim: int
) -> tuple[Float[np.ndarray, "N P"], Float[np.ndarray, " N"]]:
    """Returns T(profile) of every training session, 0 without a profile, and 1 for the sessions that have one.

    T is the whitened principal components of the profiles' vectors, so that each has mean 0 and variance 1.

    Args:
        profiles: vectors of some of the sessions.
        train: N training sessions.
        dim: number of components.

    Raises:
        ValueError: no profile is of a training session, or all vectors are equal.
    """
    in_training = np.isin(profiles.session_id, np.asarray(train.session_id))
    if not in_training.any():
        raise ValueError(f"none of the {len(profiles)} profiles is of a training session; expected some that are")
    rows = train.rows_of(profiles.session_id[in_training])
    vectors = profiles.vectors[in_training]
    if np.ptp(vectors, axis=0).max() == 0:
        raise ValueError(f"the vectors of all {len(vectors)} profiles are equal; expected different ones")
    found, has_profile = np.zeros((len(train), dim), np.float32), np.zeros(len(train), np.float32)
    # A vector of zeros means that there is none; a constant entry, which whitening takes away, tells it from a profile.
    marked = np.concatenate([vectors, np.ones((len(vectors), 1), np.float32)], axis=1)
    found[rows], has_profile[rows] = whitened_components(marked, dim), 1.0
    return found, has_profile


def distill(
    key: jax.Array,
    model: Encoder,
    teacher: ProfileVectors,
    train: Sessions,
    validation: Sessions,
    *,
    options: Options = Options(),
    loss: Any = None,
    max_steps: int = 10_000,
    **fit_options: Any,
) -> training.FitResult:
    """Trains a student whose session vectors first learn to tell what the profiles tell.

    The parameters are those of :class:`alkd_jax.distillation.DistillationMethod`; the teacher is the profiles' vectors.

    Raises:
        ValueError: "targets" among the options is not "last", which a session's profile belongs to; the backbone has
            several vectors for a session; or as of :func:`reduced_profiles` and :func:`alkd_jax.training.fit`.

    Reference:
        Pre-trained LLMs meet sequential recommenders, ECIR 2026, arXiv 2604.21536.
    """
    if fit_options.get("targets", "last") != "last":
        raise ValueError(
            f"targets is {fit_options['targets']!r}; expected 'last', the target of the sessions' profiles"
        )
    student = select_loss(loss, model)
    reduced, has_profile = reduced_profiles(teacher, train, options.dim)
    if options.alpha == 0:
        return training.fit(key, model, train, validation, loss=student, max_steps=max_steps, **fit_options)
    objective = ProfileDistillation(
        model,
        student,
        jnp.asarray(reduced),
        jnp.asarray(has_profile),
        jnp.float32(options.alpha),
        jnp.float32(options.first_steps * max_steps),
    )
    return training.fit(
        key,
        model,
        train,
        validation,
        loss=objective,
        extra_params_init=DecoderInit(options.dim),
        max_steps=max_steps,
        **fit_options,
    )
