"""What a model learns from: rows of the training sessions, each with an item to rank high, and how they are batched."""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.types import Sessions


@flax.struct.dataclass
class Batch:
    """One step's examples with their sessions gathered."""

    items: Int[Array, "B L"]
    mask: Bool[Array, "B L"]
    session: Int[Array, " B"]
    target: Int[Array, " B"]
    weight: Float[Array, " B"]


@flax.struct.dataclass
class Examples:
    """What to learn: rows of the training sessions, each with an item to rank high.

    Attributes:
        session: ``[E]`` int32, row in the training sessions.
        target: ``[E]`` int32, item in ``1..num_items``.
        weight: ``[E]`` float32, non-negative; 0 makes an example a filler that counts for nothing.

    With a leading seed axis, ``[S, E]``, every seed has examples of its own.
    """

    session: Int[Array, "*seeds E"]
    target: Int[Array, "*seeds E"]
    weight: Float[Array, "*seeds E"]

    def take(self, rows: Int[Array, " B"], train: Sessions) -> Batch:
        """Gathers a batch: these examples with their sessions."""
        session = self.session[rows]
        return Batch(
            items=jnp.asarray(train.items)[session],
            mask=jnp.asarray(train.mask)[session],
            session=session,
            target=self.target[rows],
            weight=self.weight[rows],
        )


def last_item_examples(train: Sessions) -> Examples:
    """The paper's examples: the held-out item of every training session, weight 1."""
    rows = jnp.arange(len(train), dtype=jnp.int32)
    return Examples(session=rows, target=jnp.asarray(train.target), weight=jnp.ones(len(train)))


def batch_rows(
    key: jax.Array, step: Int[Array, ""] | int, steps: int, batch_size: int, num_examples: int
) -> Int[Array, "T B"]:
    """Rows of the examples for steps ``step .. step + steps − 1``: a function of key and step alone.

    Each epoch is a fresh permutation cut into whole batches, so a batch never holds an example twice.

    Args:
        key: the run's, the same for every interval.
        step: steps taken so far.
        steps: T, how many to plan.
        batch_size: B, at most ``num_examples``.
        num_examples: E.
    """
    per_epoch = num_examples // batch_size
    first_epoch = step // per_epoch
    num_epochs = (steps - 2) // per_epoch + 2
    epochs = first_epoch + jnp.arange(num_epochs)
    shuffled = jax.vmap(lambda epoch: jax.random.permutation(jax.random.fold_in(key, epoch), num_examples))(epochs)
    rows = shuffled[:, : per_epoch * batch_size].reshape(num_epochs * per_epoch, batch_size)
    return jax.lax.dynamic_slice_in_dim(rows, step - first_epoch * per_epoch, steps)
