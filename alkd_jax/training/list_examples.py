"""Training examples that are sessions with a teacher's list for each, as losses of whole lists read them."""

import dataclasses

import flax.struct
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from alkd_jax.training.examples import Examples
from alkd_jax.types import Batch, Rankings, Sessions


@flax.struct.dataclass
class ListBatch(Batch):
    """A batch of sessions with lists.

    Attributes:
        listed: ``[B, K]`` the list of each row, the best item first; 0 at places without an item.
    """

    listed: Int[Array, "B K"] | None = None


@flax.struct.dataclass
class ListExamples(Examples):
    """Examples whose label is a list; the target is its first item.

    Attributes:
        listed: ``[E, K]`` int32, the list of each example, the best item first; 0 at places without an item.
    """

    listed: Int[Array, "*seeds E K"] | None = None

    def take(self, rows: Int[Array, " B"], train: Sessions) -> ListBatch:
        """Gathers a batch, see :meth:`alkd_jax.training.examples.Examples.take`."""
        batch = super().take(rows, train)
        fields = {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
        return ListBatch(**fields, listed=jnp.asarray(self.listed)[rows])


def list_examples(rankings: Rankings, train: Sessions) -> ListExamples:
    """Returns one example of weight 1 for every list that holds an item.

    Args:
        rankings: lists for training sessions.
        train: the training sessions.

    Raises:
        ValueError: a list belongs to no training session, or no list holds an item.
    """
    mask = np.asarray(rankings.mask)
    items = np.where(mask, np.asarray(rankings.items), 0).astype(np.int32)
    used = np.flatnonzero(mask.any(1))
    if not used.size:
        raise ValueError("rankings hold no item; expected a list with at least one")
    rows, items = train.rows_of(rankings.session_id)[used].astype(np.int32), items[used]
    first = items[np.arange(len(items)), mask[used].argmax(1)]
    weight = jnp.ones(len(items))
    return ListExamples(session=jnp.asarray(rows), target=jnp.asarray(first), weight=weight, listed=jnp.asarray(items))
