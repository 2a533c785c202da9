"""Item tables on a TPU: several narrow rows side by side in a row of 128 numbers.

A TPU stores arrays in tiles of 8 x 128 numbers. A table whose rows are narrower than 128 is stored by columns, so that
nothing is wasted; but rows are gathered and scattered only from an array stored by rows, where each takes 128 numbers.
So a program that updates some rows of a narrow table copies the whole table there and back. A packed table
``[R, 128]`` has one layout for both: item v of width D is in row ``⌊v / P⌋`` from number ``(v mod P) D`` on, with
``P = ⌊128 / D⌋`` items a row. A width of more than 128 that 128 does not divide is padded to the next multiple, one
item a row.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from alkd_jax.types import IntArray

LANES = 128
"""Numbers in a row of a TPU's tile."""

_draws_packed = contextvars.ContextVar("draws_packed", default=False)


@flax.struct.dataclass
class PackedTable:
    """A table ``[V1, D]`` that is stored as ``[R, W]``, W a multiple of 128.

    Attributes:
        rows: ``[R, W]``; the numbers that belong to no item have no meaning.
        num_rows: V1.
        dim: D.
    """

    rows: Any
    num_rows: int = flax.struct.field(pytree_node=False)
    dim: int = flax.struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, int]:
        """``(V1, D)``."""
        return self.num_rows, self.dim

    @property
    def ndim(self) -> int:
        """2, as of the table."""
        return 2

    @property
    def dtype(self) -> Any:
        """The type of the numbers."""
        return self.rows.dtype

    @property
    def per_row(self) -> int:
        """P, the items of a stored row."""
        return items_per_row(self.dim)

    def __getitem__(self, ids: IntArray) -> Array:
        """Returns the rows of items, ``[..., D]``; an id beyond the table reads its last row."""
        ids = jnp.clip(ids, 0, self.num_rows - 1)
        stored, slot = self.rows[ids // self.per_row], (ids % self.per_row)[..., None]
        pieces = [stored[..., p * self.dim : (p + 1) * self.dim] for p in range(self.per_row)]
        result = pieces[0]
        for p, piece in enumerate(pieces[1:], 1):
            result = jnp.where(slot == p, piece, result)
        return result


ItemTable: TypeAlias = Float[Array, "V ..."] | PackedTable
"""A table with one row for each item, as it is or packed."""


def items_per_row(dim: int) -> int:
    """Returns P, how many rows of this width are stored side by side."""
    return max(1, LANES // dim)


def is_narrow(table: Any) -> bool:
    """Whether a TPU would store an array by columns: it has two axes, and 128 does not divide its width."""
    return not isinstance(table, PackedTable) and table.ndim == 2 and table.shape[1] % LANES != 0


def stored_shape(num_rows: int, dim: int) -> tuple[int, int]:
    """Returns ``(R, W)``."""
    return -(-num_rows // items_per_row(dim)), -(-dim // LANES) * LANES


def pack(table: Array | np.ndarray) -> PackedTable:
    """Packs a table; a NumPy array stays on the host.

    Args:
        table: ``[V1, D]``.
    """
    (num_rows, dim), per_row = table.shape, items_per_row(table.shape[1])
    num_stored, width = stored_shape(num_rows, dim)
    pad: Callable[..., Any] = np.pad if isinstance(table, np.ndarray) else jnp.pad
    rows = pad(table, ((0, num_stored * per_row - num_rows), (0, 0))).reshape(num_stored, per_row * dim)
    return PackedTable(pad(rows, ((0, 0), (0, width - per_row * dim))), num_rows, dim)


def unpack(table: Any) -> Any:
    """Returns a packed table as ``[V1, D]``, and anything else as it is.

    On the host the result is a view where P D is 128; on a TPU it is another table, stored by columns.
    """
    return unpack_rows(table.rows, table.dim)[: table.num_rows] if isinstance(table, PackedTable) else table


def unpack_rows(rows: Array | np.ndarray, dim: int) -> Any:
    """Returns the items of stored rows, those beyond the table included."""
    return rows[:, : items_per_row(dim) * dim].reshape(-1, dim)


def unpack_all(tree: Any) -> Any:
    """Returns a tree with its packed tables unpacked."""
    return jax.tree.map(unpack, tree, is_leaf=lambda node: isinstance(node, PackedTable))


def full_like(table: Any, value: float, dtype: Any) -> Any:
    """Returns an array of one value with a table's shape; packed as the table is.

    Args:
        table: a table of any shape.
        value: the value.
        dtype: its type.
    """
    if isinstance(table, PackedTable):
        return dataclasses.replace(table, rows=jnp.full(table.rows.shape, value, dtype))
    return jnp.full(table.shape, value, dtype)


def take_rows(table: ItemTable, ids: Int[Array, " M"]) -> Float[Array, "M ..."]:
    """Returns the rows of items; an id beyond the table reads its last row.

    Args:
        table: an item table.
        ids: the items.
    """
    return table[ids] if isinstance(table, PackedTable) else table.at[ids].get(mode="clip")


def slice_rows(table: ItemTable, start: Int[Array, ""] | int, num: int) -> Float[Array, "num D"]:
    """Returns ``table[start : start + num]``, inside jit; of a packed table only the stored rows of these are unpacked.

    Args:
        table: an item table.
        start: the first row, at most V1 - num.
        num: the number of rows.
    """
    if not isinstance(table, PackedTable):
        return jax.lax.dynamic_slice_in_dim(table, start, num)
    num_stored = min(len(table.rows), -(-(num + table.per_row - 1) // table.per_row))
    first = jnp.minimum(start // table.per_row, len(table.rows) - num_stored)
    stored = jax.lax.dynamic_slice_in_dim(table.rows, first, num_stored)
    return jax.lax.dynamic_slice_in_dim(unpack_rows(stored, table.dim), start - first * table.per_row, num)


@contextlib.contextmanager
def drawing_packed() -> Iterator[None]:
    """Lets :func:`draw_table` return packed tables while a program is traced."""
    token = _draws_packed.set(True)
    try:
        yield
    finally:
        _draws_packed.reset(token)


def draw_table(draw: Callable[[jax.Array, tuple[int, int]], Array], key: jax.Array, shape: tuple[int, int]) -> Any:
    """Returns random initial values of an item table with zeros in row 0, the padding.

    A packed table is drawn in the shape that it is stored in, because no compiler fuses the draw with a change of the
    layout. With JAX's default generator the values are the same, since a number depends only on its place in the
    flattened array.

    Args:
        draw: ``draw(key, shape)`` returns independent numbers.
        key: a JAX key.
        shape: ``(V1, D)``.

    Returns:
        ``[V1, D]``, an :data:`ItemTable`.
    """
    num_rows, dim = shape
    if not _draws_packed.get() or dim % LANES == 0:
        return draw(key, shape).at[0].set(0.0)
    (num_stored, width), per_row = stored_shape(num_rows, dim), items_per_row(dim)
    drawn = draw(key, (num_stored, per_row * dim))
    item = jnp.arange(num_stored)[:, None] * per_row + jnp.arange(per_row * dim)[None] // dim
    rows = jnp.where((item > 0) & (item < num_rows), drawn, 0.0)
    return PackedTable(jnp.pad(rows, ((0, 0), (0, width - per_row * dim))), num_rows, dim)
