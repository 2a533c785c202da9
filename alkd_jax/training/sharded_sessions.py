"""Training sessions that lie in parts on the devices of a mesh, for more sessions than one device or host holds.

Every device holds a block of the rows, and every process reads the blocks of its devices. A step's examples are chosen
by their numbers, which depend on key and step alone; each device contributes the rows it holds, and zeros for the
others, to a sum over all devices. The sum of integers is exact. So a batch is the same for any number of devices and
processes, and what travels is as large as the batch.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from alkd_jax.sharding import DATA, MODEL
from alkd_jax.training.examples import Examples
from alkd_jax.types import Sessions

_MULTIPLE = 1024
"""Rows are filled up to a multiple of this number, which any usual number of devices divides."""

_BY_ROWS = P((DATA, MODEL))


def shard_sessions(sessions: Sessions, mesh: Mesh) -> tuple[Sessions, Examples]:
    """Puts training sessions on a mesh in parts, and makes the examples that predict the target of each.

    The sessions are filled up with copies of the last one, whose examples have weight 0.

    Args:
        sessions: N sessions, such as those of :func:`alkd_jax.data.map_columns`; of their rows, a process reads those
            of its devices.
        mesh: the devices, of which there may be 1, 2, 4, … 1024.

    Returns:
        ``train`` and ``examples`` of :func:`alkd_jax.training.fit` and :func:`alkd_jax.training.fit_large`, for a
        training on this mesh.

    Raises:
        ValueError: the number of devices does not divide 1024, or there are no sessions.

    Example:
        >>> ds = alkd.data.synthetic(num_items=100, num_sessions=300)
        >>> train, examples = alkd.training.shard_sessions(ds.train, alkd.sharding.make_mesh("data=1"))
        >>> len(train), int((examples.weight > 0).sum()) == len(ds.train)
        (1024, True)
    """
    if _MULTIPLE % mesh.size:
        raise ValueError(f"mesh has {mesh.size} devices; expected a number that divides {_MULTIPLE}")
    if not len(sessions):
        raise ValueError("sessions are empty; expected at least one session")
    num_rows = len(sessions) + -len(sessions) % _MULTIPLE
    by_rows = NamedSharding(mesh, _BY_ROWS)

    def put(column: Any) -> Array:
        def read(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(num_rows)
            block = np.asarray(column[start : min(stop, len(column))])
            missing = stop - start - len(block)
            return np.concatenate([block, np.repeat(np.asarray(column[-1:]), missing, axis=0)]) if missing else block

        return jax.make_array_from_callback((num_rows, *column.shape[1:]), by_rows, read)

    train = jax.tree.map(put, sessions)
    numbers = functools.partial(_numbers_and_weights, num_rows, len(sessions))
    session, weight = jax.jit(numbers, out_shardings=by_rows)()
    return train, Examples(session=session, target=train.target, weight=weight)


def lies_in_parts(leaf: Any) -> bool:
    """Whether an array lies on a mesh as :func:`shard_sessions` puts it there."""
    return isinstance(leaf, jax.Array) and isinstance(leaf.sharding, NamedSharding) and leaf.sharding.spec == _BY_ROWS


def _numbers_and_weights(num_rows: int, num_sessions: int) -> tuple[Array, Array]:
    numbers = jnp.arange(num_rows, dtype=jnp.int32)
    return numbers, (numbers < num_sessions).astype(jnp.float32)


@jax.jit
def digest_in_parts(array: Array) -> Array:
    """Computes two numbers that tell an array from others, without moving it; they do not depend on the mesh.

    Every number is mixed with its place, and the results are added up modulo 2³².

    Args:
        array: numbers of 32 bits, or bool.
    """
    bits = array.astype(jnp.uint32) if array.dtype == bool else jax.lax.bitcast_convert_type(array, jnp.uint32)
    place = jnp.zeros(array.shape, jnp.uint32)
    for axis in range(array.ndim):
        place = place * array.shape[axis] + jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
    seeds = (np.uint32(0x9E3779B9), np.uint32(0x85EBCA6B))
    return jnp.stack([_mixed(bits ^ _mixed(place + seed)).sum(dtype=jnp.uint32) for seed in seeds])


def _mixed(bits: Array) -> Array:
    """Returns 32 bits each of which depends on all given ones: the last steps of MurmurHash3."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = (bits ^ (bits >> shift)) * np.uint32(factor)
    return bits ^ (bits >> 16)
