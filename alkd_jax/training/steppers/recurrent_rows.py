"""Training steps of a recurrent backbone that read one item of each session: the state of the last step is carried on.

No gradient flows into earlier steps. Otherwise the steps are those of :mod:`alkd_jax.training.steppers.lazy_rows`.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from alkd_jax.models import Params
from alkd_jax.ops.precision import at_least_float32
from alkd_jax.training.steppers.lazy_rows import LazyRows, LazyState


@flax.struct.dataclass
class RecurrentState(LazyState):
    """The state that training changes.

    Attributes:
        memory: ``[B, N, D]`` the states of the N units after the last item of each row's session.
    """

    memory: Any = None


@dataclasses.dataclass(frozen=True)
class RecurrentRows(LazyRows):
    """Steps of session-parallel training.

    Attributes:
        batch_size: B, the number of sessions that are read at a time.
    """

    batch_size: int = 1

    def init(self, params: Params) -> RecurrentState:
        """Returns the state before the first step."""
        state = super().init(params)
        memory = self.model.apply(params, self.batch_size, method="initial_state")
        return RecurrentState(state.tables, state.dense, state.slots, state.opt_state, memory)

    def step(self, carry: Any, loss: Any, batch: Any, key: jax.Array) -> tuple[RecurrentState, Float[Array, ""]]:
        """Takes one step of a session-parallel batch, and carries on the states that it has computed."""
        state, probe, memory = self._step(carry, loss, batch, key)
        return state.replace(memory=memory), probe  # type: ignore[attr-defined]

    def _loss(
        self, state: Any, loss: Any, params: Params, batch: Any, candidates: Any, key: jax.Array
    ) -> tuple[Float[Array, ""], Float[Array, "B N D"]]:
        """Computes the loss of the gathered rows, and the states after the batch's items."""
        num_rows = len(batch.target)
        memory = jnp.where(batch.starts[:, None, None], 0.0, state.memory[:num_rows])
        options = {"train": True, "rngs": {"dropout": jax.random.split(key)[0]}, "method": "step"}
        vectors, states = loss.model.apply(params, batch.items[:, 0], memory, **options)
        value = loss.loss_of_vectors(params, at_least_float32(vectors), batch, candidates, key)
        return value, state.memory.at[:num_rows].set(jax.lax.stop_gradient(states))
