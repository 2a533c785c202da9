"""Training steps that read, differentiate and write only the rows of the item tables that a batch refers to.

The distinct items of a batch are gathered into small tables and renumbered. The backbone, cloned with these rows as its
catalogue, and its loss then run on the small tables, so that their gradient is one of the gathered rows; no gradient of
a whole table exists. On a mesh every device holds its shard of each table and of the row optimizer's slots; only the
rows of a batch and their gradient are sent between devices.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from alkd_jax import sharding
from alkd_jax.models import Encoder, Params, init_params
from alkd_jax.objectives import Objective
from alkd_jax.ops import embedding, lookup, packed_rows, precision
from alkd_jax.ops.embedding import RowOptimizer
from alkd_jax.ops.row_gradients import sorted_unique_ids
from alkd_jax.training.steppers.protocol import ValidationModel
from alkd_jax.types import PAD, Batch


@flax.struct.dataclass
class LazyState:
    """The state that training changes.

    Attributes:
        tables: the item tables by name, in the type they are stored in; on a TPU narrow ones are packed.
        dense: the other parameters.
        slots: the row optimizer's slots, by table name.
        opt_state: the state of the other parameters' optimizer.
    """

    tables: dict[str, Any]
    dense: dict[str, Any]
    slots: dict[str, Any]
    opt_state: optax.OptState


@dataclasses.dataclass(frozen=True)
class LazyRows:
    """Steps whose cost is that of their batch, whatever the size of the tables.

    Attributes:
        model: the backbone.
        row_optimizer: optimizer of the item tables.
        optimizer: optimizer of the other parameters.
        layout: how parameters lie on a mesh; None on one device.
        dtype: the type that the loss reads the parameters in.
        packs: whether narrow tables are packed, see :mod:`alkd_jax.ops.packed_rows`; not on a mesh.
    """

    model: Encoder
    row_optimizer: RowOptimizer
    optimizer: optax.GradientTransformation
    layout: sharding.Layout | None = None
    dtype: Any = jnp.float32
    packs: bool = False

    step_mesh = None  # The gathered rows are whole on every device, and the loss of them needs no mesh.

    @property
    def mesh(self) -> Mesh | None:
        """The mesh; None on one device."""
        return None if self.layout is None else self.layout.mesh

    def init(self, params: Params) -> LazyState:
        """Returns the state before the first step, which consists of the parameters' own arrays; they may be padded."""
        names = item_tables(self.model)
        tables = {name: leaf for name, leaf in params["params"].items() if name in names}
        dense = {name: leaf for name, leaf in params["params"].items() if name not in names}
        return LazyState(tables, dense, *_init_optimizers(self, tables, dense))

    def begin(self, state: LazyState) -> LazyState:
        """Returns the state."""
        return state

    def finish(self, state: LazyState, carry: LazyState) -> LazyState:
        """Returns the state after an interval."""
        return carry

    def prepare(self, loss: Objective, batch: Batch) -> Batch:
        """Returns the batch."""
        return batch

    def step(
        self, carry: LazyState, loss: Objective, batch: Batch, key: jax.Array
    ) -> tuple[LazyState, Float[Array, ""]]:
        """Takes one step: the row optimizer updates the tables, the other optimizer the other parameters."""
        return self._step(carry, loss, batch, key)[:2]

    def _step(
        self, carry: LazyState, loss: Objective, batch: Batch, key: jax.Array
    ) -> tuple[LazyState, Float[Array, ""], Any]:
        """Takes one step, and also returns what the loss returns beside its value."""
        ids, rows, loss_of = self._gather(carry, loss, batch, key)
        gradients, beside = jax.grad(loss_of, argnums=(0, 1), has_aux=True)(rows, carry.dense)
        row_gradients, dense_gradient = gradients if self.mesh is None else sharding.replicate(gradients, self.mesh)
        tables, slots = {}, {}
        for number, (name, gradient) in enumerate(row_gradients.items()):
            # A row with gradient 0, such as an input item's row of the output table, is not updated.
            has_gradient = (gradient != 0).reshape(len(gradient), -1).any(1)
            options: dict[str, Any] = {
                "unique_ids": True,
                "key": jax.random.fold_in(jax.random.fold_in(key, 1), number),
            }
            table, old_slots = carry.tables[name], carry.slots[name]
            if self.mesh is None:
                options |= {"sorted_ids": True, "where": has_gradient}
                tables[name], slots[name] = self.row_optimizer.update(table, old_slots, ids, gradient, **options)
            else:
                listed = jnp.where(has_gradient, ids, -1)
                tables[name], slots[name] = embedding.update_sharded(
                    self.row_optimizer, self.mesh, table, old_slots, listed, gradient, replicated=True, **options
                )
        optimizer = optax.with_extra_args_support(self.optimizer)
        updates, opt_state = optimizer.update(dense_gradient, carry.opt_state, carry.dense, step=batch.step)
        dense = optax.apply_updates(carry.dense, updates)
        state = carry.replace(tables=tables, dense=dense, slots=slots, opt_state=opt_state)  # type: ignore[attr-defined]
        probe = sum((0.0 * leaf).sum() for leaf in jax.tree.leaves((row_gradients, dense_gradient)))
        return state if self.layout is None else self.layout.constrain_sharding(state), probe, beside

    def loss(self, state: LazyState, carry: Any, loss: Objective, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        """Computes the loss of a batch."""
        _, rows, loss_of = self._gather(state, loss, batch, key)
        return loss_of(rows, state.dense)[0]

    def model_params(self, state: LazyState) -> Params:
        """Returns the backbone's parameters; narrow tables may be packed."""
        return {"params": state.tables | state.dense}

    def for_validation(self, state: LazyState) -> ValidationModel:
        """Returns the table as it is stored, and an encoder that reads the rows of a batch in float32."""

        def encode(
            items: Int[Array, "B L"], mask: Bool[Array, "B L"], *times: Int[Array, "B L"]
        ) -> Float[Array, "B *L D"]:
            ids, (items,) = renumber(self.model.num_items, items)
            params = {"params": gather_rows(state.tables, ids, self.mesh) | state.dense}
            return self._model_of(ids).apply(params, items, mask, *times)

        params = self.model_params(state)
        params = params if self.layout is None else self.layout.unpad_rows(params)
        name = output_table(self.model) if self.packs else None
        if name is not None:
            return ValidationModel(encode, params["params"][name])
        return ValidationModel(encode, self.model.apply(packed_rows.unpack_all(params), method="item_embeddings"))

    def _loss(
        self, state: LazyState, loss: Any, params: Params, batch: Any, candidates: Any, key: jax.Array
    ) -> tuple[Float[Array, ""], Any]:
        """Computes the loss of the gathered rows; beside it, nothing."""
        return loss.loss(params, batch, candidates, key), None

    def _model_of(self, ids: Int[Array, " R"]) -> Encoder:
        return self.model.clone(num_items=len(ids) - 1)  # type: ignore[attr-defined]

    def _gather(self, state: LazyState, loss: Objective, batch: Batch, key: jax.Array) -> tuple[Array, Any, Any]:
        """Returns the ids ``[R]`` of the rows that a batch refers to, the rows, and the loss as a function of them.

        The function also returns what :meth:`_loss` returns beside the loss.
        """
        candidates = loss.candidates(batch, key)
        items = (batch.items, batch.target) + (() if candidates is None else (candidates,))
        ids, indices = renumber(self.model.num_items, *items)
        # On a mesh the rows are the same on every device, and the batch is split along the data axis.
        batch, (items, target, *listed) = sharding.shard_batch((batch, indices), self.mesh)
        batch, small_loss = batch.replace(items=items, target=target), loss.on_rows(ids)  # type: ignore[attr-defined]

        def loss_of(rows: dict[str, Array], dense: dict[str, Array]) -> tuple[Float[Array, ""], Any]:
            params = precision.cast({"params": rows | dense}, self.dtype)
            return self._loss(state, small_loss, params, batch, listed[0] if listed else None, key)

        return ids, gather_rows(state.tables, ids, self.mesh), loss_of


@functools.partial(jax.jit, static_argnums=0)
def _init_optimizers(stepper: LazyRows, tables: dict[str, Any], dense: dict[str, Array]) -> tuple[Any, Any]:
    """Returns the slots of the tables and the optimizer state of the other parameters before the first step."""
    slots = {name: stepper.row_optimizer.init(table) for name, table in tables.items()}
    state = slots, stepper.optimizer.init(dense)
    return state if stepper.layout is None else stepper.layout.constrain_sharding(state)


def item_tables(model: Encoder) -> tuple[str, ...]:
    """Returns the names of the parameters that have one row for each item."""

    def shapes(num_items: int) -> dict[str, Any]:
        resized = model.clone(num_items=num_items)  # type: ignore[attr-defined]
        return jax.eval_shape(lambda: init_params(jax.random.key(0), resized))["params"]

    with_one, with_two = shapes(1), shapes(2)
    return tuple(name for name in with_one if with_one[name].shape != with_two[name].shape)


def output_table(model: Encoder) -> str | None:
    """Returns the name of the parameter that scores the items as it is; None where the table is computed."""
    shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), model))["params"]
    jaxpr = jax.make_jaxpr(lambda params: model.apply({"params": params}, method="item_embeddings"))(shapes).jaxpr
    for (path, _), value in zip(jax.tree_util.tree_leaves_with_path(shapes), jaxpr.invars, strict=True):
        if value is jaxpr.outvars[0] and len(path) == 1:
            return path[0].key
    return None


