"""Lazy optimizers for large item tables: SGD, Adagrad and Adam that update only the rows with a gradient.

A dense optimizer reads and writes the whole table at every step. These optimizers read and write the rows of the batch,
whatever the size of the table, provided that the caller donates table and slots to the compiled step. *Lazy* means that
a row without a gradient does not change at all. For SGD and Adagrad without momentum this is the same as the dense
optimizer. For Adam it is not: dense Adam decays the moments of such a row and moves it on, lazy Adam does neither. A
row that has a gradient at every step is the same with both.

Equal arguments return the same function objects, so that a second training reuses the first one's compilation.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int

from alkd_jax.checks import check_rates
from alkd_jax.sharding import DATA, MODEL, batch_axis, shard_map_unchecked
from alkd_jax.types import PAD

Table: TypeAlias = Array
"""``[V, *D]``, one row for each item."""
LearningRate: TypeAlias = float | Callable[[Array], Any]
"""A number, or a schedule over the steps taken so far."""

_MAX_ROWS_PER_ID = 8
"""Up to this many table rows for each id, an array with one entry for each row is cheaper than sorting the ids."""


class RowOptimizer(NamedTuple):
    """The counterpart of an optax gradient transformation for some rows of one table.

    Attributes:
        init: ``init(table) -> slots``; slots are the optimizer's state.
        update: ``update(table, slots, ids, gradients, *, unique_ids=False, key=None) -> (table, slots)``, where row
            ``ids[m]`` has the gradient ``gradients[m]`` of ``[M, *D]``. Gradients of the same row are added up. Ids
            outside ``1..V-1`` are ignored, so row 0, the padding, never changes. ``unique_ids`` promises that no id
            comes twice. Arithmetic is in float32; with a key, rows stored in bfloat16 are rounded stochastically, so
            that steps smaller than the precision are not lost. Donate table and slots, otherwise both are copied.
    """

    init: Callable[[Table], Any]
    update: Callable[..., tuple[Table, Any]]


class SgdSlots(NamedTuple):
    """State of :func:`sgd`: the number of steps taken."""

    steps: Array


class AdagradSlots(NamedTuple):
    """State of :func:`adagrad`: steps taken, and the sum of squared gradients of every number or of every row."""

    steps: Array
    squares: Array


class AdamSlots(NamedTuple):
    """State of :func:`adam`: steps taken, and the first and second moment of every number."""

    steps: Array
    first: Array
    second: Array


@functools.lru_cache(maxsize=64)
def sgd(learning_rate: LearningRate) -> RowOptimizer:
    """SGD, ``Y_v ← Y_v − η g_v``; equal to dense SGD.

    Args:
        learning_rate: η.
    """

    def init(table: Table) -> SgdSlots:
        return SgdSlots(jnp.zeros((), jnp.int32))

    def update(table: Table, slots: SgdSlots, ids: Array, gradients: Array, **options: Any) -> tuple[Table, SgdSlots]:
        rows = RowGradients(table, ids, gradients, **options)
        step_size = _step_size(learning_rate, slots.steps)
        return rows.write(table, rows.read(table) - step_size * rows.gradient), SgdSlots(slots.steps + 1)

    return RowOptimizer(init, update)


@functools.lru_cache(maxsize=64)
def adagrad(
    learning_rate: LearningRate,
    *,
    initial_accumulator_value: float = 0.1,
    eps: float = 1e-7,
    rowwise: bool = False,
    dtype: Any = jnp.float32,
) -> RowOptimizer:
    """Adagrad, ``G_v ← G_v + g_v²``, ``Y_v ← Y_v − η g_v / √(G_v + ε)``; equal to dense ``optax.adagrad``.

    Args:
        learning_rate: η.
        initial_accumulator_value: G before the first step.
        eps: ε.
        rowwise: G is one number for each row, to which the mean of the row's squared gradients is added; this takes
            1/D of the memory.
        dtype: the type that G is stored in.

    Reference:
        Duchi et al., Adaptive subgradient methods, JMLR 2011; row-wise as in Mudigere et al., ISCA 2022.
    """

    def init(table: Table) -> AdagradSlots:
        shape = table.shape[:1] if rowwise else table.shape
        return AdagradSlots(jnp.zeros((), jnp.int32), jnp.full(shape, initial_accumulator_value, dtype))

    def update(
        table: Table, slots: AdagradSlots, ids: Array, gradients: Array, **options: Any
    ) -> tuple[Table, AdagradSlots]:
        rows = RowGradients(table, ids, gradients, **options)
        square = jnp.square(rows.gradient)
        if rowwise:
            square = square.reshape(len(square), -1).mean(1)
        squares = rows.read(slots.squares) + square
        scale = jnp.where(squares > 0, jax.lax.rsqrt(squares + eps), 0.0)
        scale = scale.reshape(scale.shape + (1,) * (table.ndim - scale.ndim))
        updated = rows.read(table) - _step_size(learning_rate, slots.steps) * scale * rows.gradient
        return rows.write(table, updated), AdagradSlots(slots.steps + 1, rows.write(slots.squares, squares))

    return RowOptimizer(init, update)


@functools.lru_cache(maxsize=64)
def adam(
    learning_rate: LearningRate, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, dtype: Any = jnp.float32
) -> RowOptimizer:
    """Lazy Adam: moments and rows change only where there is a gradient; t counts all steps of the table.

    ``m_v ← β₁ m_v + (1 − β₁) g_v``, ``n_v ← β₂ n_v + (1 − β₂) g_v²``,
    ``Y_v ← Y_v − η m_v / (1 − β₁ᵗ) / (√(n_v / (1 − β₂ᵗ)) + ε)``

    Args:
        learning_rate: η.
        b1: β₁.
        b2: β₂.
        eps: ε.
        dtype: the type that the moments are stored in.

    Reference:
        Kingma and Ba, Adam, ICLR 2015.
    """

    def init(table: Table) -> AdamSlots:
        return AdamSlots(jnp.zeros((), jnp.int32), jnp.zeros(table.shape, dtype), jnp.zeros(table.shape, dtype))

    def update(table: Table, slots: AdamSlots, ids: Array, gradients: Array, **options: Any) -> tuple[Table, AdamSlots]:
        rows = RowGradients(table, ids, gradients, **options)
        count = slots.steps + 1
        first = b1 * rows.read(slots.first) + (1 - b1) * rows.gradient
        second = b2 * rows.read(slots.second) + (1 - b2) * jnp.square(rows.gradient)
        step = first / (1 - b1**count) / (jnp.sqrt(second / (1 - b2**count)) + eps)
        updated = rows.read(table) - _step_size(learning_rate, slots.steps) * step
        slots = AdamSlots(count, rows.write(slots.first, first), rows.write(slots.second, second))
        return rows.write(table, updated), slots

    return RowOptimizer(init, update)


def sorted_unique_ids(ids: Int[Array, "..."], num_rows: int) -> tuple[Int[Array, " M"], Int[Array, "..."]]:
    """Returns the unique ids in ascending order, found by sorting, and the index of each id among them.

    Args:
        ids: any integers; those outside ``0..V-1`` count as one id beyond the table.
        num_rows: V.

    Returns:
        As many ids as there are in ``ids``; free places at the end hold different ids of V or more. And the index of
        each id, of the shape of ``ids``.
    """
    in_range = jnp.where((ids >= 0) & (ids < num_rows), ids, num_rows)
    unique, index = jnp.unique(in_range.reshape(-1), return_inverse=True, size=ids.size, fill_value=num_rows)
    beyond = num_rows + jnp.arange(ids.size, dtype=unique.dtype)
    return jnp.where(unique < num_rows, unique, beyond), index.reshape(ids.shape)


def unsorted_unique_ids(
    ids: Int[Array, "..."], num_rows: int
) -> tuple[Int[Array, " M"], Int[Array, "..."], Int[Array, ""]]:
    """Returns the unique ids in no particular order, found by an array with one entry for each row instead of sorting.

    Args:
        ids: any integers; those outside ``0..V-1`` count as one id beyond the table.
        num_rows: V.

    Returns:
        The unique ids and the index of each id as :func:`sorted_unique_ids` returns them, and the number of unique ids,
        in which all ids beyond the table count as one.
    """
    in_range = jnp.where((ids >= 0) & (ids < num_rows), ids, num_rows).reshape(-1)
    order = jnp.arange(ids.size, dtype=jnp.int32)
    # The last occurrence of an id stands for all of them.
    last = jnp.zeros(num_rows + 1, jnp.int32).at[in_range].max(order)[in_range]
    is_last = last == order
    count = jnp.cumsum(is_last, dtype=jnp.int32)
    place = jnp.where(is_last & (in_range < num_rows), count - 1, ids.size)
    unique = (num_rows + order).at[place].set(in_range, mode="drop", unique_indices=True)
    return unique, (count - 1)[last].reshape(ids.shape), count[-1]


def update_sharded(
    optimizer: RowOptimizer,
    mesh: Mesh,
    table: Table,
    slots: Any,
    ids: Int[Array, " M"],
    gradients: Array,
    *,
    unique_ids: bool = False,
    key: jax.Array | None = None,
    replicated: bool = False,
) -> tuple[Table, Any]:
    """Calls ``optimizer.update`` on a row-sharded table: every device updates its own rows, with bit-equal results.

    Where the batch is split along the data axis, its ids and gradients are sent to all devices; nothing else is sent.

    Args:
        optimizer: one of this module's.
        mesh: the mesh whose model axis divides the rows, see :func:`alkd_jax.ops.lookup.pad_rows`.
        table: ``[R, *D]``, R a multiple of the model axis.
        slots: the state that ``optimizer.init`` returned.
        ids: ``[M]`` rows; split along the data axis if that divides M.
        gradients: ``[M, *D]`` the rows' gradients, split as the ids.
        unique_ids: as in ``optimizer.update``.
        key: as in ``optimizer.update``.
        replicated: ids and gradients are already whole on every device, so nothing needs to be sent.

    Returns:
        The table and its slots. Donate both.

    Raises:
        ValueError: the model axis does not divide the rows.
    """
    if table.shape[0] % mesh.shape[MODEL]:
        raise ValueError(f"table has {table.shape[0]} rows; expected a multiple of {mesh.shape[MODEL]}")
    batch = None if replicated else batch_axis(mesh, ids.shape[0])

    def update_shard(
        table: Array, slots: Any, ids: Array, gradients: Array, key: jax.Array | None
    ) -> tuple[Array, Any]:
        if batch is not None:
            ids, gradients = (jax.lax.all_gather(array, DATA, tiled=True) for array in (ids, gradients))
        shard = jax.lax.axis_index(MODEL)
        # Only the first shard begins with the padding row.
        first_row = jnp.where(shard == 0, PAD + 1, 0)
        ids = ids - shard * table.shape[0]
        return optimizer.update(table, slots, ids, gradients, unique_ids=unique_ids, key=key, first_row=first_row)

    slot_specs = jax.tree.map(lambda leaf: P(MODEL) if leaf.ndim else P(), slots)
    in_specs = P(MODEL), slot_specs, P(batch), P(batch), P()
    update = shard_map_unchecked(update_shard, mesh, in_specs, (P(MODEL), slot_specs))
    return update(table, slots, ids, gradients, key)


class RowGradients:
    """The unique rows that have a gradient in a step, and the sum of each row's gradients.

    Args:
        table: ``[V, *D]``.
        ids: ``[M]`` the row of each gradient.
        gradients: ``[M, *D]``.
        unique_ids: promises that no id comes twice.
        key: a JAX key; rows stored in bfloat16 are rounded stochastically with it.
        first_row: rows before this one are not updated; by default the padding row.
    """

    def __init__(
        self,
        table: Array,
        ids: Array,
        gradients: Array,
        *,
        unique_ids: bool = False,
        key: jax.Array | None = None,
        first_row: Array | int = PAD + 1,
    ) -> None:
        num_rows = table.shape[0]
        if ids.ndim != 1 or gradients.shape != ids.shape + table.shape[1:]:
            raise ValueError(
                f"gradients have shape {gradients.shape} for ids of shape {ids.shape}; "
                f"expected {(ids.size, *table.shape[1:])}"
            )
        gradients, self.key = gradients.astype(jnp.float32), key
        if unique_ids:
            self.ids, self.gradient = ids, gradients
        else:
            find_unique = unsorted_unique_ids if num_rows <= _MAX_ROWS_PER_ID * ids.size else sorted_unique_ids
            self.ids, index = find_unique(ids, num_rows)[:2]
            self.gradient = jax.ops.segment_sum(gradients, index, num_segments=ids.size)
        # A negative index would wrap around, so every id that is not to be updated becomes a different one beyond the
        # table.
        beyond = num_rows + jnp.arange(ids.size, dtype=self.ids.dtype)
        self.ids = jnp.where((self.ids >= first_row) & (self.ids < num_rows), self.ids, beyond)

    def read(self, stored: Array) -> Array:
        """Returns these rows of an array in float32."""
        return stored.at[self.ids].get(mode="clip").astype(jnp.float32)

    def write(self, stored: Array, rows: Array) -> Array:
        """Returns the array with these rows replaced, rounded to the array's type."""
        if self.key is not None and stored.dtype == jnp.bfloat16:
            self.key, key = jax.random.split(self.key)
            rows = _stochastic_round(key, rows)
        return stored.at[self.ids].set(rows.astype(stored.dtype), mode="drop", unique_indices=True)


def _step_size(learning_rate: LearningRate, count: Array) -> Any:
    check_rates(learning_rate=learning_rate)
    return learning_rate(count) if callable(learning_rate) else learning_rate


def _stochastic_round(key: jax.Array, rows: Array) -> Array:
    """Rounds to one of the two nearest bfloat16 values, with the probabilities that make the expectation exact."""
    bits = jax.lax.bitcast_convert_type(rows, jnp.uint32)
    noise = jax.random.bits(key, rows.shape, jnp.uint16).astype(jnp.uint32)
    rounded = (bits + noise) & jnp.uint32(0xFFFF0000)
    return jnp.where(jnp.isfinite(rows), jax.lax.bitcast_convert_type(rounded, jnp.float32), rows)
