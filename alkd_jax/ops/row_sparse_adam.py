"""Adam for item tables of which a step reads few rows: dense Adam's results, but only these rows are read and written.

Dense Adam reads and writes gradient, both moments and table at every step, although the gradient of most rows is zero.
The update of a row with zero gradient can be postponed until the row is read. Its moments are stored as multiples of
``βᵏ``, k the steps since the interval began, so that decay does not change what is stored: ``m_k = β₁ᵏ M`` and
``v_k = β₂ᵏ V``. The postponed updates of a row are then one sum, whose coefficients are the same for all its elements:

``Σ_k η_k β₁ᵏ / (1 − β₁ᵗ) · M / (√(β₂ᵏ V / (1 − β₂ᵗ)) + ε) = M Σ_k p_k / (√V + ε l_k) ≈ M Σ_k p_k / (√V + ε l)``

with ``l_k = √((1 − β₂ᵗ) / β₂ᵏ)``, ``p_k = η_k β₁ᵏ l_k / (1 − β₁ᵗ)``, ``l = Σ p_k l_k / Σ p_k`` and t the steps since
the start of training. This is exact to first order in ``ε / √v̂``. Postponed updates are applied to the rows of a batch
before they are read, and to all rows before the next validation.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from alkd_jax.checks import check_rates
from alkd_jax.ops.row_gradients import unsorted_unique_ids

MAX_STEPS = 400
"""The longest interval. After 400 steps ``β₁ᵏ`` is 5e-19; gradients of up to 1e18 divided by that are still finite."""

_MIN_TABLE_SIZE = 100_000
"""A smaller table and its moments stay in a CPU's cache, where dense updates are faster than row-sparse ones."""

_MIN_ROWS_PER_ID = 1.5
"""With fewer table rows for each id that a step reads, a step reads so many rows that dense updates are faster."""

_BLOCK = 512
"""Rows updated at a time. The number of blocks follows the number of unique rows, which is not static."""


class AdamUpdate(NamedTuple):
    """The coefficients of one step's update, or of several: ``decay · value − scale · M / (√V + ε · eps_scale)``.

    Attributes:
        decay: product of the factors of weight decay.
        scale: p, or the sum of p.
        eps_scale: l.
    """

    decay: Array
    scale: Array
    eps_scale: Array


@dataclasses.dataclass(frozen=True)
class Adam:
    """Hyperparameters of Adam, or of AdamW where ``weight_decay`` is not 0.

    Attributes:
        learning_rate: η; a number, or an optax schedule over steps.
        weight_decay: decoupled weight decay; a step subtracts it times η from every parameter.
        b1: β₁.
        b2: β₂.
        eps: ε.
    """

    learning_rate: float | optax.Schedule
    weight_decay: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        """Raises ValueError for a negative number, or one that is not finite."""
        check_rates(learning_rate=self.learning_rate, weight_decay=self.weight_decay)

    def as_optax(self) -> optax.GradientTransformation:
        """Returns the optax optimizer with these hyperparameters."""
        options = {"b1": self.b1, "b2": self.b2, "eps": self.eps}
        if self.weight_decay == 0:
            return optax.adam(self.learning_rate, **options)
        return optax.adamw(self.learning_rate, weight_decay=self.weight_decay, **options)

    def update_at(self, count: Int[Array, ""], interval_step: Int[Array, ""] | int) -> AdamUpdate:
        """Returns the update of one step, for moments stored as multiples of ``β^interval_step``.

        Args:
            count: t, steps taken since the start, this one included.
            interval_step: k, steps taken since the last validation, this one included.
        """
        steps = count.astype(jnp.float32)
        rate = self.learning_rate(count - 1) if callable(self.learning_rate) else self.learning_rate
        first_scale, second_scale = self.moment_scales(interval_step)
        eps_scale = jnp.sqrt((1 - self.b2**steps) / second_scale)
        decay = jnp.float32(1 - rate * self.weight_decay)
        return AdamUpdate(decay, rate * first_scale / (1 - self.b1**steps) * eps_scale, eps_scale)

    def apply(self, update: AdamUpdate, value: Array, first: Array, second: Array) -> Array:
        """Returns parameters after an update.

        Args:
            update: coefficients of one step or of several.
            value: parameters before it.
            first: M.
            second: V.
        """
        return update.decay * value - update.scale * first / (jnp.sqrt(second) + self.eps * update.eps_scale)

    def update_moments(
        self, first: Array, second: Array, gradient: Array, interval_step: Int[Array, ""] | int
    ) -> tuple[Array, Array]:
        """Returns M and V, stored as multiples of ``β^interval_step``, after a gradient."""
        first_scale, second_scale = self.moment_scales(interval_step)
        first = first + (1 - self.b1) / first_scale * gradient
        return first, second + (1 - self.b2) / second_scale * gradient * gradient

    def moment_scales(self, interval_step: Int[Array, ""] | int) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """Returns ``β₁^interval_step`` and ``β₂^interval_step``."""
        steps = jnp.asarray(interval_step, jnp.float32)
        return self.b1**steps, self.b2**steps