def renumber(num_items: int, *item_arrays: Int[Array, "..."]) -> tuple[Int[Array, " R"], list[Array]]:
    """Finds the distinct items of several arrays.

    Args:
        num_items: V.
        *item_arrays: items, of any shape.

    Returns:
        The distinct items, the padding first; and every array with its items replaced by their index among them.
    """
    flat = [jnp.full(1, PAD, jnp.int32), *(array.reshape(-1) for array in item_arrays)]
    ids, index = sorted_unique_ids(jnp.concatenate(flat), num_items + 1)
    pieces = jnp.split(index, list(itertools.accumulate(piece.size for piece in flat)))[1:-1]
    return ids, [p.reshape(array.shape).astype(jnp.int32) for p, array in zip(pieces, item_arrays, strict=True)]


def gather_rows(tables: Mapping[str, Any], ids: Int[Array, " R"], mesh: Mesh | None) -> dict[str, Array]:
    """Returns rows of every table in float32, on every device of a mesh.

    Args:
        tables: the item tables by name.
        ids: the rows.
        mesh: the mesh that the tables are sharded over; None on one device.
    """
    if mesh is None:
        return {name: packed_rows.take_rows(table, ids).astype(jnp.float32) for name, table in tables.items()}
    look_up = sharding.shard_map_unchecked(lookup.local_embedding_lookup, mesh, (P(sharding.MODEL), P()), P())
    return {name: look_up(table, ids).astype(jnp.float32) for name, table in tables.items()}
