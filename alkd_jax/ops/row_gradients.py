"""The rows of an item table that have a gradient in a step: found, read, and written in place."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.ops.packed_rows import PackedTable
from alkd_jax.types import PAD

_MAX_ROWS_PER_ID = 8
"""Up to this many table rows for each id, an array with one entry for each row is cheaper than sorting the ids."""


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


class RowGradients:
    """The unique rows that have a gradient in a step, and the sum of each row's gradients.

    Attributes:
        ids: ``[M]`` the rows, each once; numbers beyond the table stand for free places.
        gradient: ``[M, *D]``.

    Args:
        table: ``[V, *D]``.
        ids: ``[M]`` the row of each gradient.
        gradients: ``[M, *D]``.
        unique_ids: promises that no id comes twice.
        sorted_ids: promises that the ids ascend.
        where: ``[M]`` whether a gradient counts; by default all do.
        key: a JAX key; rows stored in bfloat16 are rounded stochastically with it.
        first_row: rows before this one are not updated; by default the padding row.
    """

    def __init__(
        self,
        table: Array | PackedTable,
        ids: Int[Array, " M"],
        gradients: Array,
        *,
        unique_ids: bool = False,
        sorted_ids: bool = False,
        where: Bool[Array, " M"] | None = None,
        key: jax.Array | None = None,
        first_row: Array | int = PAD + 1,
    ) -> None:
        num_rows = table.shape[0]
        if ids.ndim != 1 or gradients.shape != ids.shape + table.shape[1:]:
            raise ValueError(
                f"gradients have shape {gradients.shape} for ids of shape {ids.shape}; "
                f"expected {(ids.size, *table.shape[1:])}"
            )
        listed = ids if where is None else jnp.where(where, ids, -1)
        gradients, self.key = gradients.astype(jnp.float32), key
        self.ids, self.gradient = self._unique(ids, listed, gradients, num_rows, unique_ids, sorted_ids)
        # A negative index would wrap around, so every id that is not to be updated becomes a different one beyond the
        # table.
        beyond = num_rows + jnp.arange(ids.size, dtype=self.ids.dtype)
        self.ids = jnp.where((self.ids >= first_row) & (self.ids < num_rows), self.ids, beyond)

    def _unique(
        self, ids: Array, listed: Array, gradients: Array, num_rows: int, unique_ids: bool, sorted_ids: bool
    ) -> tuple[Array, Array]:
        """Returns the unique ids and the sum of each one's gradients."""
        if unique_ids:
            return listed, gradients
        find_unique = unsorted_unique_ids if num_rows <= _MAX_ROWS_PER_ID * ids.size else sorted_unique_ids
        unique, index = find_unique(listed, num_rows)[:2]
        return unique, jax.ops.segment_sum(gradients, index, num_segments=ids.size)

    def in_rows(self, values: Float[Array, "M ..."]) -> Array:
        """Returns values of these rows as :meth:`read` returns a table's."""
        return values

    def read(self, stored: Any) -> Array:
        """Returns these rows of an array in float32."""
        return stored.at[self.ids].get(mode="clip").astype(jnp.float32)

    def write(self, stored: Any, rows: Array) -> Any:
        """Returns the array with these rows replaced, rounded to the array's type."""
        return stored.at[self.ids].set(self._rounded(rows, stored.dtype), mode="drop", unique_indices=True)

    def _rounded(self, rows: Array, dtype: Any) -> Array:
        if self.key is not None and dtype == jnp.bfloat16:
            self.key, key = jax.random.split(self.key)
            rows = _stochastic_round(key, rows)
        return rows.astype(dtype)


