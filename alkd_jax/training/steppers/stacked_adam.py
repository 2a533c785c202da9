"""Dense Adam's steps on an accelerator, in few operations: all parameters are read, added to and updated together."""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from alkd_jax.objectives import InBatchBPR
from alkd_jax.ops import platforms, precision
from alkd_jax.ops.row_sparse_adam import Adam, AdamUpdate
from alkd_jax.ops.stacked_tables import NO_ITEM, StackedTables
from alkd_jax.training.arrays import TrainingData
from alkd_jax.training.steppers.dense import Dense, DenseState
from alkd_jax.types import Batch


class StackedState(NamedTuple):
    """The parameters within an interval: the arrays of the stacked tables, then all others as one vector.

    Attributes:
        values: the parameters.
        first: their first moments.
        second: their second moments.
        updates: ``[T]`` the coefficients of the interval's updates.
        start: steps taken before the interval.
        step: steps taken since.
    """

    values: list[Array]
    first: list[Array]
    second: list[Array]
    updates: AdamUpdate
    start: Array
    step: Array


@flax.struct.dataclass
class PreparedBatch:
    """What a step reads.

    Attributes:
        batch: the batch.
        places: of its rows in the stacked tables.
    """

    batch: Batch
    places: dict[str, Int[Array, "..."]]


@dataclasses.dataclass(frozen=True)
class StackedAdam(Dense):
    """Steps of the in-batch loss with Adam; results equal those of :class:`Dense` up to rounding.

    The loss is differentiated with respect to the rows that a batch reads, whose gradients one scatter adds up.
    Positions without an item do not reach it: they would all be added to the padding row, one after the other. Where
    the backbone does not read that row, zeros are in its place, and it does not change.

    Attributes:
        adam: hyperparameters of ``optimizer``.
        tables: how the item tables are stored within an interval.
        others: names and shapes of the other parameters.
        steps: T, steps of an interval.
    """

    adam: Adam = dataclasses.field(kw_only=True)
    tables: StackedTables = dataclasses.field(kw_only=True)
    others: tuple[tuple[str, tuple[int, ...]], ...] = dataclasses.field(kw_only=True)
    steps: int = dataclasses.field(kw_only=True)

    def begin(self, state: DenseState) -> StackedState:
        """Returns the parameters and moments, stacked, and the coefficients of the interval's updates."""
        # A schedule has a count of its own, which is equal to Adam's.
        count = optax.tree.get_all_with_path(state.opt_state, "count")[0][1]
        values, first, second = map(self._stack, _trees(state))
        updates = jax.vmap(lambda count: self.adam.update_at(count, 0))(count + 1 + jnp.arange(self.steps))
        return StackedState(values, first, second, updates, count, jnp.zeros((), jnp.int32))

    def prepare(self, loss: InBatchBPR, batch: Batch) -> PreparedBatch:
        """Returns the batch with the places of its rows in the stacked tables."""
        ids = loss.table_ids(batch)
        if not self._reads_padding:
            ids = {name: jnp.where(batch.mask, at, NO_ITEM) if at.ndim > 1 else at for name, at in ids.items()}
        return PreparedBatch(batch, self.tables.places(ids))

    def step(  # type: ignore[override]
        self, carry: StackedState, loss: InBatchBPR, batch: PreparedBatch, key: jax.Array
    ) -> tuple[StackedState, Float[Array, " B"]]:
        """Takes a step."""
        tables, others = carry.values[:-1], self._unravel(carry.values[-1])
        loss_of = functools.partial(self._loss_of_rows, tables, loss, batch, key)
        of_rows, of_others = jax.grad(loss_of, argnums=(0, 1))(self.tables.read(tables, batch.places), others)
        gradients = [*self.tables.sum_rows(tables, batch.places, of_rows), self._ravel(of_others)]
        # A TPU computes scalars beside its vectors; on a GPU they would take a kernel of their own.
        ahead = jax.tree.map(lambda coefficients: coefficients[carry.step], carry.updates)
        update = self.adam.update_at(carry.start + carry.step + 1, 0) if self.tables.is_tiled else ahead
        params = zip(carry.values, carry.first, carry.second, gradients, strict=True)
        values, first, second = map(list, zip(*(self._update(update, *param) for param in params), strict=True))
        probe = (0.0 * of_rows[self.tables.names[-1]]).sum(-1)
        return StackedState(values, first, second, carry.updates, carry.start, carry.step + 1), probe

    def loss(  # type: ignore[override]
        self, state: DenseState, carry: StackedState, loss: InBatchBPR, batch: PreparedBatch, key: jax.Array
    ) -> Float[Array, ""]:
        """Computes the loss of a batch."""
        tables, others = carry.values[:-1], self._unravel(carry.values[-1])
        return self._loss_of_rows(tables, loss, batch, key, self.tables.read(tables, batch.places), others)

    def finish(self, state: DenseState, carry: StackedState) -> DenseState:
        """Returns the state with one array for each parameter."""
        stacked = zip((carry.values, carry.first, carry.second), _trees(state), strict=True)
        params, first, second = ({"params": self._unstack(arrays, before)} for arrays, before in stacked)
        moments = {"mu": first, "nu": second, "count": carry.start + self.steps}
        return DenseState(params, optax.tree.set(state.opt_state, **moments))

    @property
    def _reads_padding(self) -> bool:
        """Whether the backbone reads row 0 of a table; one that does not encodes rows in which there is 0 instead."""
        return getattr(self.model, "reads_padding", True)

    def _loss_of_rows(
        self, tables: list[Array], loss: InBatchBPR, batch: PreparedBatch, key: jax.Array, rows: Any, others: Any
    ) -> Float[Array, ""]:
        rows, others = precision.cast((rows, others), self.dtype)
        method = "encode_rows" if self._reads_padding else "encode_masked_rows"
        # The backbone declares its tables, but reads the rows only.
        params = {"params": self.tables.unstack(tables) | others}
        return loss.loss_from_rows(params, rows, batch.batch, key, method=method)

    def _update(
        self, update: AdamUpdate, value: Array, first: Array, second: Array, gradient: Array
    ) -> tuple[Array, Array, Array]:
        by_columns = self.tables.by_columns
        value, first, second, gradient = map(by_columns, (value, first, second, gradient))
        first, second = self.adam.update_moments(self.adam.b1 * first, self.adam.b2 * second, gradient, 0)
        value = by_columns(self.adam.apply(update, value, first, second))
        return self.tables.by_rows(value), by_columns(first), by_columns(second)

    def _stack(self, tree: dict[str, Array]) -> list[Array]:
        tables = {name: tree[name] for name in self.tables.names}
        if not self._reads_padding:
            tables = {name: table.at[0].set(0.0) for name, table in tables.items()}
        return [*self.tables.stack(tables), self._ravel(tree)]

    def _unstack(self, arrays: list[Array], before: dict[str, Array]) -> dict[str, Array]:
        """Returns the parameters by name; padding rows that were replaced by zeros are those from before the steps."""
        tables = self.tables.unstack(arrays[:-1])
        if not self._reads_padding:
            tables = {name: table.at[0].set(before[name][0]) for name, table in tables.items()}
        return tables | self._unravel(arrays[-1])

    def _ravel(self, others: dict[str, Array]) -> Float[Array, " N"]:
        """Returns the parameters beside the tables as one vector."""
        return jnp.concatenate([jnp.zeros(0), *(others[name].reshape(-1) for name, _ in self.others)])

    def _unravel(self, vector: Float[Array, " N"]) -> dict[str, Array]:
        """Returns the parameters beside the tables by name."""
        others, start = {}, 0
        for name, shape in self.others:
            others[name] = vector[start : start + math.prod(shape)].reshape(shape)
            start += math.prod(shape)
        return others


