"""How a parameter tree lies on a mesh: item tables are sharded by rows, all other arrays are replicated.

A table whose rows the model axis does not divide is padded with rows of zeros, so that all shards are equally large.
"""

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
    """The item tables of a parameter tree, and how many rows they have on the mesh.

    Attributes:
        mesh: the mesh of devices.
        num_rows: rows of an item table in the model, V + 1.
        tables: paths of the item tables in the tree.
        leading_axes: number of axes before the rows; 1 where there is a seed axis.
    """

    mesh: Mesh
    num_rows: int
    tables: frozenset[str]
    leading_axes: int = 0

    @property
    def num_padded_rows(self) -> int:
        """Rows of a table on the mesh: the next multiple of the model axis from V + 1 on."""
        return self.num_rows + -self.num_rows % self.mesh.shape[MODEL]

    @property
    def replicated(self) -> NamedSharding:
        """The sharding of an array that is whole on every device."""
        return NamedSharding(self.mesh, P())

    @property
    def row_sharded(self) -> NamedSharding:
        """The sharding of an item table."""
        return NamedSharding(self.mesh, P(*[None] * self.leading_axes, MODEL))

    @property
    def with_seed_axis(self) -> "Layout":
        """The layout of the same parameters with a leading seed axis."""
        return dataclasses.replace(self, leading_axes=1)

    def device_put(self, params: Any) -> Any:
        """Pads the item tables and puts all parameters on the mesh, outside of jit."""

        def put_leaf(path: Any, leaf: Array | np.ndarray) -> Array:
            is_table = _path_name(path) in self.tables
            return device_put_global(
                self._pad(leaf) if is_table else leaf, self.row_sharded if is_table else self.replicated
            )

        return jax.tree_util.tree_map_with_path(put_leaf, params)

    def pad_rows(self, params: Any) -> Any:
        """Pads the item tables and constrains the sharding of all parameters, inside jit."""

        def pad_leaf(path: Any, leaf: Array) -> Array:
            return self._pad(leaf) if _path_name(path) in self.tables else leaf

        return self.constrain_sharding(jax.tree_util.tree_map_with_path(pad_leaf, params))

    def constrain_sharding(self, tree: Any) -> Any:
        """Constrains arrays with the rows of a padded table to be row-sharded and all others to be replicated, in jit.

        Args:
            tree: padded parameters or an optimizer state of these.
        """
        return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, self.sharding_of(leaf)), tree)

    def sharding_of(self, leaf: Any) -> NamedSharding:
        """Returns the sharding of an array: by rows if it has as many rows as a padded table, else replicated."""
        is_table = leaf.ndim > self.leading_axes and leaf.shape[self.leading_axes] == self.num_padded_rows
        return self.row_sharded if is_table else self.replicated

    def unpad_rows(self, params: Any) -> Any:
        """Returns padded parameters in the model's own shapes, inside jit."""

        def unpad_leaf(path: Any, leaf: Array) -> Array:
            if _path_name(path) not in self.tables:
                return leaf
            return jax.lax.slice_in_dim(leaf, 0, self.num_rows, axis=self.leading_axes)

        return jax.tree_util.tree_map_with_path(unpad_leaf, params)

    def unpad_outputs(self, params: Any) -> Any:
        """Returns padded parameters in the model's own shapes, outside of jit.

        Item tables stay row-sharded where the model axis divides V + 1; otherwise they become replicated.
        """
        is_even = self.num_padded_rows == self.num_rows
        is_table = jax.tree_util.tree_map_with_path(lambda path, _: _path_name(path) in self.tables, params)
        shardings = jax.tree.map(lambda table: self.row_sharded if table and is_even else self.replicated, is_table)
        return jax.jit(self.unpad_rows, out_shardings=shardings)(params)

    def to_host(self, params: Any) -> Any:
        """Copies padded parameters to the host of every process, in the model's own shapes."""

        def fetch_leaf(path: Any, leaf: Array) -> np.ndarray:
            if not (leaf.is_fully_addressable or leaf.is_fully_replicated):
                leaf = multihost_utils.process_allgather(leaf, tiled=True)
            array = np.asarray(leaf)
            is_table = _path_name(path) in self.tables
            return np.split(array, [self.num_rows], axis=self.leading_axes)[0] if is_table else array

        return jax.tree_util.tree_map_with_path(fetch_leaf, params)

    def _pad(self, leaf: Any) -> Any:
        missing = self.num_padded_rows - self.num_rows
        if missing == 0:
            return leaf
        widths = [(0, missing if axis == self.leading_axes else 0) for axis in range(leaf.ndim)]
        return (np.pad if isinstance(leaf, np.ndarray) else jnp.pad)(leaf, widths)


def layout_of(params: Any, num_rows: int, mesh: Mesh | None, *, leading_axes: int = 0) -> Layout | None:
    """Finds the item tables of a parameter tree: all arrays with V + 1 rows.

    Args:
        params: the tree, or the shapes of one.
        num_rows: V + 1.
        mesh: the mesh on which the parameters are to lie.
        leading_axes: number of axes before the rows.

    Returns:
        The layout; None where ``mesh`` is None.
    """
    if mesh is None:
        return None
    tables = [
        _path_name(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if leaf.ndim > leading_axes and leaf.shape[leading_axes] == num_rows
    ]
    return Layout(mesh, num_rows, frozenset(tables), leading_axes)


_path_name = functools.partial(jax.tree_util.keystr, simple=True, separator=".")
