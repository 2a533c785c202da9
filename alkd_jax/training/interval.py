"""The compiled programs of training: the steps between two validations, and a validation."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, Sharding, SingleDeviceSharding
from jaxtyping import Array, Float

from alkd_jax import scoring, sharding
from alkd_jax.checks import check_count, check_one_of
from alkd_jax.evaluation import metrics
from alkd_jax.models import Params
from alkd_jax.ops import precision
from alkd_jax.ops.packed_rows import ItemTable
from alkd_jax.training.arrays import TrainingData
from alkd_jax.training.examples import AnyExamples
from alkd_jax.training.steppers.protocol import Stepper
from alkd_jax.types import Sessions

_BYTES_AHEAD = 64 * 2**20
"""Bytes of the batches that may be gathered ahead."""


class IntervalMetrics(NamedTuple):
    """The results of an interval that the host reads; with a seed axis where the state has one.

    Attributes:
        loss: training loss of the last batch, computed with the parameters after the interval.
        is_finite: ``[T]`` whether the numbers of each step were finite.
    """

    loss: jax.Array | np.ndarray
    is_finite: jax.Array | np.ndarray


@dataclasses.dataclass(frozen=True)
class Interval:
    """The static arguments of the compiled programs; equal ones share one compilation.

    Attributes:
        stepper: takes a step of one seed.
        batch_size: B.
        steps: T, steps between two validations.
        recall_at: k of the validation recall.
        validation_batch: sessions whose scores are in memory at a time.
        precision: of the products in the loss, see :mod:`alkd_jax.ops.precision`.
        has_seed_axis: whether states, keys and results have a leading seed axis.
        gathers_ahead: whether the batches of all steps are gathered before the first one, in one operation.
    """

    stepper: Stepper
    batch_size: int
    steps: int
    recall_at: int
    validation_batch: int
    precision: str = "float32"
    has_seed_axis: bool = False
    gathers_ahead: bool = False

    @property
    def mesh(self) -> Mesh | None:
        """The mesh of devices; None on one device."""
        return None if self.layout is None else self.layout.mesh

    @property
    def layout(self) -> sharding.Layout | None:
        """How arrays of a state lie on the mesh."""
        layout = self.stepper.layout
        return layout.with_seed_axis if layout is not None and self.has_seed_axis else layout

    def sharding_of(self, leaf: Any) -> Sharding:
        """Returns the sharding of an array of a state of all seeds."""
        return SingleDeviceSharding(jax.local_devices()[0]) if self.layout is None else self.layout.sharding_of(leaf)

    def constrain_sharding(self, tree: Any) -> Any:
        """Constrains a state, or parts of one, to the sharding that the programs expect, inside jit."""
        return tree if self.layout is None else self.layout.constrain_sharding(tree)

    def replicate(self, tree: Any) -> Any:
        """Constrains arrays to be whole on every device, inside jit."""
        return tree if self.mesh is None else sharding.replicate(tree, self.mesh)

    def for_each_seed(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Maps a function over the seed axis, where there is one."""
        return jax.vmap(function)(*arguments) if self.has_seed_axis else function(*arguments)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The sizes of a training run, as in :func:`alkd_jax.training.fit`.

    Raises:
        ValueError: a size is no whole number of at least 1, or the precision is unknown.
    """

    batch_size: int
    max_steps: int
    steps_per_validation: int
    patience: int
    recall_at: int
    validation_batch: int
    precision: str

    def __post_init__(self) -> None:
        sizes = dataclasses.asdict(self)
        check_one_of("precision", sizes.pop("precision"), precision.PRECISIONS)
        check_count(1, **sizes)

    def interval(self, stepper: Stepper, examples: AnyExamples, *, has_seed_axis: bool = False) -> Interval:
        """Returns the static arguments of the programs that train on some examples."""
        return Interval(
            stepper,
            batch_size=min(self.batch_size, examples.weight.shape[-1]),
            steps=min(self.steps_per_validation, self.max_steps),
            recall_at=self.recall_at,
            validation_batch=self.validation_batch,
            precision=self.precision,
            has_seed_axis=has_seed_axis,
        )


def fits_ahead(interval: Interval, data: TrainingData) -> bool:
    """Whether the batches of an interval take so little memory that they may be gathered ahead."""

    def arrays(data: TrainingData) -> list[Any]:
        return jax.tree.leaves(data.of_first_seed().batch(jnp.arange(interval.batch_size), 0))

    leaves = jax.eval_shape(arrays, data)
    num_bytes = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
    return interval.steps * num_bytes <= _BYTES_AHEAD


@functools.partial(jax.jit, static_argnums=0)
def init_state(interval: Interval, params: Params) -> Any:
    """Returns the state of a group before the first step; the parameters become part of it."""
    return interval.constrain_sharding(interval.for_each_seed(interval.stepper.init, params))


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def take_steps(
    interval: Interval, state: Any, keys: jax.Array, data: TrainingData, step: Array
) -> tuple[Any, IntervalMetrics]:
    """Takes the steps of an interval; the state is donated.

    Args:
        interval: the static arguments.
        state: the state before the interval.
        keys: a seed's key, the same for every interval; with a seed axis, one for each seed.
        data: what training reads; with a seed axis, examples may have one too.
        step: steps taken so far.
    """
    stepper = interval.stepper

    def take_steps_of_seed(
        state: Any, key: jax.Array, examples: AnyExamples | None = None
    ) -> tuple[Any, IntervalMetrics]:
        own = data if examples is None else data.replace(examples=examples)  # type: ignore[attr-defined]
        order_key, loss_key = jax.random.split(key)
        rows = own.examples.rows_of_steps(order_key, step, interval.steps, interval.batch_size)
        numbers = step + jnp.arange(interval.steps)

        def prepare(rows: Array, number: Array) -> Any:
            return stepper.prepare(data.loss, own.batch(rows, number))

        # Between the two loops the batches of all steps are flat, since one with a further axis is no batch.
        structure = jax.tree.structure(prepare(rows[0], numbers[0]))
        flat_batch = lambda rows, number: jax.tree.leaves(prepare(rows, number))  # noqa: E731
        ahead = jax.vmap(flat_batch)(rows, numbers) if interval.gathers_ahead else None

        def take_step(carry: Any, plan: tuple[Array, Array, list[Array] | None]) -> tuple[Any, Array]:
            rows, number, leaves = plan
            batch = prepare(rows, number) if leaves is None else jax.tree.unflatten(structure, leaves)
            return stepper.step(carry, data.loss, batch, jax.random.fold_in(loss_key, number))

        carry, probes = jax.lax.scan(take_step, stepper.begin(state), (rows, numbers, ahead))
        is_finite = ~jnp.isnan(probes.reshape(interval.steps, -1).sum(1))
        state = stepper.finish(state, carry)
        # The loss is computed once an interval: at every step it would cost as much as its gradient.
        leaves = flat_batch(rows[-1], numbers[-1]) if ahead is None else [leaf[-1] for leaf in ahead]
        last = jax.tree.unflatten(structure, leaves)
        loss = stepper.loss(state, carry, data.loss, last, jax.random.fold_in(loss_key, numbers[-1]))
        return state, IntervalMetrics(loss, is_finite)

    own_examples = (data.examples,) if data.examples.weight.ndim == 2 else ()
    with precision.matmul_precision(interval.precision):
        state, results = interval.for_each_seed(take_steps_of_seed, state, keys, *own_examples)
    return interval.constrain_sharding(state), interval.replicate(results)


@functools.partial(jax.jit, static_argnums=0)
def validate(interval: Interval, state: Any, validation: Sessions) -> Float[Array, "*seeds"]:
    """Computes the recall on the validation sessions, which decides when training stops and which parameters are kept.

    Args:
        interval: the static arguments.
        state: the state.
        validation: the sessions.
    """

    def recall_of_seed(state: Any) -> Float[Array, ""]:
        encode, table = interval.stepper.for_validation(state)
        batch_size = sharding.even_batch_size(len(validation), interval.validation_batch)
        return validation_recall(encode, table, validation, interval.recall_at, batch_size)

    return interval.replicate(interval.for_each_seed(recall_of_seed, state))


@functools.partial(jax.jit, static_argnums=0)
def copy_params(interval: Interval, state: Any) -> Params:
    """Returns copies of the backbone's parameters."""
    params = interval.for_each_seed(interval.stepper.model_params, state)
    return interval.constrain_sharding(jax.tree.map(jnp.copy, params))


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def keep_better(interval: Interval, best: Params, state: Any, is_better: Array) -> Params:
    """Returns the state's parameters for the seeds that are better, else the best ones so far, which are donated."""

    def choose(best: Params, state: Any, is_better: Array) -> Params:
        return jax.tree.map(lambda new, old: jnp.where(is_better, new, old), interval.stepper.model_params(state), best)

    return interval.constrain_sharding(interval.for_each_seed(choose, best, state, is_better))


