"""The mesh of devices, and the functions that place arrays on it."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA, MODEL = "data", "model"
"""The mesh axis that batches are split along, and the mesh axis that the rows of item tables are split along."""


def parse_mesh(text: str) -> dict[str, int]:
    """Reads the sizes of a mesh from a text such as ``data=2,model=4``; an axis that is not named has size 1.

    Args:
        text: comma-separated ``AXIS=SIZE`` pairs.

    Raises:
        ValueError: an axis is unknown or is named twice, or a size is not a positive number.
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = part.strip().partition("=")
        if name not in (DATA, MODEL) or name in sizes or not size.isdecimal() or int(size) < 1:
            raise ValueError(f"mesh is {text!r}; expected sizes of at least 1, as in 'data=2,model=4'")
        sizes[name] = int(size)
    return {axis: sizes.get(axis, 1) for axis in (DATA, MODEL)}


def make_mesh(sizes: str | Mapping[str, int]) -> Mesh:
    """Makes a mesh from the first of the available devices.

    Args:
        sizes: axis name → size, or a text that :func:`parse_mesh` reads.

    Raises:
        ValueError: the mesh needs more devices than there are or leaves out a process, or the text is not valid.
    """
    sizes = parse_mesh(sizes) if isinstance(sizes, str) else sizes
    data, model = sizes.get(DATA, 1), sizes.get(MODEL, 1)
    devices = jax.devices()
    if data * model > len(devices):
        raise ValueError(
            f"mesh is data={data},model={model}; expected at most {len(devices)} devices ({devices[0].platform}), "
            f"not {data * model}"
        )
    chosen = devices[: data * model]
    if len({device.process_index for device in chosen}) < jax.process_count():
        raise ValueError(
            f"mesh is data={data},model={model}; expected devices of all {jax.process_count()} processes, which have "
            f"{len(devices)}"
        )
    return jax.make_mesh((data, model), (DATA, MODEL), axis_types=(AxisType.Auto,) * 2, devices=chosen)


def use_mesh(mesh: Mesh | None) -> contextlib.AbstractContextManager[Any]:
    """Returns a context in which :func:`current_mesh` finds the mesh; for None, the context changes nothing."""
    return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)


def current_mesh() -> Any:
    """Returns the abstract mesh of the surrounding :func:`use_mesh`, or None.

    The result is None without a mesh and inside ``shard_map``, where the code handles the shard of one device.
    """
    mesh = jax.sharding.get_abstract_mesh()
    is_ours = DATA in mesh.axis_names and MODEL in mesh.axis_names
    return mesh if is_ours and all(kind == AxisType.Auto for kind in mesh.axis_types) else None


def shard_map_unchecked(
    function: Callable[..., Any], mesh: Any, in_specs: tuple[Any, ...], out_specs: Any
) -> Callable[..., Any]:
    """Returns ``jax.shard_map`` of a function, without JAX's check that replicated outputs are equal on all devices.

    JAX cannot prove that equality for a result that every device computes by itself, or for sums over an axis inside
    a loop, and would refuse such functions. The caller must make sure that outputs whose ``out_specs`` leave an axis
    out are equal along that axis.

    Args:
        function: a function of one device's shards.
        mesh: the mesh of devices.
        in_specs: one partition spec for each argument.
        out_specs: the partition specs of the results.
    """
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def batch_axis(mesh: Any, *sizes: int) -> str | None:
    """Returns the mesh axis to split batches of these sizes along, or None where it does not divide all of them."""
    return DATA if all(size % mesh.shape[DATA] == 0 for size in sizes) else None


def even_batch_size(num_rows: int, max_size: int) -> int:
    """Returns a batch size that splits rows evenly: a multiple of 8 where possible, so that up to 8 devices share it.

    Args:
        num_rows: the number of rows to split into batches.
        max_size: the largest batch size allowed.
    """
    num_eighths = 8 * -(-num_rows // max_size)
    return min(max_size, num_rows, -(-num_rows // num_eighths) * 8)


def device_put_global(tree: Any, sharding: NamedSharding) -> Any:
    """Puts arrays on a mesh, outside of jit.

    Args:
        tree: arrays; where the mesh spans several processes, every process passes the same arrays.
        sharding: the sharding of every array.
    """
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def put_leaf(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put_leaf(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(put_leaf, tree)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Constrains every array of a tree to be whole on every device, inside jit."""
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec()))


def shard_batch(tree: Any, mesh: Mesh | None) -> Any:
    """Splits every array of a tree along the data axis, inside jit.

    Args:
        tree: arrays whose first axis is the batch; an array that does not split evenly is replicated.
        mesh: the mesh of devices; for None, the tree is returned as it is.
    """
    if mesh is None:
        return tree

    def shard(leaf: jax.Array | int) -> jax.Array | int:
        if not isinstance(leaf, jax.Array) or leaf.ndim == 0:
            return leaf
        spec = PartitionSpec(batch_axis(mesh, leaf.shape[0]))
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, spec))

    return jax.tree.map(shard, tree)
