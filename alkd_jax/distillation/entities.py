"""Entities of representation distillation: the sessions and items of a batch, with student's and teacher's vectors."""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.distillation.inputs import TeacherEmbeddings
from alkd_jax.models import Encoder, Params
from alkd_jax.objectives import encode
from alkd_jax.ops import lookup
from alkd_jax.types import Batch


@flax.struct.dataclass
class Entities:
    """Sessions or items, with a vector of the student and one of the teacher for each.

    Attributes:
        student: ``[N, D]`` the student's vectors, which are trained.
        teacher: ``[N, T]`` the teacher's vectors, which are constants.
        weight: ``[N]`` weight of each row in sums; 0 for padding.
    """

    student: Float[Array, "N D"]
    teacher: Float[Array, "N T"]
    weight: Float[Array, " N"]


def normalize(vectors: Float[Array, "N D"]) -> Float[Array, "N D"]:
    """``x / √(‖x‖² + 1e-12)``: vectors of length 1; a vector of zeros stays 0 and has a finite gradient."""
    return vectors * jax.lax.rsqrt((vectors * vectors).sum(-1, keepdims=True) + 1e-12)


def inverse_counts(ids: Int[Array, " N"], valid: Bool[Array, " N"]) -> Float[Array, " N"]:
    """``w_n = 1 / #{m : id_m = id_n}`` over valid rows, so that a weighted sum over rows is a sum over distinct ids.

    Args:
        ids: sessions or items.
        valid: True for the rows that are counted; the others get weight 0.

    Returns:
        ``[N]`` weights in [0, 1].
    """
    occurrences = ((ids[:, None] == ids[None, :]) & valid[None, :]).sum(1)
    return jnp.where(valid, 1.0 / jnp.maximum(occurrences, 1), 0.0)


def session_entities(
    model: Encoder, params: Params, batch: Batch, teacher: TeacherEmbeddings, key: jax.Array
) -> Entities:
    """Encodes the sessions of a batch; the weights count each distinct session once.

    Args:
        model: the student's backbone.
        params: its parameters.
        batch: a batch of examples.
        teacher: the teacher's embeddings.
        key: a JAX key for the student's dropout.
    """
    weight = inverse_counts(batch.session, batch.weight > 0)
    return Entities(encode(model, params, batch, key), teacher.sessions[batch.session], weight)


def item_entities(
    model: Encoder, params: Params, items: Int[Array, " N"], teacher: TeacherEmbeddings, valid: Bool[Array, " N"]
) -> Entities:
    """Looks up items in the output tables; the weights count each distinct item once.

    Args:
        model: the student's backbone.
        params: its parameters.
        items: the items.
        teacher: the teacher's embeddings.
        valid: True for the rows that are counted.
    """
    table = model.apply(params, method="item_embeddings")
    return Entities(lookup.embedding_lookup(table, items), teacher.items[items], inverse_counts(items, valid))


def sample_items(key: jax.Array, model: Encoder, num: int) -> Int[Array, " num"]:
    """Samples ``num`` items uniformly from the catalogue, with replacement."""
    return jax.random.randint(key, (num,), 1, model.num_items + 1)


def concatenate(*entities: Entities) -> Entities:
    """Joins entities of several kinds along the first axis."""
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *entities)


def batch_entities(
    model: Encoder, params: Params, batch: Batch, teacher: TeacherEmbeddings, key: jax.Array, sample_key: jax.Array
) -> tuple[Entities, Entities]:
    """Collects the distinct sessions of a batch, and its distinct items: the targets and as many sampled items.

    Args:
        model: the student's backbone.
        params: its parameters.
        batch: a batch of examples.
        teacher: the teacher's embeddings.
        key: a JAX key for the student's dropout.
        sample_key: a JAX key for the sampled items.

    Returns:
        The sessions, and the items.
    """
    valid = batch.weight > 0
    items = jnp.concatenate([batch.target, sample_items(sample_key, model, len(valid))])
    item_vectors = item_entities(model, params, items, teacher, jnp.concatenate([valid, valid]))
    return session_entities(model, params, batch, teacher, key), item_vectors
