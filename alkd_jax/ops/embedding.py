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
from alkd_jax.ops.packed_rows import PackedTable, full_like
from alkd_jax.ops.row_gradients import row_gradients
from alkd_jax.sharding import DATA, MODEL, batch_axis, shard_map_unchecked
from alkd_jax.types import PAD

Table: TypeAlias = Array | PackedTable
"""``[V, *D]``, one row for each item; or a packed one, which a TPU updates without a copy of the whole table."""
LearningRate: TypeAlias = float | Callable[[Array], Any]
"""A number, or a schedule over the steps taken so far."""


class RowOptimizer(NamedTuple):
    """The counterpart of an optax gradient transformation for some rows of one table.

    Attributes:
        init: ``init(table) -> slots``; slots are the optimizer's state.
        update: ``update(table, slots, ids, gradients, *, unique_ids=False, sorted_ids=False, where=None, key=None) ->
            (table, slots)``, where row ``ids[m]`` has the gradient ``gradients[m]`` of ``[M, *D]``. Gradients of the
            same row are added up. Ids outside ``1..V-1``, and those where ``where`` is False, are ignored, so row 0,
            the padding, never changes. ``unique_ids`` promises that no id comes twice, ``sorted_ids`` that they ascend;
            a packed table saves a sort where both are promised. Arithmetic is in float32; with a key, rows stored in
            bfloat16 are rounded stochastically, so that steps smaller than the precision are not lost. Donate table and
            slots, otherwise both are copied.
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


class MomentumSlots(NamedTuple):
    """State of :func:`adagrad` with momentum: also the running sum of scaled gradients of every number."""

    steps: Array
    squares: Array
    velocity: Array


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
        rows = row_gradients(table, ids, gradients, **options)
        step_size = _step_size(learning_rate, slots.steps)
        return rows.write(table, rows.read(table) - step_size * rows.in_rows(rows.gradient)), SgdSlots(slots.steps + 1)

    return RowOptimizer(init, update)


@functools.lru_cache(maxsize=64)
def adagrad(
    learning_rate: LearningRate,
    *,
    initial_accumulator_value: float = 0.1,
    eps: float = 1e-7,
    rowwise: bool = False,
    momentum: float = 0.0,
    dtype: Any = jnp.float32,
) -> RowOptimizer:
    """Adagrad, ``G_v ← G_v + g_v²``, ``Y_v ← Y_v − η g_v / √(G_v + ε)``; equal to dense ``optax.adagrad``.

    With momentum μ, ``m_v ← μ m_v + g_v / √(G_v + ε)``, ``Y_v ← Y_v − η m_v``, for the rows with a gradient.

    Args:
        learning_rate: η.
        initial_accumulator_value: G before the first step.
        eps: ε.
        rowwise: G is one number for each row, to which the mean of the row's squared gradients is added; this takes
            1/D of the memory.
        momentum: μ in [0, 1).
        dtype: the type that G and m are stored in.

    Raises:
        ValueError: the momentum is out of range.

    Reference:
        Duchi et al., Adaptive subgradient methods, JMLR 2011; row-wise as in Mudigere et al., ISCA 2022.
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum is {momentum}; expected at least 0 and below 1")

    def init(table: Table) -> AdagradSlots | MomentumSlots:
        like = jax.ShapeDtypeStruct(table.shape[:1], dtype) if rowwise else table
        slots = AdagradSlots(jnp.zeros((), jnp.int32), full_like(like, initial_accumulator_value, dtype))
        return MomentumSlots(*slots, full_like(table, 0.0, dtype)) if momentum else slots

    def update(
        table: Table, slots: Any, ids: Array, gradients: Array, **options: Any
    ) -> tuple[Table, AdagradSlots | MomentumSlots]:
        rows = row_gradients(table, ids, gradients, **options)
        gradient = rows.gradient if rowwise else rows.in_rows(rows.gradient)
        square = jnp.square(gradient)
        if rowwise:
            square = square.reshape(len(square), -1).mean(1)
        squares = rows.read(slots.squares) + square
        scale = jnp.where(squares > 0, jax.lax.rsqrt(squares + eps), 0.0)
        scale = scale.reshape(scale.shape + (1,) * (table.ndim - scale.ndim))
        to_rows = rows.in_rows if rowwise else jnp.asarray
        if momentum:
            velocity = momentum * rows.read(slots.velocity) + to_rows(scale * gradient)
            updated = rows.read(table) - _step_size(learning_rate, slots.steps) * velocity
            stored = rows.write(slots.squares, squares), rows.write(slots.velocity, velocity)
            return rows.write(table, updated), MomentumSlots(slots.steps + 1, *stored)
        updated = rows.read(table) - to_rows(_step_size(learning_rate, slots.steps) * scale * gradient)
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
        return AdamSlots(jnp.zeros((), jnp.int32), full_like(table, 0.0, dtype), full_like(table, 0.0, dtype))

    def update(table: Table, slots: AdamSlots, ids: Array, gradients: Array, **options: Any) -> tuple[Table, AdamSlots]:
        rows = row_gradients(table, ids, gradients, **options)
        count, gradient = slots.steps + 1, rows.in_rows(rows.gradient)
        first = b1 * rows.read(slots.first) + (1 - b1) * gradient
        second = b2 * rows.read(slots.second) + (1 - b2) * jnp.square(gradient)
        step = first / (1 - b1**count) / (jnp.sqrt(second / (1 - b2**count)) + eps)
        updated = rows.read(table) - _step_size(learning_rate, slots.steps) * step
        slots = AdamSlots(count, rows.write(slots.first, first), rows.write(slots.second, second))
        return rows.write(table, updated), slots

    return RowOptimizer(init, update)


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
    ) -> tuple[Table, Any]:
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


def _step_size(learning_rate: LearningRate, count: Array) -> Any:
    check_rates(learning_rate=learning_rate)
    return learning_rate(count) if callable(learning_rate) else learning_rate
