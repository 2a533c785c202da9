"""The mesh of devices, and which one holds where a program is traced."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA, MODEL = "data", "model"
"""The axis that batches are cut along, and the axis that item tables are cut along, by rows."""


def parse_mesh(text: str) -> dict[str, int]:
    """Reads the sizes of a mesh from a text such as ``data=2,model=4``; an axis that is not named has size 1.

    Raises:
        ValueError: an axis is unknown, named twice or no positive number.
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = part.strip().partition("=")
        if name not in (DATA, MODEL) or name in sizes or not size.isdecimal() or int(size) < 1:
            raise ValueError(f"mesh is {text!r}; expected numbers from 1, as in 'data=2,model=4'")
        sizes[name] = int(size)
    return {axis: sizes.get(axis, 1) for axis in (DATA, MODEL)}


def make_mesh(sizes: str | Mapping[str, int]) -> Mesh:
    """Makes a mesh of the first devices there are.

    Args:
        sizes: of its axes, or a text that :func:`parse` reads.

    Raises:
        ValueError: it needs more devices than there are, or the text is none.
    """
    sizes = parse_mesh(sizes) if isinstance(sizes, str) else sizes
    data, model = sizes.get(DATA, 1), sizes.get(MODEL, 1)
    devices = jax.devices()
    if data * model > len(devices):
        told = f"the mesh data={data},model={model} needs {data * model} devices"
        raise ValueError(f"{told}; there are {len(devices)} ({devices[0].platform})")
    chosen = devices[: data * model]
    return jax.make_mesh((data, model), (DATA, MODEL), axis_types=(AxisType.Auto,) * 2, devices=chosen)


def use_mesh(mesh: Mesh | None) -> contextlib.AbstractContextManager[Any]:
    """Lets what is traced inside know the mesh; nothing where there is none."""
    return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)


def current_mesh() -> Any:
    """Returns the abstract mesh that holds here, or None: outside a mesh, and where one device's share is at hand."""
    mesh = jax.sharding.get_abstract_mesh()
    is_ours = DATA in mesh.axis_names and MODEL in mesh.axis_names
    return mesh if is_ours and all(kind == AxisType.Auto for kind in mesh.axis_types) else None


def shard_map_unchecked(work: Callable[..., Any], mesh: Any, takes: tuple[Any, ...], gives: Any) -> Callable[..., Any]:
    """``shard_map`` that takes our word for what is the same along an axis: sums that start alike and end differently,
    and results that every device works out for itself, would else be refused.

    Args:
        work: on one device's share.
        mesh: of devices.
        takes: how each argument is cut.
        gives: how the results are put together.
    """
    return jax.shard_map(work, mesh=mesh, in_specs=takes, out_specs=gives, check_vma=False)


def batch_axis(mesh: Any, *sizes: int) -> str | None:
    """Returns the axis that batches of these sizes are cut along; None where one cannot be cut evenly."""
    return DATA if all(size % mesh.shape[DATA] == 0 for size in sizes) else None


def even_batch(num: int, most: int) -> int:
    """Size of batches that cut so many rows evenly, into whole parts for as many as eight devices where that fits.

    Args:
        num: rows.
        most: of a batch.
    """
    parts = 8 * -(-num // most)
    return min(most, num, -(-num // parts) * 8)


def device_put_global(tree: Any, place: NamedSharding) -> Any:
    """Puts arrays on a mesh, outside a program; where it spans processes, each must have the same arrays to hand."""
    if place.is_fully_addressable:
        return jax.device_put(tree, place)

    def one(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(one(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.device_put(leaf, place)
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, place, lambda index: array[index])

    return jax.tree.map(one, tree)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts every array of a tree whole on every device, inside a program."""
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec()))


def shard_batch(tree: Any, mesh: Mesh | None) -> Any:
    """Cuts every array of a tree along the data axis, inside a program; one that cannot be cut evenly stays whole."""
    if mesh is None:
        return tree

    def cut(leaf: jax.Array | int) -> jax.Array | int:
        if not isinstance(leaf, jax.Array) or leaf.ndim == 0:
            return leaf
        spec = PartitionSpec(batch_axis(mesh, leaf.shape[0]))
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, spec))

    return jax.tree.map(cut, tree)
