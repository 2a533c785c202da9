"""What representation distillation compares: a batch's sessions and items, as student and teacher see them."""

import functools

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.models import Encoder, Params
from alkd_jax.types import Sessions


@flax.struct.dataclass
class Teacher:
    """A conventional teacher's vectors, computed once before the student trains.

    Attributes:
        sessions: ``[N, T]`` u of every training session.
        items: ``[V, T]`` the output table Y; row 0 is padding.
    """

    sessions: Float[Array, "N T"]
    items: Float[Array, "V T"]


@flax.struct.dataclass
class Entities:
    """Sessions or items with both their vectors.

    Attributes:
        student: ``[N, D]`` the student's vectors, which learn.
        teacher: ``[N, T]`` the teacher's.
        weight: ``[N]`` how much each row counts, 0 for a filler.
    """

    student: Float[Array, "N D"]
    teacher: Float[Array, "N T"]
    weight: Float[Array, " N"]


def teacher_vectors(model: Encoder, params: Params, train: Sessions, *, batch_size: int = 1024) -> Teacher:
    """Encodes every training session with the teacher.

    Args:
        model: the teacher's backbone.
        params: its parameters, without a seed axis.
        train: the training sessions, N of them.
        batch_size: sessions encoded at a time.
    """
    encode = _encoder(model)
    starts = range(0, len(train), batch_size)
    pieces = [
        encode(params, train.items[start : start + batch_size], train.mask[start : start + batch_size])
        for start in starts
    ]
    return Teacher(jnp.concatenate(pieces), jnp.asarray(model.apply(params, method="item_embeddings")))


@functools.lru_cache(maxsize=64)
def _encoder(model: Encoder):  # type: ignore[no-untyped-def]
    return jax.jit(model.apply)


def unit(vectors: Float[Array, "N D"]) -> Float[Array, "N D"]:
    """``x / √(‖x‖² + 1e-12)``: length 1, and 0 with a finite gradient for a vector of zeros."""
    return vectors * jax.lax.rsqrt((vectors * vectors).sum(-1, keepdims=True) + 1e-12)


def once(ids: Int[Array, " N"], counted: Bool[Array, " N"]) -> Float[Array, " N"]:
    """``1 / how often the id occurs``, so that a sum over rows is a sum over distinct ids.

    Args:
        ids: sessions or items.
        counted: rows that count; the others weigh 0.
    """
    occurrences = ((ids[:, None] == ids[None, :]) & counted[None, :]).sum(1)
    return jnp.where(counted, 1.0 / jnp.maximum(occurrences, 1), 0.0)


def stack(parts: tuple[Entities, ...]) -> Entities:
    """Puts entities of several kinds below each other."""
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
