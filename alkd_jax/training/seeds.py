"""Seeds in groups: the seeds of a group are trained in one program, and the groups one after the other.

A CPU core trains several seeds faster one by one than as arrays with one more axis. So on a CPU every seed is a group,
and a seed that has stopped costs nothing. On other devices, and on a mesh, all seeds are one group. Every group has its
own arrays, which are updated in place; a loop over seeds inside a program would copy every table in and out.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from alkd_jax.models import Params
from alkd_jax.training.steppers import dense
from alkd_jax.training.steppers.dense import IntervalMetrics, TrainingData, TrainState, TrainStep


class SeedGroup(NamedTuple):
    """The keys of a group of seeds, and the data that it reads."""

    keys: jax.Array
    data: TrainingData


def split_seeds(train_step: TrainStep, keys: jax.Array, data: TrainingData) -> list[SeedGroup]:
    """Divides seeds into groups.

    Args:
        train_step: the static arguments.
        keys: ``[S]`` the seeds' keys.
        data: what training reads; examples with a seed axis are divided among the groups.
    """
    examples = data.examples
    if examples.weight.ndim == 1:
        return [SeedGroup(group_keys, data) for group_keys in split_seed_axis(train_step, keys)]
    groups = zip(split_seed_axis(train_step, keys), split_seed_axis(train_step, examples), strict=True)
    return [SeedGroup(own_keys, data.replace(examples=own)) for own_keys, own in groups]  # type: ignore[attr-defined]


def init_states(
    train_step: TrainStep, params: Params, model_collections: Iterable[str], groups: Sequence[SeedGroup]
) -> list[TrainState]:
    """Returns the initial state of every group.

    Args:
        train_step: the static arguments.
        params: all parameters to train, of all seeds; they are not donated.
        model_collections: names of the model's collections among them.
        groups: the groups of seeds.
    """
    pairs = zip(split_seed_axis(train_step, params), groups, strict=True)
    return [
        dense.init_states(train_step, part, {name: part[name] for name in model_collections}, group.data.validation)
        for part, group in pairs
    ]


def run_interval(
    train_step: TrainStep,
    states: Sequence[TrainState],
    groups: Sequence[SeedGroup],
    step: Any,
    active: Bool[np.ndarray, " S"],
) -> tuple[list[TrainState], IntervalMetrics]:
    """Runs one interval of every group that has an active seed.

    Args:
        train_step: the static arguments.
        states: the groups' states; they are donated.
        groups: the groups of seeds.
        step: steps taken so far.
        active: the seeds that have not stopped.

    Returns:
        The new states, and the metrics of all seeds on the host; those of a seed that is not active have no meaning.
    """
    size = len(active) // len(groups)
    placeholder = IntervalMetrics(np.zeros(size), np.zeros(size), np.ones((size, train_step.steps), bool))
    new_states, metrics = list(states), [placeholder] * len(groups)
    for number, group in enumerate(groups):
        if active[number * size : (number + 1) * size].any():
            new_states[number], metrics[number] = dense.run_interval(train_step, new_states[number], *group, step)
    return new_states, jax.tree.map(lambda *parts: np.concatenate(parts), *jax.device_get(metrics))


def concatenate(train_step: TrainStep, parts: Sequence[Any]) -> Any:
    """Returns copies of the groups' arrays with one seed axis."""
    return _concatenate(train_step, tuple(parts))


@functools.partial(jax.jit, static_argnums=0)
def _concatenate(train_step: TrainStep, parts: tuple[Any, ...]) -> Any:
    return train_step.constrain_sharding(jax.tree.map(lambda *leaves: jnp.copy(jnp.concatenate(leaves)), *parts))


def split_seed_axis(train_step: TrainStep, stacked: Any) -> list[Any]:
    """Splits arrays with a seed axis into those of every group, as copies even where there is only one group."""
    num_seeds = jax.tree.leaves(stacked)[0].shape[0]
    size = 1 if jax.default_backend() == "cpu" and train_step.layout is None else num_seeds
    return [_slice_seeds(train_step, size, stacked, np.int32(first)) for first in range(0, num_seeds, size)]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _slice_seeds(train_step: TrainStep, size: int, stacked: Any, first: jax.Array) -> Any:
    return train_step.constrain_sharding(
        jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, size), stacked)
    )