def validation_recall(
    encode: Callable[..., Float[Array, "B *L D"]],
    table: ItemTable,
    validation: Sessions,
    k: int,
    batch_size: int,
) -> Float[Array, ""]:
    """Computes recall at k, in batches of sessions and chunks of items.

    Args:
        encode: ``encode(items, mask)`` returns the vectors of sessions; it takes their times after these, where the
            sessions have any.
        table: the output table Y; row 0 is the padding.
        validation: the sessions.
        k: list length.
        batch_size: sessions whose scores are in memory at a time, at most the number of sessions.
    """
    num_sessions = len(validation)
    num_batches = -(-num_sessions // batch_size)
    # The last batch starts early enough to be full; sessions of the batch before get weight 0 in it.
    starts = jnp.minimum(jnp.arange(num_batches) * batch_size, num_sessions - batch_size)

    def count_hits(batch: tuple[Array, Array]) -> Float[Array, ""]:
        number, start = batch
        take = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=batch_size)
        items, mask, target = take(validation.items), take(validation.mask), take(validation.target)
        times = () if validation.seconds is None else (take(validation.seconds),)
        ranks = scoring.full_catalogue_rank(encode(items, mask, *times), table, target, exclude=items)
        is_new = start + jnp.arange(batch_size) >= number * batch_size
        return (metrics.recall(ranks, k) * is_new).sum()

    return jax.lax.map(count_hits, (jnp.arange(num_batches), starts)).sum() / num_sessions