def _trees(state: DenseState) -> list[dict[str, Array]]:
    """Returns the parameters, and their first and second moments, by name."""
    return [state.params["params"], *(optax.tree.get(state.opt_state, name)["params"] for name in ("mu", "nu"))]


def stacked_adam(
    dense: Dense, adam: Adam, data: TrainingData, params: Any, steps: int, platform: str | None = None
) -> StackedAdam | None:
    """Returns the steps with stacked tables where these are possible, else None.

    They are possible for the in-batch loss, without extra parameters, if the tables have one shape.

    Args:
        dense: the steps with other arrays.
        adam: hyperparameters of its optimizer.
        data: what training reads.
        params: all parameters to train, with a seed axis.
        steps: T, steps of an interval.
        platform: the platform's name; by default that of the default device.
    """
    if not isinstance(data.loss, InBatchBPR) or params.keys() != {"params"} or dense.layout is not None:
        return None
    read = jax.eval_shape(lambda data: data.loss.table_ids(data.of_first_seed().batch(jnp.arange(1), 0)), data)
    leaves = params["params"]
    if not read or any(not hasattr(leaf, "shape") or leaf.dtype != jnp.float32 for leaf in leaves.values()):
        return None
    shapes = {name: tuple(leaf.shape[1:]) for name, leaf in leaves.items()}
    if len({shapes[name] for name in read}) > 1:
        return None
    tables = StackedTables(tuple(read), shapes[next(iter(read))][0], platforms.tiles_memory(platform))
    others = tuple((name, shape) for name, shape in shapes.items() if name not in read)
    return StackedAdam(
        dense.model, dense.optimizer, dtype=dense.dtype, adam=adam, tables=tables, others=others, steps=steps
    )
