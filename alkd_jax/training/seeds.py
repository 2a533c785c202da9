"""Seeds in groups: the seeds of a group are trained in one program, and the groups in turn.

A CPU core and a TPU train several seeds faster one by one than as arrays with one more axis. So there every seed is a
group without a seed axis, and a seed that has stopped costs nothing. On a GPU, and on a mesh, all seeds are one group.
Every group has its own arrays, which are updated in place; a loop over seeds inside a program would copy every table in
and out.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alkd_jax.training.interval import Interval


def seed_numbers(seeds: Any) -> list[int]:
    """Returns the numbers of the seeds, given these or how many there are.

    Raises:
        ValueError: there are no seeds, or a number occurs twice or is none that a key can be made with.
    """
    numbers = list(range(seeds)) if isinstance(seeds, int | np.integer) and not isinstance(seeds, bool) else seeds
    numbers = list(numbers) if isinstance(numbers, Iterable) else []
    if not numbers or not all(map(_is_seed, numbers)) or len(set(numbers)) < len(numbers):
        raise ValueError(
            f"seeds is {seeds!r}; expected a positive number, or different whole numbers from 0 to 2**32 - 1"
        )
    return [int(number) for number in numbers]


def _is_seed(number: object) -> bool:
    return isinstance(number, int | np.integer) and not isinstance(number, bool) and 0 <= int(number) < 2**32


def seed_keys(key: jax.Array, seeds: Any) -> jax.Array:
    """Returns one key for each seed, which depends only on the seed's number.

    Args:
        key: a JAX key.
        seeds: the number of seeds, or their numbers.

    Raises:
        ValueError: as of :func:`seed_numbers`.
    """
    return jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.asarray(seed_numbers(seeds), jnp.uint32))


def split_seeds(interval: Interval, stacked: Any) -> list[Any]:
    """Divides arrays with a seed axis among the groups, as copies even where there is only one group.

    Args:
        interval: the static arguments.
        stacked: arrays, each with a leading seed axis.
    """
    if interval.has_seed_axis:
        return [_copy(interval, stacked)]
    num_seeds = jax.tree.leaves(stacked)[0].shape[0]
    return [_take_seed(stacked, np.int32(seed)) for seed in range(num_seeds)]


def join_seeds(interval: Interval, groups: Sequence[Any]) -> Any:
    """Returns copies of the groups' arrays with one seed axis."""
    return _copy(interval, groups[0]) if interval.has_seed_axis else _stack(tuple(groups))


@functools.partial(jax.jit, static_argnums=0)
def _copy(interval: Interval, tree: Any) -> Any:
    return interval.constrain_sharding(jax.tree.map(jnp.copy, tree))


@jax.jit
def _take_seed(stacked: Any, seed: jax.Array) -> Any:
    return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, seed, keepdims=False), stacked)


@jax.jit
def _stack(groups: tuple[Any, ...]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *groups)
