"""Entities of representation distillation: the sessions and items of a batch, with student's and teacher's vectors."""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.distillation.teacher import TeacherEmbeddings
from alkd_jax.models import Encoder, Params
from alkd_jax.objectives import BoundLoss
from alkd_jax.ops.lookup import embedding_lookup
from alkd_jax.ops.precision import at_least_float32
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


def num_valid_rows(batch: Batch) -> Float[Array, ""]:
    """Returns B, the number of rows with a weight above 0, but at least 1; sums over entities are divided by it."""
    return jnp.maximum((batch.weight > 0).sum(), 1).astype(batch.weight.dtype)


def sample_items(key: jax.Array, model: Encoder, num: int) -> Int[Array, " num"]:
    """Samples ``num`` items uniformly from the catalogue, with replacement."""
    return jax.random.randint(key, (num,), 1, model.num_items + 1)


def concatenate(*entities: Entities) -> Entities:
    """Joins entities of several kinds along the first axis."""
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *entities)


@flax.struct.dataclass
class RepresentationLoss(BoundLoss):
    """Base class of the losses that compare the student's vectors with the teacher's.

    Attributes:
        teacher: the teacher's embeddings.
    """

    teacher: TeacherEmbeddings

    def session_entities(self, params: Params, batch: Batch, key: jax.Array) -> Entities:
        """Encodes the sessions of a batch; the weights count each distinct session once. The key is for
        dropout.
        """
        weight = inverse_counts(batch.session, batch.weight > 0)
        return Entities(self.encode(params, batch, key), self.teacher.sessions[batch.session], weight)

    def item_entities(
        self, params: Params, items: Int[Array, " N"], valid: Bool[Array, " N"], key: jax.Array
    ) -> Entities:
        """Looks up items in the output tables; the weights count each distinct valid item once. The key is for
        dropout.
        """
        vectors = at_least_float32(embedding_lookup(self.item_embeddings(params, key), items))
        return Entities(vectors, self.teacher.items[items], inverse_counts(items, valid))

    def batch_entities(
        self, params: Params, batch: Batch, key: jax.Array, sample_key: jax.Array
    ) -> tuple[Entities, Entities]:
        """Collects the distinct sessions of a batch, and its distinct items: the targets and as many sampled items.

        Args:
            params: the student's parameters.
            batch: a batch of examples.
            key: a JAX key for the student's dropout.
            sample_key: a JAX key for the sampled items.
        """
        valid = batch.weight > 0
        items = jnp.concatenate([batch.target, sample_items(sample_key, self.model, len(valid))])
        item_vectors = self.item_entities(params, items, jnp.concatenate([valid, valid]), key)
        return self.session_entities(params, batch, key), item_vectors
