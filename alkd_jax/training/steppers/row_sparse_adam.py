"""Adam for item tables of which a step reads few rows: dense Adam's numbers at the cost of the rows.

Dense Adam goes over gradient, both moments and table at every step although the gradient is zero nearly everywhere.
A row without a gradient needs no care until it is read: its moments, kept as multiples of ``β^k``, k the steps since
the last validation, do not change at all, ``m_k = β₁ᵏ M`` and ``v_k = β₂ᵏ V``, and what it has missed since it last
moved is a sum of one shape for all numbers of the row,

``Σ_k η_k β₁ᵏ / (1 − β₁ᵗ) · M / (√(β₂ᵏ V / (1 − β₂ᵗ)) + ε) = M Σ_k p_k / (√V + ε l_k) ≈ M Σ_k p_k / (√V + ε l)``

with ``l_k = √((1 − β₂ᵗ) / β₂ᵏ)``, ``l = Σ p_k l_k / Σ p_k`` and t counted from the start: exact to first order in
``ε / √v̂``.
A batch's rows are moved on before they are read, all others before the next validation.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from alkd_jax.ops.embedding import named_rows

MAX_STEPS = 400
"""After so many steps ``β₁ᵏ`` is 5e-19: gradients of up to 1e18 divided by it are still finite."""

_LEAST_ENTRIES = 100_000
"""A smaller table and its moments stay in a CPU's cache, where sweeps cost less than looking for rows."""

_ROWS_A_PLACE = 1.5
"""With fewer rows, a step reads so many of them that it may as well sweep them all."""

_BLOCK = 512
"""Rows taken at a time: as many blocks as there are different rows, which no static shape could tell."""


class AdamUpdate(NamedTuple):
    """What Adam does to a number: ``decay · value − pull · M / (√V + ε · lean)``; of one step, or of several."""

    decay: Array
    pull: Array
    lean: Array


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam's numbers; with ``weight_decay``, decoupled, AdamW's.

    Attributes:
        learning_rate: a number, or an optax schedule over steps.
        weight_decay: what a step takes off every parameter, times the learning rate.
    """

    learning_rate: float | optax.Schedule
    weight_decay: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8

    def dense(self) -> optax.GradientTransformation:
        """The same optimizer for gradients of any form."""
        options = {"b1": self.b1, "b2": self.b2, "eps": self.eps}
        if self.weight_decay == 0:
            return optax.adam(self.learning_rate, **options)
        return optax.adamw(self.learning_rate, weight_decay=self.weight_decay, **options)

    def move(self, count: Int[Array, ""], since: Int[Array, ""] | int) -> AdamUpdate:
        """A step's, for moments kept as multiples of ``β^since``.

        Args:
            count: steps taken, this one included.
            since: of these, since the moments were themselves.
        """
        steps = count.astype(jnp.float32)
        rate = self.learning_rate(count - 1) if callable(self.learning_rate) else self.learning_rate
        own, square = self.scales(since)
        lean = jnp.sqrt((1 - self.b2**steps) / square)
        return AdamUpdate(jnp.float32(1 - rate * self.weight_decay), rate * own / (1 - self.b1**steps) * lean, lean)

    def moved(self, move: AdamUpdate, value: Array, first: Array, second: Array) -> Array:
        """Parameters after a move."""
        return move.decay * value - move.pull * first / (jnp.sqrt(second) + self.eps * move.lean)

    def grown(self, first: Array, second: Array, gradient: Array, since: Int[Array, ""] | int) -> tuple[Array, Array]:
        """Moments, as multiples of ``β^since``, after a gradient."""
        own, square = self.scales(since)
        return first + (1 - self.b1) / own * gradient, second + (1 - self.b2) / square * gradient * gradient

    def scales(self, since: Int[Array, ""] | int) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """``β₁^since`` and ``β₂^since``."""
        steps = jnp.asarray(since, jnp.float32)
        return self.b1**steps, self.b2**steps


class Table(NamedTuple):
    """A table between two validations.

    Attributes:
        value: ``[V, D]``, each row as it was when it last moved.
        first: M.
        second: V.
        at: ``[V]`` the step, counted from the last validation, at which a row last moved.
    """

    value: Array
    first: Array
    second: Array
    at: Array


class PendingUpdates(NamedTuple):
    """Sums over the steps after step 0, 1, … T, by the step at which a row last moved.

    Attributes:
        decay: product of the decays.
        pull: sum of the pulls.
        leant: sum of pulls times leans.
    """

    decay: Array
    pull: Array
    leant: Array

    def after(self, move: AdamUpdate, since: Int[Array, ""]) -> "PendingUpdates":
        """With one more step."""
        behind = jnp.arange(len(self.decay)) < since
        return PendingUpdates(
            jnp.where(behind, move.decay * self.decay, 1.0),
            jnp.where(behind, move.decay * self.pull + move.pull, 0.0),
            jnp.where(behind, move.decay * self.leant + move.pull * move.lean, 0.0),
        )

    def of(self, at: Int[Array, " M"]) -> AdamUpdate:
        """What rows have missed that last moved at these steps."""
        lean = jnp.where(self.pull > 0, self.leant / jnp.where(self.pull > 0, self.pull, 1.0), 1.0)
        return AdamUpdate(*(sums[at][:, None] for sums in (self.decay, self.pull, lean)))


class UniqueRows(NamedTuple):
    """The rows a step reads.

    Attributes:
        ids: ``[M]`` each once; places left over name rows beyond the table.
        place: where each row that is read stands among them.
        number: how many there are.
    """

    ids: Array
    place: Array
    number: Array


def worth_it(shape: tuple[int, ...], places: int) -> bool:
    """Whether a table is so large, and its rows so many against the places that a step reads, that rows are faster."""
    large = math.prod(shape) >= _LEAST_ENTRIES and shape[0] >= _ROWS_A_PLACE * places
    return jax.default_backend() == "cpu" and large


def begin(value: Array, first: Array, second: Array) -> Table:
    """A table after a validation, from itself and its moments."""
    return Table(value, first, second, jnp.zeros(value.shape[0], jnp.int32))


def nothing_missed(steps: int) -> PendingUpdates:
    """After a validation, for so many steps until the next."""
    nothing = jnp.zeros(steps + 1)
    return PendingUpdates(nothing + 1, nothing, nothing)


def named(ids: Int[Array, "..."], num_rows: int) -> UniqueRows:
    """The rows of a table that are read; the padding too, since the authors' STAMP learns its vector."""
    each, place, count = named_rows(ids, num_rows)
    left_over = -len(each) % _BLOCK
    return UniqueRows(jnp.append(each, num_rows + len(each) + jnp.arange(left_over, dtype=each.dtype)), place, count)