class Table(NamedTuple):
    """An item table between two validations.

    Attributes:
        value: ``[V, D]``, each row without its postponed updates.
        first: ``[V, D]`` M.
        second: ``[V, D]`` V.
        last_update: ``[V]`` the step, counted from the last validation, up to which a row is updated.
    """

    value: Array
    first: Array
    second: Array
    last_update: Array


class PendingUpdates(NamedTuple):
    """Coefficients of the postponed updates of a row; entry i = 0, …, T belongs to rows whose last applied step is i.

    Attributes:
        decay: product of the decays of the steps after it.
        scale: sum of their scales p, decayed.
        weighted_eps_scale: sum of ``p · l``, decayed.
    """

    decay: Array
    scale: Array
    weighted_eps_scale: Array

    def append(self, update: AdamUpdate, interval_step: Int[Array, ""]) -> "PendingUpdates":
        """Returns the coefficients after one more step.

        Args:
            update: the step's update.
            interval_step: the step, counted from the last validation.
        """
        is_earlier = jnp.arange(len(self.decay)) < interval_step
        return PendingUpdates(
            jnp.where(is_earlier, update.decay * self.decay, 1.0),
            jnp.where(is_earlier, update.decay * self.scale + update.scale, 0.0),
            jnp.where(is_earlier, update.decay * self.weighted_eps_scale + update.scale * update.eps_scale, 0.0),
        )

    def since(self, last_update: Int[Array, " M"]) -> AdamUpdate:
        """Returns the postponed updates of rows, given the steps up to which they are updated."""
        has_updates = self.scale > 0
        eps_scale = jnp.where(has_updates, self.weighted_eps_scale / jnp.where(has_updates, self.scale, 1.0), 1.0)
        return AdamUpdate(*(sums[last_update][:, None] for sums in (self.decay, self.scale, eps_scale)))


class UniqueRows(NamedTuple):
    """The unique rows of a table that a step reads.

    Attributes:
        ids: ``[M]`` row numbers, each once; free places hold numbers beyond the table.
        inverse: index in ``ids`` of each row that is read.
        num_unique: number of unique rows.
    """

    ids: Array
    inverse: Array
    num_unique: Array


def is_row_sparse_faster(shape: tuple[int, ...], num_ids: int) -> bool:
    """Whether row-sparse updates of a table are faster than dense ones on a CPU.

    Args:
        shape: of the table.
        num_ids: ids that a step reads, repeats included.
    """
    is_large = math.prod(shape) >= _MIN_TABLE_SIZE and shape[0] >= _MIN_ROWS_PER_ID * num_ids
    return is_large


def init_table(value: Array, first: Array, second: Array) -> Table:
    """Returns a table after a validation, from its values and moments."""
    return Table(value, first, second, jnp.zeros(value.shape[0], jnp.int32))


def no_pending_updates(steps: int) -> PendingUpdates:
    """Returns the coefficients after a validation, for an interval of this many steps."""
    zeros = jnp.zeros(steps + 1)
    return PendingUpdates(zeros + 1, zeros, zeros)


