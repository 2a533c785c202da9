"""Training with a distillation loss, which is added to the student's own loss.

Its inputs reach it in ``batch.loss_inputs["distillation"]``.
Every number that a search for options varies (the weight, a temperature) is an array among them, so one compiled
program serves a whole grid. The distillation loss draws its noise from a separate key, so the batches and the noise of
the student's own loss are those of the plain student. With weight 0 a method runs the plain student's program, and its
steps are equal to the bit.
"""

import functools
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from alkd_jax import scoring, training
from alkd_jax.models import Encoder, Params
from alkd_jax.objectives import Loss, in_batch_loss
from alkd_jax.training.examples import sequences_of
from alkd_jax.training.fit import ExtraParamsInit
from alkd_jax.types import PAD, Batch, Rankings, Sequences, Sessions

_DISTILLATION_STREAM = 0x6B64
"""Number folded into a step's key to get the key of the distillation loss."""


@flax.struct.dataclass
class TeacherEmbeddings:
    """A conventional teacher's embeddings, computed once before the student trains.

    Attributes:
        sessions: ``[N, T]`` the session vector u of every training session.
        items: ``[V1, T]`` the output item table Y, V1 = V + 1; row 0 is padding.
    """

    sessions: Float[Array, "N T"]
    items: Float[Array, "V1 T"]


def encode_teacher(
    teacher_model: Encoder, teacher_params: Params, train: Sessions, *, batch_size: int = 1024
) -> TeacherEmbeddings:
    """Encodes every training session with the teacher.

    Args:
        teacher_model: the teacher's backbone.
        teacher_params: its parameters, without a seed axis.
        train: the training sessions, N of them.
        batch_size: sessions encoded at a time.

    Returns:
        The vectors of the sessions and of all items.
    """
    batches = _slices(len(train), batch_size)
    sessions = [_encode(teacher_model, teacher_params, train.items[rows], train.mask[rows]) for rows in batches]
    items = teacher_model.apply(teacher_params, method="item_embeddings")
    return TeacherEmbeddings(jnp.concatenate(sessions), jnp.asarray(items))


@functools.partial(jax.jit, static_argnums=0)
def _encode(model: Encoder, params: Params, items: Array, mask: Array) -> Array:
    return model.apply(params, items, mask)


def all_session_items(train: Sessions, sequences: Sequences | None) -> Int[np.ndarray, "N L"]:
    """Puts every item of every training session into one array, targets included.

    Args:
        train: the training sessions, N of them.
        sequences: the same sessions at full length; by default the items that ``train`` holds.

    Returns:
        ``[N, L]`` int32 items, L the length of the longest session; 0 fills shorter ones.

    Raises:
        ValueError: the number of sequences is not the number of sessions.
    """
    sequences = sequences_of(train) if sequences is None else sequences
    if len(sequences) != len(train):
        raise ValueError(f"sequences has {len(sequences)} sessions; expected the {len(train)} of train")
    offsets = np.asarray(sequences.offsets)
    position = offsets[:-1, None] + np.arange(np.diff(offsets).max())
    valid = position < offsets[1:, None]
    return np.where(valid, np.asarray(sequences.items)[np.where(valid, position, 0)], PAD).astype(np.int32)


def teacher_lists(
    teacher: TeacherEmbeddings,
    k: int,
    exclude: Int[np.ndarray, "N L"],
    *,
    table: Array | None = None,
    batch_size: int = 1024,
) -> Int[np.ndarray, "N K"]:
    """Lists the teacher's k best items for every training session.

    Args:
        teacher: its embeddings.
        k: K, length of the lists.
        exclude: items that a session's list leaves out; 0 fills shorter rows.
        table: rows of an item table to rank, row 0 padding; by default the teacher's.
        batch_size: sessions ranked at a time.

    Returns:
        ``[N, K]`` int32 rows of the table, best first; 0 where fewer are left.
    """
    table = teacher.items if table is None else table
    batches = _slices(len(exclude), batch_size)
    ids = np.concatenate([np.asarray(_top_k(teacher.sessions[rows], table, k, exclude[rows])) for rows in batches])
    return np.asarray(Rankings.from_top_k(np.arange(len(ids)), ids).items)