def apply_pending(adam: Adam, table: Table, rows: UniqueRows, missed: PendingUpdates, since: Int[Array, ""]) -> Table:
    """The table with these rows as dense Adam would have them before step ``since``, in which they move."""

    def block(number: Array, table: Table) -> Table:
        ids = _piece(rows.ids, number)
        value, first, second, at = (_read(part, ids) for part in table)
        moved = adam.moved(missed.of(at), value, first, second)
        return table._replace(
            value=_write(table.value, ids, moved), at=_write(table.at, ids, jnp.broadcast_to(since, ids.shape))
        )

    return _over_blocks(rows, block, table)


def take_step(
    adam: Adam, table: Table, rows: UniqueRows, gradient: Float[Array, "... D"], move: AdamUpdate, since: Int[Array, ""]
) -> Table:
    """Moves the rows that were read.

    Args:
        adam: its numbers.
        table: caught up in these rows.
        rows: which were read.
        gradient: of each row that was read, ``[*place.shape, D]``.
        move: this step's.
        since: this step, counted from the last validation.
    """
    flat = gradient.reshape(-1, gradient.shape[-1])
    sums = jax.ops.segment_sum(flat, rows.place.reshape(-1), num_segments=len(rows.ids))

    def block(number: Array, table: Table) -> Table:
        ids = _piece(rows.ids, number)
        value, old_first, old_second = (_read(part, ids) for part in table[:3])
        first, second = adam.grown(old_first, old_second, _piece(sums, number), since)
        return table._replace(
            value=_write(table.value, ids, adam.moved(move, value, first, second)),
            first=_write(table.first, ids, first),
            second=_write(table.second, ids, second),
        )

    return _over_blocks(rows, block, table)


def dense_step(
    adam: Adam, part: tuple[Array, Array, Array], gradient: Array, count: Int[Array, ""]
) -> tuple[Array, Array, Array]:
    """A parameter that is no table, and its moments, after a step; ``count`` includes it."""
    value, first, second = part
    first, second = adam.grown(adam.b1 * first, adam.b2 * second, gradient, 0)
    return adam.moved(adam.move(count, 0), value, first, second), first, second


def apply_all_pending(adam: Adam, table: Table, missed: PendingUpdates, since: int) -> tuple[Array, Array, Array]:
    """The whole table and its moments before a validation, after so many steps."""
    own, square = adam.scales(since)
    return adam.moved(missed.of(table.at), *table[:3]), own * table.first, square * table.second


def _read(stored: Array, ids: Array) -> Array:
    # What is read beyond the table is not written.
    return stored.at[ids].get(mode="clip")


def _write(stored: Array, ids: Array, rows: Array) -> Array:
    return stored.at[ids].set(rows, mode="drop", unique_indices=True)


def _piece(array: Array, number: Array) -> Array:
    return jax.lax.dynamic_slice_in_dim(array, number * _BLOCK, _BLOCK)


def _over_blocks(rows: UniqueRows, block: Callable[[Array, Any], Any], start: Any) -> Any:
    return jax.lax.fori_loop(0, -(-rows.number // _BLOCK), block, start)
