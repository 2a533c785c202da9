"""Training steps that read and write only the rows of the item tables that a batch refers to.

The gradient is one of the rows in :class:`~alkd_jax.training.gathered_rows.GatheredRows`; no gradient of a whole table
exists. On a mesh every device holds its shard of each table and of the row optimizer's slots; only the rows of a batch
and their gradient are sent between devices.
"""

import dataclasses
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, Sharding, SingleDeviceSharding
from jaxtyping import Array, Bool, Float, Int

from alkd_jax import sharding
from alkd_jax.models import Encoder, Params, init_params
from alkd_jax.ops import embedding
from alkd_jax.ops.embedding import RowOptimizer
from alkd_jax.training.examples import batch_rows
from alkd_jax.training.gathered_rows import GatheredRows, LossBinding, gather_rows, renumber
from alkd_jax.training.steppers.dense import TrainingData
from alkd_jax.training.validation import validation_recall
from alkd_jax.types import Batch, Sessions


@flax.struct.dataclass
class RowTrainState:
    """The state that training changes.

    Attributes:
        tables: the item tables by name, in the type they are stored in.
        slots: the row optimizer's slots, by table name.
        dense: the other parameters.
        opt_state: the state of their optimizer.
    """

    tables: dict[str, Any]
    slots: dict[str, Any]
    dense: dict[str, Any]
    opt_state: optax.OptState

    @property
    def params(self) -> Params:
        """The backbone's parameter tree."""
        return {"params": self.tables | self.dense}


@dataclasses.dataclass(frozen=True)
class RowTrainStep:
    """The static arguments of the compiled programs; equal ones share one compilation.

    Attributes:
        binding: the backbone and its loss.
        row_optimizer: optimizer of the item tables.
        optimizer: optimizer of the other parameters.
        batch_size: B.
        steps: T, steps of an interval.
        recall_at: k of the validation recall.
        validation_batch: sessions whose scores are in memory at a time.
        layout: how parameters lie on a mesh; None on one device.
    """

    binding: LossBinding
    row_optimizer: RowOptimizer
    optimizer: optax.GradientTransformation
    batch_size: int
    steps: int
    recall_at: int
    validation_batch: int
    layout: sharding.Layout | None = None

    @property
    def model(self) -> Any:
        """The backbone."""
        return self.binding.model

    @property
    def mesh(self) -> Mesh | None:
        """The mesh; None on one device."""
        return None if self.layout is None else self.layout.mesh

    def init(self, params: Params) -> RowTrainState:
        """Returns the state before the first step.

        Args:
            params: padded parameters; their arrays become part of the state, which is donated.
        """
        names = item_tables(self.model)
        tables = {name: leaf for name, leaf in params["params"].items() if name in names}
        dense = {name: leaf for name, leaf in params["params"].items() if name not in names}
        slots, opt_state = init_optimizers(self, tables, dense)
        return RowTrainState(tables, slots, dense, opt_state)

    def sharding_of(self, leaf: Any) -> Sharding:
        """Returns the sharding of an array of the state."""
        return SingleDeviceSharding(jax.devices()[0]) if self.layout is None else self.layout.sharding_of(leaf)

    def constrain_sharding(self, tree: Any) -> Any:
        """Constrains a state, or parts of one, to the sharding that the programs expect."""
        return tree if self.layout is None else self.layout.constrain_sharding(tree)

    def replicate(self, tree: Any) -> Any:
        """Constrains arrays to be whole on every device of the mesh."""
        return tree if self.layout is None else sharding.replicate(tree, self.layout.mesh)

    def take_steps(
        self, state: RowTrainState, key: jax.Array, data: TrainingData, step: Array
    ) -> tuple[RowTrainState, Float[Array, ""]]:
        """Takes the steps of an interval.

        Args:
            state: the state before the interval.
            key: the seed's JAX key, the same for every interval.
            data: what training reads.
            step: steps taken so far.

        Returns:
            The state after the interval, and the loss of the last batch computed with it.
        """
        order_key, loss_key = jax.random.split(key)
        rows = batch_rows(order_key, step, self.steps, self.batch_size, data.examples.weight.shape[-1])
        numbers = step + jnp.arange(self.steps)

        def take_step(state: RowTrainState, plan: tuple[Array, Array]) -> tuple[RowTrainState, None]:
            return self.take_step(state, self.gather_batch(data, *plan), jax.random.fold_in(loss_key, plan[1])), None

        state, _ = jax.lax.scan(take_step, state, (rows, numbers))
        last = self.gather_batch(data, rows[-1], numbers[-1])
        gathered = self.gather_rows(state.tables, last, jax.random.fold_in(loss_key, numbers[-1]))
        return state, self.replicate(gathered.loss(gathered.tables, state.dense))

    def gather_batch(self, data: TrainingData, rows: Array, step: Array) -> Batch:
        """Gathers the examples of a step."""
        batch = data.examples.take(rows, data.source)  # type: ignore[arg-type]
        return batch.replace(step=step, loss_inputs=data.loss_inputs)  # type: ignore[attr-defined]

    def gather_rows(self, tables: dict[str, Array], batch: Batch, key: jax.Array) -> GatheredRows:
        """Gathers the rows of the tables that a batch refers to."""
        return GatheredRows(self.binding, tables, batch, key, self.mesh)

    def take_step(self, state: RowTrainState, batch: Batch, key: jax.Array) -> RowTrainState:
        """Takes one step: the row optimizer updates the tables, the other optimizer the other parameters."""
        gathered = self.gather_rows(state.tables, batch, key)
        row_gradients, dense_gradient = jax.grad(gathered.loss, argnums=(0, 1))(gathered.tables, state.dense)
        row_gradients, dense_gradient = self.replicate((row_gradients, dense_gradient))
        tables, slots = {}, {}
        for number, (name, gradient) in enumerate(row_gradients.items()):
            # A row with gradient 0, such as an input item's row of the output table, is not updated.
            has_gradient = (gradient != 0).reshape(len(gradient), -1).any(1)
            ids = jnp.where(has_gradient, gathered.ids, -1)
            rounding_key = jax.random.fold_in(jax.random.fold_in(key, 1), number)
            arguments = state.tables[name], state.slots[name], ids, gradient
            if self.layout is None:
                tables[name], slots[name] = self.row_optimizer.update(*arguments, unique_ids=True, key=rounding_key)
            else:
                tables[name], slots[name] = embedding.update_sharded(
                    self.row_optimizer, self.layout.mesh, *arguments, unique_ids=True, key=rounding_key, replicated=True
                )
        optimizer = optax.with_extra_args_support(self.optimizer)
        updates, opt_state = optimizer.update(dense_gradient, state.opt_state, state.dense, step=batch.step)
        dense = optax.apply_updates(state.dense, updates)
        return self.constrain_sharding(RowTrainState(tables, slots, dense, opt_state))

    def recall(self, state: RowTrainState, validation: Sessions) -> Float[Array, ""]:
        """Returns the validation recall."""
        params = state.params if self.layout is None else self.layout.unpad_rows(state.params)
        table = self.model.apply(params, method="item_embeddings")
        batch_size = min(self.validation_batch, len(validation))
        encode_batch = functools.partial(self.encode, state)
        return self.replicate(validation_recall(encode_batch, table, validation, self.recall_at, batch_size))

    def encode(
        self, state: RowTrainState, items: Int[Array, "B L"], mask: Bool[Array, "B L"]
    ) -> Float[Array, "B *L D"]:
        """Encodes sessions from the gathered rows of their items, in float32 whatever type the tables are stored in."""
        ids, (items,) = renumber(self.model.num_items, items)
        params = {"params": gather_rows(state.tables, ids, self.mesh) | state.dense}
        return self.model.clone(num_items=len(ids) - 1).apply(params, items, mask)


