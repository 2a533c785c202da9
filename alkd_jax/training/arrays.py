"""The arrays that training reads and never changes."""

import functools
from typing import Any

import flax.struct
import jax
from jaxtyping import Array

from alkd_jax import sharding
from alkd_jax.training.examples import AnyExamples
from alkd_jax.training.sharded_sessions import lies_in_parts
from alkd_jax.types import Batch, Sequences, Sessions


@flax.struct.dataclass
class TrainingData:
    """The arrays that training reads; they are put on the device once.

    Attributes:
        examples: the training examples.
        source: the sessions or sequences that the examples refer to.
        validation: sessions for early stopping.
        loss: the loss, a pytree of the arrays that it reads.
    """

    examples: AnyExamples
    source: Sessions | Sequences
    validation: Sessions
    loss: Any

    def of_first_seed(self) -> "TrainingData":
        """Returns the data that the first seed reads, where each seed has its own examples."""
        if self.examples.weight.ndim == 1:
            return self
        return self.replace(examples=jax.tree.map(lambda leaf: leaf[0], self.examples))  # type: ignore[attr-defined]

    def batch(self, rows: Array, step: Array | int) -> Batch:
        """Gathers the examples of a step."""
        return self.examples.take(rows, self.source).replace(step=step)  # type: ignore[arg-type, attr-defined]


def device_put(tree: Any, layout: sharding.Layout | None) -> Any:
    """Puts arrays on the device, or on every device of the layout's mesh; those that lie there in parts stay so."""
    if layout is None:
        return jax.device_put(tree)
    put = functools.partial(sharding.device_put_global, sharding=layout.replicated)
    return jax.tree.map(lambda leaf: leaf if lies_in_parts(leaf) else put(leaf), tree)
