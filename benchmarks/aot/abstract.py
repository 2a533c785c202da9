"""Programs whose arrays are only described: shapes and types, on devices that need not be there."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, Sharding

from alkd_jax import sharding
from alkd_jax.types import Sessions

SESSION_LENGTH = 10
"""L, the number of items of a session that a model reads."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled function and what it is called with.

    Attributes:
        function: the jitted function.
        arguments: its arguments; arrays are descriptions.
        table_bytes: bytes of an item table; a copy of so many is one of a table.
        options: its keyword arguments, which are static.
        steps: trips of its loop over steps; None if it has none.
        calls: how often the host calls the function for what the case names, such as once for every seed.
        ideal_bytes: bytes that a call must read and write at least; None where it is not known.
        mesh: the mesh that is current while it is traced; None on one device.
    """

    function: Any
    arguments: tuple[Any, ...]
    table_bytes: int
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    steps: int | None = None
    calls: int = 1
    ideal_bytes: int | None = None
    mesh: Mesh | None = None

    def lower(self) -> Any:
        """Traces and lowers the program for the devices of its arrays; the result can be compiled."""
        with sharding.use_mesh(self.mesh):
            return self.function.lower(*self.arguments, **self.options)


def array(*shape: int, dtype: Any = jnp.float32) -> Any:
    """Returns the description of an array, which stands where an array is expected.

    Args:
        *shape: sizes.
        dtype: type of the elements.
    """
    return jax.ShapeDtypeStruct(shape, dtype)


def abstract_key(*shape: int) -> jax.ShapeDtypeStruct:
    """Returns the description of a JAX key, or of an array of keys of this shape."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.ShapeDtypeStruct(shape, key.dtype)


def sessions(num: int) -> Sessions:
    """Returns the description of sessions of the paper's length.

    Args:
        num: N.
    """
    items, mask = array(num, SESSION_LENGTH, dtype=jnp.int32), array(num, SESSION_LENGTH, dtype=jnp.bool_)
    numbers = array(num, dtype=jnp.int32)
    return Sessions(items, mask, numbers, numbers)


def on_device(tree: Any, where: Sharding) -> Any:
    """Returns descriptions with a sharding for all arrays of a tree; leaves that are no arrays stay.

    Args:
        tree: arrays, descriptions of arrays, and static arguments.
        where: the devices that the arrays lie on.
    """

    def describe(leaf: Any) -> Any:
        if isinstance(leaf, jax.ShapeDtypeStruct | jax.Array | np.ndarray | np.generic):
            return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=where)
        return leaf

    return jax.tree.map(describe, tree)


def num_bytes(tree: Any) -> int:
    """Returns the bytes of all arrays of a tree; keys count 8 bytes each."""
    return sum(int(np.prod(leaf.shape)) * getattr(leaf.dtype, "itemsize", 8) for leaf in jax.tree.leaves(tree))