def item_tables(model: Encoder) -> tuple[str, ...]:
    """Returns the names of the parameters that have one row for each item."""

    def shapes(num_items: int) -> dict[str, Any]:
        resized = model.clone(num_items=num_items)  # type: ignore[attr-defined]
        return jax.eval_shape(lambda: init_params(jax.random.key(0), resized))["params"]

    with_one, with_two = shapes(1), shapes(2)
    return tuple(name for name in with_one if with_one[name].shape != with_two[name].shape)


@functools.partial(jax.jit, static_argnums=0)
def init_optimizers(train_step: RowTrainStep, tables: dict[str, Array], dense: dict[str, Array]) -> tuple[Any, Any]:
    """Returns the slots of the tables and the optimizer state of the other parameters before the first step."""
    slots = {name: train_step.row_optimizer.init(table) for name, table in tables.items()}
    return train_step.constrain_sharding((slots, train_step.optimizer.init(dense)))


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def take_steps(
    train_step: RowTrainStep, state: RowTrainState, key: jax.Array, data: TrainingData, step: Array
) -> tuple[RowTrainState, Float[Array, ""]]:
    """Takes the steps of an interval, see :meth:`RowTrainStep.take_steps`; the state is donated."""
    return train_step.take_steps(state, key, data, step)


@functools.partial(jax.jit, static_argnums=0)
def recall(train_step: RowTrainStep, state: RowTrainState, validation: Sessions) -> Float[Array, ""]:
    """Returns the validation recall; on a mesh it is called inside :func:`alkd_jax.sharding.use_mesh`."""
    return train_step.recall(state, validation)