def unique_rows(ids: Int[Array, "..."], num_rows: int) -> UniqueRows:
    """Finds the unique rows of a table that a step reads, the padding row included, since the authors' STAMP trains it.

    Args:
        ids: rows that are read.
        num_rows: rows of the table.
    """
    unique, inverse, num_unique = unsorted_unique_ids(ids, num_rows)
    padding = -len(unique) % _BLOCK
    beyond = num_rows + len(unique) + jnp.arange(padding, dtype=unique.dtype)
    return UniqueRows(jnp.append(unique, beyond), inverse, num_unique)


def apply_pending(
    adam: Adam, table: Table, rows: UniqueRows, pending: PendingUpdates, interval_step: Int[Array, ""]
) -> Table:
    """Returns the table with these rows as dense Adam has them before step ``interval_step``.

    Args:
        adam: hyperparameters.
        table: the table.
        rows: the rows that the step reads; :func:`update_rows` must follow in the same step.
        pending: the postponed updates.
        interval_step: the step, counted from the last validation.
    """

    def update_block(number: Array, table: Table) -> Table:
        ids = _block(rows.ids, number)
        value, first, second, last_update = (_read(array, ids) for array in table)
        updated = adam.apply(pending.since(last_update), value, first, second)
        return table._replace(
            value=_write(table.value, ids, updated),
            last_update=_write(table.last_update, ids, jnp.broadcast_to(interval_step, ids.shape)),
        )

    return _for_each_block(rows, update_block, table)


def update_rows(
    adam: Adam,
    table: Table,
    rows: UniqueRows,
    gradient: Float[Array, "... D"],
    update: AdamUpdate,
    interval_step: Int[Array, ""],
) -> Table:
    """Returns the table after one step's update of the rows that were read.

    Args:
        adam: hyperparameters.
        table: the table, after :func:`apply_pending` of these rows.
        rows: the rows that the step reads.
        gradient: of each row that was read, ``[*inverse.shape, D]``.
        update: the step's update.
        interval_step: the step, counted from the last validation.
    """
    flat = gradient.reshape(-1, gradient.shape[-1])
    sums = jax.ops.segment_sum(flat, rows.inverse.reshape(-1), num_segments=len(rows.ids))

    def update_block(number: Array, table: Table) -> Table:
        ids = _block(rows.ids, number)
        value, old_first, old_second = (_read(array, ids) for array in table[:3])
        first, second = adam.update_moments(old_first, old_second, _block(sums, number), interval_step)
        return table._replace(
            value=_write(table.value, ids, adam.apply(update, value, first, second)),
            first=_write(table.first, ids, first),
            second=_write(table.second, ids, second),
        )

    return _for_each_block(rows, update_block, table)


def update_dense(
    adam: Adam, param: tuple[Array, Array, Array], gradient: Array, count: Int[Array, ""]
) -> tuple[Array, Array, Array]:
    """Returns a dense parameter and its two moments after a step.

    Args:
        adam: hyperparameters.
        param: the parameter and its first and second moment.
        gradient: its gradient.
        count: steps taken since the start, this one included.
    """
    value, first, second = param
    first, second = adam.update_moments(adam.b1 * first, adam.b2 * second, gradient, 0)
    return adam.apply(adam.update_at(count, 0), value, first, second), first, second


def apply_all_pending(adam: Adam, table: Table, pending: PendingUpdates, steps: int) -> tuple[Array, Array, Array]:
    """Returns the whole table and its moments as dense Adam has them after an interval of this many steps."""
    first_scale, second_scale = adam.moment_scales(steps)
    value = adam.apply(pending.since(table.last_update), *table[:3])
    return value, first_scale * table.first, second_scale * table.second


def _read(stored: Array, ids: Array) -> Array:
    # Ids beyond the table read an arbitrary row; _write drops what is computed from it.
    return stored.at[ids].get(mode="clip")


def _write(stored: Array, ids: Array, rows: Array) -> Array:
    return stored.at[ids].set(rows, mode="drop", unique_indices=True)


def _block(array: Array, number: Array) -> Array:
    return jax.lax.dynamic_slice_in_dim(array, number * _BLOCK, _BLOCK)


def _for_each_block(rows: UniqueRows, update_block: Callable[[Array, Any], Any], start: Any) -> Any:
    return jax.lax.fori_loop(0, -(-rows.num_unique // _BLOCK), update_block, start)
