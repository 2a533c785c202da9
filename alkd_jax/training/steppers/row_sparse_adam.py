"""Dense Adam's steps with updates of only the rows that a batch reads, see :mod:`alkd_jax.ops.row_sparse_adam`."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from alkd_jax.objectives import InBatchBPR
from alkd_jax.ops import precision, row_sparse_adam
from alkd_jax.ops.row_sparse_adam import Adam
from alkd_jax.training.arrays import TrainingData
from alkd_jax.training.steppers.dense import Dense, DenseState
from alkd_jax.types import Batch


class IntervalState(NamedTuple):
    """The parameters within an interval.

    Attributes:
        dense: value and both moments of the parameters with dense updates, by name.
        tables: the item tables, some of whose rows have postponed updates, by name.
        pending: the coefficients of the postponed updates.
        start: steps taken before the interval.
        step: steps taken since.
    """

    dense: dict[str, tuple[Array, Array, Array]]
    tables: dict[str, row_sparse_adam.Table]
    pending: row_sparse_adam.PendingUpdates
    start: Array
    step: Array


@dataclasses.dataclass(frozen=True)
class RowSparseAdam(Dense):
    """Steps of the in-batch loss with Adam; results equal those of :class:`Dense` up to rounding.

    Attributes:
        adam: hyperparameters of ``optimizer``.
        tables: names of the tables with row-sparse updates.
        steps: T, steps of an interval.
    """

    adam: Adam = dataclasses.field(kw_only=True)
    tables: tuple[str, ...] = dataclasses.field(kw_only=True)
    steps: int = dataclasses.field(kw_only=True)

    def begin(self, state: DenseState) -> IntervalState:
        """Returns the parameters and moments by name, without postponed updates."""
        moments = tuple(optax.tree.get(state.opt_state, name)["params"] for name in ("mu", "nu"))
        # A schedule has a count of its own, which is equal to Adam's.
        count = optax.tree.get_all_with_path(state.opt_state, "count")[0][1]
        dense = {name: (leaf, *(moment[name] for moment in moments)) for name, leaf in state.params["params"].items()}
        tables = {name: row_sparse_adam.init_table(*dense.pop(name)) for name in self.tables}
        pending = row_sparse_adam.no_pending_updates(self.steps)
        return IntervalState(dense, tables, pending, count, jnp.zeros((), jnp.int32))

    def step(  # type: ignore[override]
        self, carry: IntervalState, loss: InBatchBPR, batch: Batch, key: jax.Array
    ) -> tuple[IntervalState, Float[Array, ""]]:
        """Takes a step."""
        adam, dense, step = self.adam, carry.dense, carry.step + 1
        count = carry.start + step
        ids = loss.table_ids(batch)
        unique = {name: row_sparse_adam.unique_rows(ids[name], len(t.value)) for name, t in carry.tables.items()}
        tables = {
            name: row_sparse_adam.apply_pending(adam, table, unique[name], carry.pending, step)
            for name, table in carry.tables.items()
        }
        table_values = {name: table.value for name, table in tables.items()}

        def loss_of(dense_values: Any, rows: Any) -> Array:
            dense_values, rows = precision.cast((dense_values, rows), self.dtype)
            all_rows = rows | {name: dense_values[name][at] for name, at in ids.items() if name in dense_values}
            return loss.loss_from_rows({"params": table_values | dense_values}, all_rows, batch, key)

        dense_values = {name: param[0] for name, param in dense.items()}
        rows = {name: value[ids[name]] for name, value in table_values.items()}
        gradient, row_gradient = jax.grad(loss_of, argnums=(0, 1))(dense_values, rows)
        update = adam.update_at(count, step)
        tables = {
            name: row_sparse_adam.update_rows(adam, table, unique[name], row_gradient[name], update, step)
            for name, table in tables.items()
        }
        dense = {
            name: row_sparse_adam.update_dense(adam, param, gradient[name], count) for name, param in dense.items()
        }
        values = {name: param[0] for name, param in (dense | tables).items()}
        pending = carry.pending.append(update, step)
        return IntervalState(dense, tables, pending, carry.start, step), self.probe({"params": values}, batch)

    def finish(self, state: DenseState, carry: IntervalState) -> DenseState:
        """Applies all postponed updates."""
        dense = carry.dense | {
            name: row_sparse_adam.apply_all_pending(self.adam, table, carry.pending, self.steps)
            for name, table in carry.tables.items()
        }
        params, first, second = ({name: param[place] for name, param in dense.items()} for place in range(3))
        moments = {"mu": {"params": first}, "nu": {"params": second}, "count": carry.start + self.steps}
        return DenseState({"params": params}, optax.tree.set(state.opt_state, **moments))


def row_sparse_tables(data: TrainingData, params: Any, batch_size: int, steps: int) -> tuple[str, ...]:
    """Returns the tables for which row-sparse updates are possible and faster on a CPU.

    They are possible for the in-batch loss, without extra parameters.

    Args:
        data: what training reads.
        params: all parameters to train, with a seed axis.
        batch_size: B.
        steps: T, steps of an interval.
    """
    loss = data.loss
    if not isinstance(loss, InBatchBPR) or params.keys() != {"params"} or steps > row_sparse_adam.MAX_STEPS:
        return ()
    shapes = jax.eval_shape(lambda data: loss.table_ids(data.of_first_seed().batch(jnp.arange(batch_size), 0)), data)
    tables, is_faster = params["params"], row_sparse_adam.is_row_sparse_faster
    return tuple(name for name, ids in shapes.items() if is_faster(tables[name].shape[1:], ids.size))
