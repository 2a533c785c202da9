"""Training steps with any loss and any optimizer: the gradient has the size of the parameters."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from alkd_jax import sharding
from alkd_jax.models import Encoder, Params, encode
from alkd_jax.ops import lookup, precision
from alkd_jax.training.shifted import at_batch_length
from alkd_jax.training.steppers.protocol import ValidationModel
from alkd_jax.types import Batch


class DenseState(NamedTuple):
    """All parameters in training, on a mesh with padded rows, and the optimizer's state."""

    params: Params
    opt_state: optax.OptState


@dataclasses.dataclass(frozen=True)
class Dense:
    """Dense steps.

    Attributes:
        model: the backbone.
        optimizer: the optimizer.
        extra: names of collections that are trained beside the model's own.
        layout: how parameters lie on a mesh; None on one device.
        dtype: the type that the loss reads the parameters in.
        lengths: lengths that batches of whole sessions are cut to, see :mod:`alkd_jax.training.shifted`; or none.
    """

    model: Encoder
    optimizer: optax.GradientTransformation
    extra: tuple[str, ...] = ()
    layout: sharding.Layout | None = None
    dtype: Any = jnp.float32
    lengths: tuple[int, ...] = ()

    @property
    def step_mesh(self) -> Mesh | None:
        """The mesh that steps are traced on."""
        return None if self.layout is None else self.layout.mesh

    def init(self, params: Params) -> DenseState:
        """Returns the state before the first step."""
        return DenseState(params, self.optimizer.init(params))

    def begin(self, state: DenseState) -> Any:
        """Returns the state."""
        return state

    def prepare(self, loss: Any, batch: Batch) -> Any:
        """Returns the batch."""
        return batch

    def step(self, carry: DenseState, loss: Any, batch: Batch, key: jax.Array) -> tuple[DenseState, Float[Array, ""]]:
        """Takes a step."""
        (params, opt_state), batch = carry, sharding.shard_batch(batch, self.step_mesh)
        gradient_at = jax.grad(self._loss)
        gradient = at_batch_length(lambda cut: gradient_at(params, loss, cut, key), batch, self.lengths)
        optimizer = optax.with_extra_args_support(self.optimizer)
        updates, opt_state = optimizer.update(gradient, opt_state, params, step=batch.step)
        params = optax.apply_updates(params, updates)
        return DenseState(params, opt_state), self.probe(params, batch)

    def finish(self, state: DenseState, carry: Any) -> DenseState:
        """Returns the state after an interval."""
        return carry

    def loss(self, state: DenseState, carry: Any, loss: Any, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """Computes the mean loss of a batch; where positions have weights, these sum to 1 only on average."""
        value = self._loss(state.params, loss, sharding.shard_batch(batch, self.step_mesh), key)
        return value if batch.weight.ndim == 1 else value / batch.weight.sum()

    def model_params(self, state: DenseState) -> Params:
        """Returns the backbone's parameters."""
        return {name: params for name, params in state.params.items() if name not in self.extra}

    def for_validation(self, state: DenseState) -> ValidationModel:
        """Returns what validation needs."""
        params = self._unpad(self.model_params(state))
        table = self.model.apply(params, method="item_embeddings")
        return ValidationModel(functools.partial(encode, self.model, params), table)

    def probe(self, params: Params, batch: Batch) -> Float[Array, ""]:
        """0 if the vectors of the batch's targets are finite, else NaN; a loss that is not finite makes these NaN."""
        table = self.model.apply(self._unpad(params), method="item_embeddings")
        # The sum is NaN if any number is not finite; it is several times as fast as testing every number.
        return (0.0 * lookup.embedding_lookup(table, batch.target)).sum()

    def _loss(self, params: Params, loss: Any, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        return loss(precision.cast(self._unpad(params), self.dtype), batch, key)

    def _unpad(self, params: Params) -> Params:
        """Returns the parameters in the model's own shapes."""
        return params if self.layout is None else self.layout.unpad_rows(params)
