"""Seeds in groups: those of one group run in one program, the groups one after the other.

A core works through seeds faster one by one than through arrays with one more axis, so on a CPU every seed is a group,
and one that has stopped costs nothing. Elsewhere, and on a mesh, all seeds are one group. Each group's arrays are its
own, changed in place; a loop over seeds inside a program would copy every table into it and out of it again.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from alkd_jax.models import Params
from alkd_jax.training.steppers import dense as programs
from alkd_jax.training.steppers.dense import IntervalMetrics, TrainingData, TrainState, TrainStep


class Group(NamedTuple):
    """What one group of seeds reads: their keys, and what they learn from."""

    keys: jax.Array
    material: TrainingData


def split(program: TrainStep, keys: jax.Array, material: TrainingData) -> list[Group]:
    """The groups of the seeds with these keys; examples with a seed axis are divided among them."""
    examples = material.examples
    if examples.weight.ndim == 1:
        return [Group(own, material) for own in cut(program, keys)]
    pairs = zip(cut(program, keys), cut(program, examples), strict=True)
    return [Group(own, material.replace(examples=part)) for own, part in pairs]  # type: ignore[attr-defined]


def start(program: TrainStep, params: Params, own: Iterable[str], groups: Sequence[Group]) -> list[TrainState]:
    """The first state of every group.

    Args:
        program: what is compiled in.
        params: all that is trained, of all seeds; left as they are.
        own: names of the model's collections.
        groups: of the seeds.
    """
    parts = zip(cut(program, params), groups, strict=True)
    return [
        programs.start(program, part, {name: part[name] for name in own}, group.material.validation)
        for part, group in parts
    ]


def interval(
    program: TrainStep, states: Sequence[TrainState], groups: Sequence[Group], step: Any, active: Bool[np.ndarray, " S"]
) -> tuple[list[TrainState], IntervalMetrics]:
    """One interval of every group in which a seed is active.

    Args:
        program: what is compiled in.
        states: of the groups; changed in place, not to be used again.
        groups: what they read.
        step: steps taken so far.
        active: the seeds that have not stopped; what is told of the others means nothing.

    Returns:
        The new states, and what was seen of every seed, on the host.
    """
    size = len(active) // len(groups)
    passed_over = IntervalMetrics(np.zeros(size), np.zeros(size), np.ones((size, program.steps), bool))
    after, seen = list(states), [passed_over] * len(groups)
    for number, group in enumerate(groups):
        if active[number * size : (number + 1) * size].any():
            after[number], seen[number] = programs.interval(program, after[number], *group, step)
    return after, jax.tree.map(lambda *parts: np.concatenate(parts), *jax.device_get(seen))


def joined(program: TrainStep, parts: Sequence[Any]) -> Any:
    """What lies in groups, as copies with one seed axis."""
    return _joined(program, tuple(parts))


@functools.partial(jax.jit, static_argnums=0)
def _joined(program: TrainStep, parts: tuple[Any, ...]) -> Any:
    return program.constrain_sharding(jax.tree.map(lambda *leaves: jnp.copy(jnp.concatenate(leaves)), *parts))


def cut(program: TrainStep, stacked: Any) -> list[Any]:
    """Arrays with a seed axis as those of every group; copies, also where there is one group."""
    num_seeds = jax.tree.leaves(stacked)[0].shape[0]
    size = 1 if jax.default_backend() == "cpu" and program.layout is None else num_seeds
    return [_part(program, size, stacked, np.int32(first)) for first in range(0, num_seeds, size)]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _part(program: TrainStep, size: int, stacked: Any, first: jax.Array) -> Any:
    return program.constrain_sharding(
        jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, size), stacked)
    )
