"""Training steps that touch only the rows of the item tables a batch names.

What the loss gives is a gradient of the rows in :class:`~alkd_jax.training.gathered.Gathered`: none of a whole table
exists. On a mesh every device keeps its part of each table with what the row optimizer keeps of it; what travels is the
rows of a batch and their gradient.
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

from alkd_jax import scoring, sharding
from alkd_jax.evaluation import metrics
from alkd_jax.models import Encoder, Params, init_params
from alkd_jax.ops import embedding
from alkd_jax.ops.embedding import RowOptimizer
from alkd_jax.training.examples import batch_rows
from alkd_jax.training.gathered import Binding, Gathered, renumbered, rows_of
from alkd_jax.training.steppers.dense import TrainingData
from alkd_jax.types import Batch, Sessions


@flax.struct.dataclass
class RowState:
    """All that changes while training.

    Attributes:
        tables: the item tables by name, as they are stored.
        slots: of the row optimizer, one a table.
        dense: the other parameters.
        opt_state: of their optimizer.
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
class RowProgram:
    """The static half of a run: what is compiled in.

    Attributes:
        binding: the backbone and its loss.
        rows: optimizer of the item tables.
        optimizer: of the other parameters.
        batch_size: B.
        steps: of an interval.
        recall_at: k of the validation recall.
        validation_batch: sessions ranked at a time.
        layout: how tables lie on a mesh; None on one device.
    """

    binding: Binding
    rows: RowOptimizer
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
        """The mesh, if any."""
        return None if self.layout is None else self.layout.mesh

    def start(self, params: Params) -> RowState:
        """The state before the first step, of parameters that lie as the program has them; they become part of it."""
        names = item_tables(self.model)
        tables = {name: leaf for name, leaf in params["params"].items() if name in names}
        dense = {name: leaf for name, leaf in params["params"].items() if name not in names}
        slots, opt_state = optimizer_states(self, tables, dense)
        return RowState(tables, slots, dense, opt_state)

    def place(self, leaf: Any) -> Sharding:
        """Where an array of the state lies."""
        return SingleDeviceSharding(jax.devices()[0]) if self.layout is None else self.layout.place_of(leaf)

    def constrain_sharding(self, tree: Any) -> Any:
        """What is part of a state, lying as it does when it goes in again."""
        return tree if self.layout is None else self.layout.constrain_sharding(tree)

    def take_steps(
        self, state: RowState, key: jax.Array, material: TrainingData, step: Array
    ) -> tuple[RowState, Float[Array, ""]]:
        """Takes the interval's steps; and the loss of the last batch after them."""
        order_key, loss_key = jax.random.split(key)
        rows = batch_rows(order_key, step, self.steps, self.batch_size, material.examples.weight.shape[-1])
        numbers = step + jnp.arange(self.steps)

        def take_step(state: RowState, now: tuple[Array, Array]) -> tuple[RowState, None]:
            return self.step(state, self.batch(material, *now), jax.random.fold_in(loss_key, now[1])), None

        state, _ = jax.lax.scan(take_step, state, (rows, numbers))
        last = self.batch(material, rows[-1], numbers[-1])
        gathered = self.gathered(state.tables, last, jax.random.fold_in(loss_key, numbers[-1]))
        return state, self.everywhere(gathered.loss(gathered.tables, state.dense))

    def batch(self, material: TrainingData, rows: Array, step: Array) -> Batch:
        """Gathers the examples of a step."""
        batch = material.examples.take(rows, material.source)  # type: ignore[arg-type]
        return batch.replace(step=step, loss_inputs=material.loss_inputs)  # type: ignore[attr-defined]

    def gathered(self, tables: dict[str, Array], batch: Batch, key: jax.Array) -> Gathered:
        """The rows that a batch names."""
        return Gathered(self.binding, tables, batch, key, self.mesh)

    def everywhere(self, tree: Any) -> Any:
        """The same, on every device of a mesh."""
        return tree if self.layout is None else sharding.replicate(tree, self.layout.mesh)

    def step(self, state: RowState, batch: Batch, key: jax.Array) -> RowState:
        """One step: rows by the row optimizer, the rest by the other."""
        gathered = self.gathered(state.tables, batch, key)
        of_rows, of_dense = jax.grad(gathered.loss, argnums=(0, 1))(gathered.tables, state.dense)
        of_rows, of_dense = self.everywhere((of_rows, of_dense))
        tables, slots = {}, {}
        for number, (name, gradient) in enumerate(of_rows.items()):
            # A row no gradient reaches (an input item in the output table) counts as not named.
            is_named = (gradient != 0).reshape(len(gradient), -1).any(1)
            ids = jnp.where(is_named, gathered.ids, -1)
            rounding = jax.random.fold_in(jax.random.fold_in(key, 1), number)
            arguments = state.tables[name], state.slots[name], ids, gradient
            if self.layout is None:
                tables[name], slots[name] = self.rows.update(*arguments, distinct=True, key=rounding)
            else:
                tables[name], slots[name] = embedding.update_parts(
                    self.rows, self.layout.mesh, *arguments, distinct=True, key=rounding, everywhere=True
                )
        optimizer = optax.with_extra_args_support(self.optimizer)
        updates, opt_state = optimizer.update(of_dense, state.opt_state, state.dense, step=batch.step)
        return self.constrain_sharding(RowState(tables, slots, optax.apply_updates(state.dense, updates), opt_state))

    def recall(self, state: RowState, validation: Sessions) -> Float[Array, ""]:
        """Recall at k, a batch of sessions and a chunk of items at a time."""
        params = state.params if self.layout is None else self.layout.unpad_rows(state.params)
        table = self.model.apply(params, method="item_embeddings")
        size = min(self.validation_batch, len(validation))
        num_batches = -(-len(validation) // size)
        starts = jnp.minimum(jnp.arange(num_batches) * size, len(validation) - size)

        def hits(batch: tuple[Array, Array]) -> Float[Array, ""]:
            number, start = batch
            take = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=size)
            items, mask, target = take(validation.items), take(validation.mask), take(validation.target)
            ranks = scoring.full_catalogue_rank(self.encode(state, items, mask), table, target, exclude=items)
            fresh = start + jnp.arange(size) >= number * size
            return (metrics.recall(ranks, self.recall_at) * fresh).sum()

        found = jax.lax.map(hits, (jnp.arange(num_batches), starts)).sum() / len(validation)
        return self.everywhere(found)

    def encode(self, state: RowState, items: Int[Array, "B L"], mask: Bool[Array, "B L"]) -> Float[Array, "B *L D"]:
        """Encodes sessions from their rows in float32, however the tables are stored."""
        ids, (items,) = renumbered(self.model.num_items, items)
        params = {"params": rows_of(state.tables, ids, self.mesh) | state.dense}
        return self.model.clone(num_items=len(ids) - 1).apply(params, items, mask)