class PackedRowGradients(RowGradients):
    """:class:`RowGradients` of a packed table: stored rows are read and written whole, each once.

    The ids ascend, so that items of the same stored row are neighbors; the first of them writes the row, and its other
    items keep their bits. Arrays with one number for each item are read and written by item.
    """

    def __init__(self, table: PackedTable, ids: Array, gradients: Array, **options: Any) -> None:
        super().__init__(table, ids, gradients, **options)
        self.per_row, width = table.per_row, table.rows.shape[1]
        self.slot_of_lane = jnp.arange(width)[None] // table.dim
        stored_ids, slot = self.sorted_ids // self.per_row, self.sorted_ids % self.per_row
        slot = jnp.where(self.ids < table.num_rows, slot, -1)
        # The slots that the first item of a stored row and the items after it update in this row; -1 stands for none.
        self.slots = [
            jnp.where(self._after(stored_ids, offset) == stored_ids, self._after(slot, offset), -1)[:, None]
            for offset in range(self.per_row)
        ]
        place = jnp.arange(ids.size, dtype=stored_ids.dtype)
        is_first = jnp.pad(stored_ids[1:] != stored_ids[:-1], (1, 0), constant_values=True)
        is_written = is_first & (jnp.concatenate(self.slots, 1).max(1) >= 0)
        self.stored_ids = jnp.where(is_written, stored_ids, len(table.rows) + place)

    def _unique(
        self, ids: Array, listed: Array, gradients: Array, num_rows: int, unique_ids: bool, sorted_ids: bool
    ) -> tuple[Array, Array]:
        if unique_ids and sorted_ids:
            self.sorted_ids = ids
            return listed, gradients
        unique, index = sorted_unique_ids(listed, num_rows)
        self.sorted_ids = unique
        return unique, jax.ops.segment_sum(gradients, index, num_segments=ids.size)

    def _after(self, values: Array, offset: int) -> Array:
        """Returns for every item the value of the item so many places after it; -1 behind the last one."""
        widths = [(0, offset)] + [(0, 0)] * (values.ndim - 1)
        return jnp.pad(values, widths, constant_values=-1)[offset:]

    def in_rows(self, values: Float[Array, "M ..."]) -> Array:
        """Returns values of these items at their places in stored rows, 0 where a row has none."""
        result, missing = jnp.float32(0.0), self.slot_of_lane.shape[1] - self.per_row * values.shape[1]
        for offset, slot in enumerate(self.slots):
            side_by_side = jnp.tile(self._after(values, offset), (1, self.per_row))
            result = jnp.where(slot == self.slot_of_lane, jnp.pad(side_by_side, ((0, 0), (0, missing))), result)
        return result

    def read(self, stored: Any) -> Array:
        """Returns the stored rows of a packed table in float32, ``[M, W]``, or one number for each item, ``[M]``."""
        if not isinstance(stored, PackedTable):
            return super().read(stored)
        return stored.rows.at[self.stored_ids].get(mode="clip").astype(jnp.float32)

    def write(self, stored: Any, rows: Array) -> Any:
        """Returns the array with the numbers of these items replaced, rounded to the array's type."""
        if not isinstance(stored, PackedTable):
            return super().write(stored, rows)
        is_updated = functools.reduce(jnp.logical_or, [slot == self.slot_of_lane for slot in self.slots])
        rows = jnp.where(is_updated, rows, self.read(stored))
        rows = self._rounded(rows, stored.dtype)
        rows = stored.rows.at[self.stored_ids].set(rows, mode="drop", unique_indices=True)
        return dataclasses.replace(stored, rows=rows)


def row_gradients(table: Array | PackedTable, ids: Array, gradients: Array, **options: Any) -> RowGradients:
    """Returns the rows with a gradient, of a table that may be packed.

    Args:
        table: the table.
        ids: the row of each gradient.
        gradients: the gradients.
        **options: of :class:`RowGradients`.
    """
    if isinstance(table, PackedTable):
        return PackedRowGradients(table, ids, gradients, **options)
    return RowGradients(table, ids, gradients, **options)


def _stochastic_round(key: jax.Array, rows: Array) -> Array:
    """Rounds to one of the two nearest bfloat16 values, with the probabilities that make the expectation exact."""
    bits = jax.lax.bitcast_convert_type(rows, jnp.uint32)
    noise = jax.random.bits(key, rows.shape, jnp.uint16).astype(jnp.uint32)
    rounded = (bits + noise) & jnp.uint32(0xFFFF0000)
    return jnp.where(jnp.isfinite(rows), jax.lax.bitcast_convert_type(rounded, jnp.float32), rows)
