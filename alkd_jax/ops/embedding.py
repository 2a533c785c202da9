"""Optimizers that touch only the rows of a table a batch names: Adam, Adagrad and SGD for large item tables.

A dense optimizer reads and writes the whole table at every step; these cost as much as the rows of the batch, whatever
the table's size, if the caller donates table and slots to the compiled step. *Lazy* is what a row without a gradient
sees: nothing. SGD and Adagrad without momentum are the same lazy or dense. Adam is not: its moments of a row decay only
when the row is touched, and a row that is not touched does not move, while dense Adam moves it on. Rows touched at
every step are those of dense Adam.

Equal arguments give the same functions, so that a second training reuses the first one's compilation.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int

from alkd_jax.sharding import DATA, MODEL, batch_axis, shard_map_unchecked
from alkd_jax.types import PAD

Table: TypeAlias = Array
"""``[V, *D]``, a row an item."""
Rate: TypeAlias = float | Callable[[Array], Any]
"""A learning rate, or a schedule over the steps taken so far."""

_ROWS_AN_ID = 8
"""Up to so many rows an id, a number for every row is cheaper than sorting the ids."""


class RowOptimizer(NamedTuple):
    """What optax calls a gradient transformation, for the named rows of one table.

    Attributes:
        init: ``init(table) -> slots``.
        update: ``update(table, slots, ids, gradients, *, distinct=False, key=None) -> (table, slots)``. ``ids`` ``[M]``
            names a row for each of ``gradients`` ``[M, *D]``; gradients of a row named more than once are added up.
            Row 0, the padding, and ids outside ``1..V-1`` are left alone. ``distinct`` promises that no row is named
            twice. With a key, rows stored in bfloat16 are rounded up or down at random, so that small steps are not
            lost. Arithmetic is in float32. Donate table and slots: without, both are copied whole.
    """

    init: Callable[[Table], Any]
    update: Callable[..., tuple[Table, Any]]


class SgdSlots(NamedTuple):
    """Steps taken."""

    steps: Array


class AdagradSlots(NamedTuple):
    """Steps taken, and the sum of squares of every number or of every row."""

    steps: Array
    squares: Array


class AdamSlots(NamedTuple):
    """Steps taken, and the two moments of every number."""

    steps: Array
    first: Array
    second: Array


@functools.lru_cache(maxsize=64)
def sgd(learning_rate: Rate) -> RowOptimizer:
    """``Y_v ← Y_v − η g_v``; equal to dense SGD.

    Args:
        learning_rate: η.
    """

    def init(table: Table) -> SgdSlots:
        return SgdSlots(jnp.zeros((), jnp.int32))

    def update(table: Table, slots: SgdSlots, ids: Array, gradients: Array, **how: Any) -> tuple[Table, SgdSlots]:
        rows = Rows(table, ids, gradients, **how)
        rate = _rate(learning_rate, slots.steps)
        return rows.write(table, rows.read(table) - rate * rows.gradient), SgdSlots(slots.steps + 1)

    return RowOptimizer(init, update)


@functools.lru_cache(maxsize=64)
def adagrad(
    learning_rate: Rate,
    *,
    initial_accumulator_value: float = 0.1,
    eps: float = 1e-7,
    rowwise: bool = False,
    dtype: Any = jnp.float32,
) -> RowOptimizer:
    """``G_v ← G_v + g_v²``, ``Y_v ← Y_v − η g_v / √(G_v + ε)``; equal to dense Adagrad as optax has it.

    Args:
        learning_rate: η.
        initial_accumulator_value: G before the first step.
        eps: ε.
        rowwise: keeps one number a row, which grows by the mean of the row's squares: memory D times less.
        dtype: G is stored in.

    Reference:
        Duchi et al., Adaptive subgradient methods, JMLR 2011; row-wise as in Mudigere et al., ISCA 2022.
    """

    def init(table: Table) -> AdagradSlots:
        shape = table.shape[:1] if rowwise else table.shape
        return AdagradSlots(jnp.zeros((), jnp.int32), jnp.full(shape, initial_accumulator_value, dtype))

    def update(
        table: Table, slots: AdagradSlots, ids: Array, gradients: Array, **how: Any
    ) -> tuple[Table, AdagradSlots]:
        rows = Rows(table, ids, gradients, **how)
        grown = jnp.square(rows.gradient)
        if rowwise:
            grown = grown.reshape(len(grown), -1).mean(1)
        squares = rows.read(slots.squares) + grown
        scale = jnp.where(squares > 0, jax.lax.rsqrt(squares + eps), 0.0)
        scale = scale.reshape(scale.shape + (1,) * (table.ndim - scale.ndim))
        moved = rows.read(table) - _rate(learning_rate, slots.steps) * scale * rows.gradient
        return rows.write(table, moved), AdagradSlots(slots.steps + 1, rows.write(slots.squares, squares))

    return RowOptimizer(init, update)


@functools.lru_cache(maxsize=64)
def adam(
    learning_rate: Rate, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, dtype: Any = jnp.float32
) -> RowOptimizer:
    """Lazy Adam: moments and rows change only where there is a gradient; bias is corrected by the steps of the table.

    ``m_v ← β₁ m_v + (1 − β₁) g_v``, ``n_v ← β₂ n_v + (1 − β₂) g_v²``,
    ``Y_v ← Y_v − η m_v / (1 − β₁ᵗ) / (√(n_v / (1 − β₂ᵗ)) + ε)``

    Args:
        learning_rate: η.
        b1: β₁.
        b2: β₂.
        eps: ε.
        dtype: the moments are stored in.

    Reference:
        Kingma and Ba, Adam, ICLR 2015.
    """

    def init(table: Table) -> AdamSlots:
        return AdamSlots(jnp.zeros((), jnp.int32), jnp.zeros(table.shape, dtype), jnp.zeros(table.shape, dtype))

    def update(table: Table, slots: AdamSlots, ids: Array, gradients: Array, **how: Any) -> tuple[Table, AdamSlots]:
        rows = Rows(table, ids, gradients, **how)
        count = slots.steps + 1
        first = b1 * rows.read(slots.first) + (1 - b1) * rows.gradient
        second = b2 * rows.read(slots.second) + (1 - b2) * jnp.square(rows.gradient)
        step = first / (1 - b1**count) / (jnp.sqrt(second / (1 - b2**count)) + eps)
        moved = rows.read(table) - _rate(learning_rate, slots.steps) * step
        slots = AdamSlots(count, rows.write(slots.first, first), rows.write(slots.second, second))
        return rows.write(table, moved), slots

    return RowOptimizer(init, update)


def distinct_ids(ids: Int[Array, "..."], num_rows: int) -> tuple[Int[Array, " M"], Int[Array, "..."]]:
    """The rows named, each once, and where each of ``ids`` stands among them.

    Args:
        ids: any integers.
        num_rows: V.

    Returns:
        Ascending ids, the places left over filled with different ids beyond the table; and places, as ``ids`` shaped.
        What is outside ``0..V-1`` stands at a place whose id is beyond the table.
    """
    inside = jnp.where((ids >= 0) & (ids < num_rows), ids, num_rows)
    unique, place = jnp.unique(inside.reshape(-1), return_inverse=True, size=ids.size, fill_value=num_rows)
    beyond = num_rows + jnp.arange(ids.size, dtype=unique.dtype)
    return jnp.where(unique < num_rows, unique, beyond), place.reshape(ids.shape)


def named_rows(ids: Int[Array, "..."], num_rows: int) -> tuple[Int[Array, " M"], Int[Array, "..."], Int[Array, ""]]:
    """:func:`distinct_ids` in no order and without sorting, by a number a row of the table.

    Args:
        ids: any integers.
        num_rows: V.

    Returns:
        Ids and places as there, and how many of the ids are named, those beyond the table counted as well.
    """
    inside = jnp.where((ids >= 0) & (ids < num_rows), ids, num_rows).reshape(-1)
    order = jnp.arange(ids.size, dtype=jnp.int32)
    # The last place that names a row speaks for it.
    speaker = jnp.zeros(num_rows + 1, jnp.int32).at[inside].max(order)[inside]
    speaks = speaker == order
    number = jnp.cumsum(speaks, dtype=jnp.int32)
    own = jnp.where(speaks & (inside < num_rows), number - 1, ids.size)
    each = (num_rows + order).at[own].set(inside, mode="drop", unique_indices=True)
    return each, (number - 1)[speaker].reshape(ids.shape), number[-1]


def update_parts(
    optimizer: RowOptimizer,
    mesh: Mesh,
    table: Table,
    slots: Any,
    ids: Int[Array, " M"],
    gradients: Array,
    *,
    distinct: bool = False,
    key: jax.Array | None = None,
    everywhere: bool = False,
) -> tuple[Table, Any]:
    """``optimizer.update`` of a table that lies in parts: every device updates its own rows, to the same bits.

    What travels is the batch's ids and gradients, where the batch is cut along the data axis.

    Args:
        optimizer: of this room.
        mesh: whose model axis cuts the table evenly, see :func:`alkd_jax.ops.lookup.filled`.
        table: ``[R, *D]``, R a multiple of the model axis.
        slots: what ``optimizer.init`` made of it.
        ids: ``[M]`` rows, cut along the data axis if that divides M.
        gradients: ``[M, *D]`` theirs.
        distinct: as the optimizer's ``update``.
        key: likewise.
        everywhere: ids and gradients are whole on every device; nothing travels.

    Returns:
        The table and its slots. Donate both.

    Raises:
        ValueError: the model axis does not divide the rows.
    """
    if table.shape[0] % mesh.shape[MODEL]:
        raise ValueError(f"the table has {table.shape[0]} rows; expected a multiple of {mesh.shape[MODEL]}")
    batch = None if everywhere else batch_axis(mesh, ids.shape[0])

    def of_part(table: Array, slots: Any, ids: Array, gradients: Array, key: jax.Array | None) -> tuple[Array, Any]:
        if batch is not None:
            ids, gradients = (jax.lax.all_gather(array, DATA, tiled=True) for array in (ids, gradients))
        part = jax.lax.axis_index(MODEL)
        # Only the first part begins with the padding.
        first = jnp.where(part == 0, PAD + 1, 0)
        ids = ids - part * table.shape[0]
        return optimizer.update(table, slots, ids, gradients, distinct=distinct, key=key, first=first)

    by_rows = jax.tree.map(lambda leaf: P(MODEL) if leaf.ndim else P(), slots)
    takes = P(MODEL), by_rows, P(batch), P(batch), P()
    return shard_map_unchecked(of_part, mesh, takes, (P(MODEL), by_rows))(table, slots, ids, gradients, key)


class Rows:
    """The rows a step is about: their ids, each once, and the sum of their gradients.

    Args:
        table: ``[V, *D]``.
        ids: ``[M]`` the row of each gradient.
        gradients: ``[M, *D]``.
        distinct: promises that no row is named twice.
        key: rounds what is stored in bfloat16 at random.
        first: rows before it are left alone, by default the padding.
    """

    def __init__(
        self,
        table: Array,
        ids: Array,
        gradients: Array,
        *,
        distinct: bool = False,
        key: jax.Array | None = None,
        first: Array | int = PAD + 1,
    ) -> None:
        num_rows = table.shape[0]
        if ids.ndim != 1 or gradients.shape != ids.shape + table.shape[1:]:
            raise ValueError(
                f"gradients are {gradients.shape} of ids {ids.shape}; expected {(ids.size, *table.shape[1:])}"
            )
        gradients, self.key = gradients.astype(jnp.float32), key
        if distinct:
            self.ids, self.gradient = ids, gradients
        else:
            find = named_rows if num_rows <= _ROWS_AN_ID * ids.size else distinct_ids
            self.ids, place = find(ids, num_rows)[:2]
            self.gradient = jax.ops.segment_sum(gradients, place, num_segments=ids.size)
        # A negative index would wrap around: what is to be left alone goes beyond the table, each to its own place.
        beyond = num_rows + jnp.arange(ids.size, dtype=self.ids.dtype)
        self.ids = jnp.where((self.ids >= first) & (self.ids < num_rows), self.ids, beyond)

    def read(self, stored: Array) -> Array:
        """The rows in float32."""
        return stored.at[self.ids].get(mode="clip").astype(jnp.float32)

    def write(self, stored: Array, rows: Array) -> Array:
        """The rows in their place, in the type of what is stored."""
        if self.key is not None and stored.dtype == jnp.bfloat16:
            self.key, key = jax.random.split(self.key)
            rows = _rounded_at_random(key, rows)
        return stored.at[self.ids].set(rows.astype(stored.dtype), mode="drop", unique_indices=True)


def _rate(learning_rate: Rate, count: Array) -> Any:
    return learning_rate(count) if callable(learning_rate) else learning_rate


def _rounded_at_random(key: jax.Array, rows: Array) -> Array:
    """One of the two bfloat16 neighbours, each with the chance that makes the mean right."""
    bits = jax.lax.bitcast_convert_type(rows, jnp.uint32)
    noise = jax.random.bits(key, rows.shape, jnp.uint16).astype(jnp.uint32)
    rounded = (bits + noise) & jnp.uint32(0xFFFF0000)
    return jnp.where(jnp.isfinite(rows), jax.lax.bitcast_convert_type(rounded, jnp.float32), rows)