def item_tables(model: Encoder) -> tuple[str, ...]:
    """Names of the parameters with a row an item: those that grow with the catalogue."""

    def shapes(num_items: int) -> dict[str, Any]:
        sized = model.clone(num_items=num_items)  # type: ignore[attr-defined]
        return jax.eval_shape(lambda: init_params(jax.random.key(0), sized))["params"]

    few, more = shapes(1), shapes(2)
    return tuple(name for name in few if few[name].shape != more[name].shape)


@functools.partial(jax.jit, static_argnums=0)
def optimizer_states(program: RowProgram, tables: dict[str, Array], dense: dict[str, Array]) -> tuple[Any, Any]:
    """Slots and optimizer state before the first step."""
    return program.constrain_sharding(
        ({name: program.rows.init(table) for name, table in tables.items()}, program.optimizer.init(dense))
    )


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def take_steps(
    program: RowProgram, state: RowState, key: jax.Array, material: TrainingData, step: Array
) -> tuple[RowState, Float[Array, ""]]:
    """The steps of an interval; the state is changed in place."""
    return program.take_steps(state, key, material, step)


@functools.partial(jax.jit, static_argnums=0)
def recall(program: RowProgram, state: RowState, validation: Sessions) -> Float[Array, ""]:
    """The recall of an interval's end; on a mesh, called while that holds."""
    return program.recall(state, validation)
