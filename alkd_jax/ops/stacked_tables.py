"""Item tables of one shape, stored together so that few operations read, add to and update all of them."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alkd_jax.ops import layouts

NO_ITEM = -1
"""Place of a position without an item: it reads row 0, and nothing is added to it."""


@dataclasses.dataclass(frozen=True)
class StackedTables:
    """How tables are stored while they are trained.

    Attributes:
        names: of the tables.
        num_rows: V1, rows of a table.
        is_tiled: whether memory is tiled over the last two axes of an array, as a TPU's. Then each table keeps an array
            of its own; rows of the batch's positions are read position by position, so that a sum over positions adds
            whole arrays; and narrow tables are updated column by column, so that few lanes are empty. Otherwise, as on
            a GPU, the tables are one array.
    """

    names: tuple[str, ...]
    num_rows: int
    is_tiled: bool

    def stack(self, tables: dict[str, Float[Array, "V1 D"]]) -> list[Array]:
        """Returns the arrays that hold the tables."""
        arrays = [tables[name] for name in self.names]
        return arrays if self.is_tiled else [jnp.concatenate(arrays)]

    def unstack(self, arrays: list[Array]) -> dict[str, Float[Array, "V1 D"]]:
        """Returns the tables by name."""
        tables = arrays if self.is_tiled else jnp.split(arrays[0], len(self.names))
        return dict(zip(self.names, tables, strict=True))

    def places(self, ids: dict[str, Int[Array, "..."]]) -> dict[str, Int[Array, "..."]]:
        """Returns where rows of the tables are: ``[B]``, or for positions ``[B, L]`` or its transpose.

        Args:
            ids: rows of each table, by its name; :data:`NO_ITEM` where there is no item.
        """

        def places_of(number: int, at: Array) -> Array:
            first = 0 if self.is_tiled else number * self.num_rows
            return jnp.where(at == NO_ITEM, at, at + first) if first else at

        placed = {name: places_of(number, ids[name]) for number, name in enumerate(self.names)}
        return {name: self._order(at, at.ndim) for name, at in placed.items()}

    def read(self, arrays: list[Array], places: dict[str, Int[Array, "..."]]) -> dict[str, Float[Array, "..."]]:
        """Returns rows of the tables.

        Args:
            arrays: of :meth:`stack`.
            places: of the rows of each table, as of :meth:`places`.
        """

        def rows_of(number: int, at: Array) -> Array:
            array = arrays[number if self.is_tiled else 0]
            rows = array.at[at].get(mode="clip", wrap_negative_indices=False)
            return self._order(rows, at.ndim)

        return {name: rows_of(number, places[name]) for number, name in enumerate(self.names)}

    def sum_rows(
        self, arrays: list[Array], places: dict[str, Int[Array, "..."]], rows: dict[str, Float[Array, "..."]]
    ) -> list[Array]:
        """Returns the sums of rows by their places, in arrays of the shapes of ``arrays``.

        Args:
            arrays: of :meth:`stack`.
            places: as in :meth:`read`; rows without an item are left out.
            rows: of each table, by its name.
        """

        def flat(name: str) -> tuple[Array, Array]:
            values = self._order(rows[name], places[name].ndim)
            return places[name].reshape(-1), values.reshape(-1, values.shape[-1])

        updates = [flat(name) for name in self.names]
        if not self.is_tiled:
            places_of_all, rows_of_all = zip(*updates, strict=True)
            updates = [(jnp.concatenate(places_of_all), jnp.concatenate(rows_of_all))]
        return [
            self.by_rows(_add(self.by_rows(jnp.zeros_like(array)), *update))
            for array, update in zip(arrays, updates, strict=True)
        ]

    def by_rows(self, array: Array) -> Array:
        """Stores a narrow table by rows where memory is tiled."""
        return layouts.by_rows(array) if self.is_tiled and array.ndim > 1 else array

    def by_columns(self, array: Array) -> Array:
        """Stores a narrow table by columns where memory is tiled."""
        return layouts.by_columns(array) if self.is_tiled and array.ndim > 1 else array

    def _order(self, array: Array, num_axes: int) -> Array:
        """Exchanges batch and position, where positions come first."""
        return jnp.swapaxes(array, 0, 1) if self.is_tiled and num_axes > 1 else array


def _add(sums: Float[Array, "R D"], places: Int[Array, " N"], rows: Float[Array, "N D"]) -> Float[Array, "R D"]:
    return sums.at[places].add(rows, mode="drop", wrap_negative_indices=False)
