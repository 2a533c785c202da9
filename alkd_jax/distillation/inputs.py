"""How a baseline joins training: its term is added to the base loss, with what it needs in ``batch.aside``.

Everything a search varies (the weight, a temperature) lies in ``batch.aside["distillation"]`` as an array, so one
compilation serves a whole grid. The term's noise comes from a key of its own, so the batches and the base loss's noise
are the plain student's; with weight 0 a method runs the plain student's program, hence its steps bit for bit.
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
from alkd_jax.training.fit import ExtraParams
from alkd_jax.types import PAD, Batch, Sequences, Sessions

_NOISE = 0x6B64
"""Folded into a step's key for what the distillation draws."""


@flax.struct.dataclass
class Teacher:
    """A conventional teacher's vectors, computed once before the student trains.

    Attributes:
        sessions: ``[N, T]`` u of every training session.
        items: ``[V, T]`` the output table Y; row 0 is padding.
    """

    sessions: Float[Array, "N T"]
    items: Float[Array, "V T"]


def teacher_vectors(model: Encoder, params: Params, train: Sessions, *, batch_size: int = 1024) -> Teacher:
    """Encodes every training session with the teacher.

    Args:
        model: the teacher's backbone.
        params: its parameters, without a seed axis.
        train: the training sessions, N of them.
        batch_size: sessions encoded at a time.
    """
    starts = range(0, len(train), batch_size)
    pieces = [_encode(model, params, train.items[s : s + batch_size], train.mask[s : s + batch_size]) for s in starts]
    return Teacher(jnp.concatenate(pieces), jnp.asarray(model.apply(params, method="item_embeddings")))


@functools.partial(jax.jit, static_argnums=0)
def _encode(model: Encoder, params: Params, items: Array, mask: Array) -> Array:
    return model.apply(params, items, mask)


def whole_sessions(train: Sessions, sequences: Sequences | None) -> Int[np.ndarray, "N L"]:
    """Every item of every training session, targets included, 0 where there are fewer.

    Args:
        train: the training sessions.
        sequences: the same sessions uncut; by default as much of them as ``train`` holds.

    Raises:
        ValueError: there are not as many sequences as sessions.
    """
    sequences = sequences_of(train) if sequences is None else sequences
    if len(sequences) != len(train):
        raise ValueError(f"there are {len(sequences)} sequences; expected one for each of {len(train)} sessions")
    offsets = np.asarray(sequences.offsets)
    place = offsets[:-1, None] + np.arange(np.diff(offsets).max())
    inside = place < offsets[1:, None]
    return np.where(inside, np.asarray(sequences.items)[np.where(inside, place, 0)], PAD).astype(np.int32)


def top_lists(
    teacher: Teacher, k: int, exclude: Int[np.ndarray, "N L"], *, table: Array | None = None, batch_size: int = 1024
) -> Int[np.ndarray, "N K"]:
    """The teacher's k best items for every training session; −1 where there are fewer.

    Args:
        teacher: its vectors.
        k: list length.
        exclude: items left out, 0 where there are fewer.
        table: rows of the item table to choose from, row 0 the padding; by default all.
        batch_size: sessions at a time.
    """
    table = teacher.items if table is None else table
    starts = range(0, len(exclude), batch_size)
    pieces = [_top(teacher.sessions[s : s + batch_size], table, k, exclude[s : s + batch_size]) for s in starts]
    return np.concatenate([np.asarray(piece) for piece in pieces])


@functools.partial(jax.jit, static_argnums=2)
def _top(vectors: Array, table: Array, k: int, exclude: Array) -> Array:
    return scoring.top_k(vectors, table, k, exclude=exclude)[1]


def noise_key(key: jax.Array) -> jax.Array:
    """The key of what distillation draws at a step; the base loss draws from the step's own."""
    return jax.random.fold_in(key, _NOISE)


def counted_rows(batch: Batch) -> Float[Array, ""]:
    """B: how many rows of the batch count, at least 1. Sums over entities are divided by it, as the base loss is."""
    return jnp.maximum((batch.weight > 0).sum(), 1).astype(batch.weight.dtype)


@functools.lru_cache(maxsize=64)
def guided_loss(base: Loss, term: Loss) -> Loss:
    """``L = L_base + λ L_term``, λ in ``batch.aside["distillation"]["weight"]``.

    Args:
        base: the plain student's loss.
        term: the distillation loss; it gets the base loss's key, for the same dropout, and draws from
            :func:`noise_key`.
    """

    def loss(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        return base(params, batch, key) + batch.loss_inputs["distillation"]["weight"] * term(params, batch, key)

    return loss


def fit_with_distillation(
    key: jax.Array,
    model: Encoder,
    train: Sessions,
    validation: Sessions,
    term: Loss,
    guide: Mapping[str, Any],
    *,
    base: Loss | None = None,
    loss_inputs: Mapping[str, Any] | None = None,
    extra_params_init: ExtraParams | None = None,
    **options: Any,
) -> training.FitResult:
    """Trains a student by its own loss and a distillation term.

    Args:
        key: as in :func:`alkd_jax.training.fit`; the same key trains the plain student.
        model: the student's backbone.
        train: the training sessions.
        validation: sessions that decide when to stop.
        term: the distillation loss.
        guide: what the term finds in ``batch.aside["distillation"]``, the "weight" among it.
        base: the student's own loss; default in-batch BPR.
        loss_inputs: what the base loss finds in ``batch.aside``.
        extra_params_init: parameters of the term.
        **options: of :func:`alkd_jax.training.fit`.

    Raises:
        ValueError: training is not on the held-out items, which the teacher's session vectors belong to; the weight
            is negative or not finite.
    """
    if options.get("targets", "last") != "last":
        raise ValueError(f"targets is {options['targets']!r}; a teacher of whole sessions guides 'last' only")
    check_weight(guide["weight"])
    loss = in_batch_loss(model) if base is None else base
    if guide["weight"] == 0:
        # A compiler may round a sum with a term of 0 otherwise than the sum without.
        return training.fit(key, model, train, validation, loss=loss, loss_inputs=loss_inputs, **options)
    loss = guided_loss(loss, term)  # type: ignore[arg-type]
    loss_inputs = {**(loss_inputs or {}), "distillation": as_arrays(guide)}
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


def as_arrays(guide: Mapping[str, Any]) -> dict[str, Any]:
    """The guide with its numbers as arrays, so that other numbers are no other program."""
    return jax.tree.map(lambda leaf: jnp.float32(leaf) if isinstance(leaf, int | float) else leaf, dict(guide))


def check_weight(weight: float) -> None:
    """Raises ValueError for a distillation weight that is negative or not finite."""
    if not 0 <= weight < np.inf:
        raise ValueError(f"weight is {weight}; expected a number from 0")