@functools.partial(jax.jit, static_argnums=2)
def _top_k(vectors: Array, table: Array, k: int, exclude: Array) -> Array:
    return scoring.top_k(vectors, table, k, exclude=exclude)[1]


def _slices(length: int, batch_size: int) -> list[slice]:
    return [slice(start, start + batch_size) for start in range(0, length, batch_size)]


def distillation_key(key: jax.Array) -> jax.Array:
    """Derives the key of the distillation loss from a step's key, which the student's own loss uses as it is."""
    return jax.random.fold_in(key, _DISTILLATION_STREAM)


def num_valid_rows(batch: Batch) -> Float[Array, ""]:
    """Returns B, the number of rows with a weight above 0, but at least 1; sums over entities are divided by it."""
    return jnp.maximum((batch.weight > 0).sum(), 1).astype(batch.weight.dtype)


@functools.lru_cache(maxsize=64)
def regularized_loss(student_loss: Loss, distillation_loss: Loss) -> Loss:
    """``L = L_student + λ L_distillation``, λ in ``batch.loss_inputs["distillation"]["weight"]``.

    Args:
        student_loss: the loss of the plain student.
        distillation_loss: the distillation loss; it gets the same key for the same dropout, and draws its noise from
            :func:`distillation_key`.
    """

    def loss(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        weight = batch.loss_inputs["distillation"]["weight"]
        return student_loss(params, batch, key) + weight * distillation_loss(params, batch, key)

    return loss


def fit_with_distillation(
    key: jax.Array,
    model: Encoder,
    train: Sessions,
    validation: Sessions,
    distillation_loss: Loss,
    distillation_inputs: Mapping[str, Any],
    *,
    loss: Loss | None = None,
    loss_inputs: Mapping[str, Any] | None = None,
    extra_params_init: ExtraParamsInit | None = None,
    **options: Any,
) -> training.FitResult:
    """Trains a student with the sum of its own loss and a distillation loss.

    Args:
        key: a JAX key; the function consumes it. The same key trains the plain student.
        model: the student's backbone.
        train: the training sessions.
        validation: the sessions that decide when training stops.
        distillation_loss: the loss that is added; see :func:`regularized_loss`.
        distillation_inputs: its inputs, which it reads from ``batch.loss_inputs["distillation"]``; "weight" is λ.
        loss: the student's own loss; default in-batch BPR.
        loss_inputs: inputs of the student's own loss, which it reads from ``batch.loss_inputs``.
        extra_params_init: function that makes further parameters, which the distillation loss trains.
        **options: further options of :func:`alkd_jax.training.fit`.

    Returns:
        The trained student, without the further parameters.

    Raises:
        ValueError: "targets" among the options is not "last": the teacher's vectors encode sessions without their
            held-out item, so that they match no other target; or the weight is negative or not finite.
    """
    if options.get("targets", "last") != "last":
        raise ValueError(
            f"targets is {options['targets']!r}; expected 'last', the target of the teacher's session vectors"
        )
    check_weight(distillation_inputs["weight"])
    loss = in_batch_loss(model) if loss is None else loss
    if distillation_inputs["weight"] == 0:
        # The compiler may round the sum with a term of 0 differently from the sum without it.
        return training.fit(key, model, train, validation, loss=loss, loss_inputs=loss_inputs, **options)
    loss = regularized_loss(loss, distillation_loss)  # type: ignore[arg-type]
    loss_inputs = {**(loss_inputs or {}), "distillation": as_arrays(distillation_inputs)}
    return training.fit(
        key,
        model,
        train,
        validation,
        loss=loss,
        loss_inputs=loss_inputs,
        extra_params_init=extra_params_init,
        **options,
    )


def as_arrays(distillation_inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Turns the plain numbers among the inputs into float32 arrays, so that other numbers compile nothing new."""

    def as_array(leaf: Any) -> Any:
        return jnp.float32(leaf) if isinstance(leaf, int | float) else leaf

    return jax.tree.map(as_array, dict(distillation_inputs))


def check_weight(weight: float) -> None:
    """Raises ValueError for a weight that is negative or not finite."""
    if not 0 <= weight < np.inf:
        raise ValueError(f"weight is {weight}; expected a finite number, at least 0")
