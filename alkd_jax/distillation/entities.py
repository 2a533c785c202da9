"""What representation distillation compares: a batch's sessions and items, as student and teacher see them."""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.distillation.inputs import Teacher
from alkd_jax.models import Encoder, Params
from alkd_jax.objectives import encode
from alkd_jax.ops import lookup
from alkd_jax.types import Batch


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


def normalize(vectors: Float[Array, "N D"]) -> Float[Array, "N D"]:
    """``x / √(‖x‖² + 1e-12)``: length 1, and 0 with a finite gradient for a vector of zeros."""
    return vectors * jax.lax.rsqrt((vectors * vectors).sum(-1, keepdims=True) + 1e-12)


def inverse_counts(ids: Int[Array, " N"], counted: Bool[Array, " N"]) -> Float[Array, " N"]:
    """``1 / how often the id occurs``, so that a sum over rows is a sum over distinct ids.

    Args:
        ids: sessions or items.
        counted: rows that count; the others weigh 0.
    """
    occurrences = ((ids[:, None] == ids[None, :]) & counted[None, :]).sum(1)
    return jnp.where(counted, 1.0 / jnp.maximum(occurrences, 1), 0.0)


def batch_sessions(model: Encoder, params: Params, batch: Batch, teacher: Teacher, key: jax.Array) -> Entities:
    """The batch's sessions, each once; the key is for the student's dropout."""
    weight = inverse_counts(batch.session, batch.weight > 0)
    return Entities(encode(model, params, batch, key), teacher.sessions[batch.session], weight)


def batch_items(
    model: Encoder, params: Params, items: Int[Array, " N"], teacher: Teacher, counted: Bool[Array, " N"]
) -> Entities:
    """Items with the rows of the output tables, each once."""
    table = model.apply(params, method="item_embeddings")
    return Entities(lookup.embedding_lookup(table, items), teacher.items[items], inverse_counts(items, counted))


def draw_items(key: jax.Array, model: Encoder, num: int) -> Int[Array, " num"]:
    """Items drawn uniformly from the catalogue, the negatives among the entities."""
    return jax.random.randint(key, (num,), 1, model.num_items + 1)


def stack(*parts: Entities) -> Entities:
    """Puts entities of several kinds below each other."""
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
