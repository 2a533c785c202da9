"""How parameters lie on a mesh: item tables by rows, filled up to equal parts, the rest on every device."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from alkd_jax.sharding.mesh import MODEL, device_put_global


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which arrays of a parameter tree are item tables, and how many rows they have on the mesh.

    Attributes:
        mesh: of devices.
        num_rows: rows of an item table, V + 1.
        tables: paths of the item tables.
        lead: axes before the rows: 1 where there is a seed axis.
    """

    mesh: Mesh
    num_rows: int
    tables: frozenset[str]
    lead: int = 0

    @property
    def rows_held(self) -> int:
        """Rows of a table on the mesh: V + 1, filled up to equal parts."""
        return self.num_rows + -self.num_rows % self.mesh.shape[MODEL]

    @property
    def whole(self) -> NamedSharding:
        """Where what is the same on every device lies."""
        return NamedSharding(self.mesh, P())

    @property
    def by_rows(self) -> NamedSharding:
        """Where a table's parts lie."""
        return NamedSharding(self.mesh, P(*[None] * self.lead, MODEL))

    @property
    def stacked(self) -> "Layout":
        """The same with a seed axis before the rows."""
        return dataclasses.replace(self, lead=1)

    def place(self, params: Any) -> Any:
        """Puts parameters on the mesh, from wherever they are."""

        def one(path: Any, leaf: Array | np.ndarray) -> Array:
            is_table = _name(path) in self.tables
            return device_put_global(self._filled(leaf) if is_table else leaf, self.by_rows if is_table else self.whole)

        return jax.tree_util.tree_map_with_path(one, params)

    def pad_rows(self, params: Any) -> Any:
        """:meth:`place` inside a program."""

        def one(path: Any, leaf: Array) -> Array:
            return self._filled(leaf) if _name(path) in self.tables else leaf

        return self.constrain_sharding(jax.tree_util.tree_map_with_path(one, params))

    def constrain_sharding(self, tree: Any) -> Any:
        """Keeps what has been filled, a table's moments too, in its parts, and all else whole, inside a program."""
        return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, self.place_of(leaf)), tree)

    def place_of(self, leaf: Any) -> NamedSharding:
        """Where an array that has been filled lies, or any other; by its shape."""
        is_table = leaf.ndim > self.lead and leaf.shape[self.lead] == self.rows_held
        return self.by_rows if is_table else self.whole

    def unpad_rows(self, params: Any) -> Any:
        """Returns filled parameters in the model's own shapes, inside a program."""

        def one(path: Any, leaf: Array) -> Array:
            if _name(path) not in self.tables:
                return leaf
            return jax.lax.slice_in_dim(leaf, 0, self.num_rows, axis=self.lead)

        return jax.tree_util.tree_map_with_path(one, params)

    def unpad_outputs(self, params: Any) -> Any:
        """Returns parameters in the model's own shapes: tables stay in parts if their rows allow it, else lie whole."""
        is_even = self.rows_held == self.num_rows
        paths = jax.tree_util.tree_map_with_path(lambda path, _: _name(path) in self.tables, params)
        placed = jax.tree.map(lambda is_table: self.by_rows if is_table and is_even else self.whole, paths)
        return jax.jit(self.unpad_rows, out_shardings=placed)(params)

    def to_host(self, params: Any) -> Any:
        """Copies parameters to the host, to that of every process, in the model's own shapes."""

        def one(path: Any, leaf: Array) -> np.ndarray:
            if not (leaf.is_fully_addressable or leaf.is_fully_replicated):
                leaf = multihost_utils.process_allgather(leaf, tiled=True)
            array = np.asarray(leaf)
            return np.split(array, [self.num_rows], axis=self.lead)[0] if _name(path) in self.tables else array

        return jax.tree_util.tree_map_with_path(one, params)

    def _filled(self, leaf: Any) -> Any:
        missing = self.rows_held - self.num_rows
        if missing == 0:
            return leaf
        widths = [(0, missing if axis == self.lead else 0) for axis in range(leaf.ndim)]
        return (np.pad if isinstance(leaf, np.ndarray) else jnp.pad)(leaf, widths)


def layout_of(params: Any, num_rows: int, mesh: Mesh | None, *, lead: int = 0) -> Layout | None:
    """Finds the item tables of a parameter tree: all arrays with as many rows as there are items and a padding.

    Args:
        params: the tree, or the shapes of one.
        num_rows: V + 1.
        mesh: where the parameters are to lie; None gives None.
        lead: axes before the rows.
    """
    if mesh is None:
        return None
    found = [
        _name(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if leaf.ndim > lead and leaf.shape[lead] == num_rows
    ]
    return Layout(mesh, num_rows, frozenset(found), lead)


_name = functools.partial(jax.tree_util.keystr, simple=True, separator=".")
