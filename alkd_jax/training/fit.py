"""Training on one device or a mesh, with several seeds: ``fit``.

The data are put on the device once. A compiled program scans over the steps of an interval, another one validates;
between them the host reads only a few numbers. The computation of a seed does not depend on which seeds are trained
beside it.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from alkd_jax.models import Encoder, Params
from alkd_jax.ops import platforms
from alkd_jax.ops.precision import parameter_dtype
from alkd_jax.ops.row_sparse_adam import Adam
from alkd_jax.training.arguments import select_inputs, select_loss_of
from alkd_jax.training.arrays import TrainingData, device_put
from alkd_jax.training.checkpoints import TrainingFolder
from alkd_jax.training.examples import AnyExamples
from alkd_jax.training.fingerprint import fingerprint
from alkd_jax.training.initial import ExtraParamsInit, init_all_seeds
from alkd_jax.training.interval import Interval, Schedule, fits_ahead, init_state
from alkd_jax.training.loop import TrainingLoop
from alkd_jax.training.reports import reporting
from alkd_jax.training.results import FitResult, Progress
from alkd_jax.training.seeds import join_seeds, seed_keys, split_seeds
from alkd_jax.training.shifted import ShiftedSequences
from alkd_jax.training.steppers.dense import Dense
from alkd_jax.training.steppers.row_sparse_adam import RowSparseAdam, row_sparse_tables
from alkd_jax.training.steppers.stacked_adam import stacked_adam
from alkd_jax.training.trackers import Tracker
from alkd_jax.types import Sequences, Sessions


def fit(
    key: jax.Array,
    model: Encoder,
    train: Sessions,
    validation: Sessions,
    *,
    seeds: int | Sequence[int] = 1,
    targets: str = "last",
    sequences: Sequences | None = None,
    examples: AnyExamples | None = None,
    loss: Callable[..., Any] | None = None,
    initial: Params | None = None,
    extra_params_init: ExtraParamsInit | None = None,
    optimizer: optax.GradientTransformation | None = None,
    learning_rate: float | optax.Schedule = 1e-3,
    weight_decay: float = 0.0,
    batch_size: int = 1024,
    max_steps: int = 10_000,
    steps_per_validation: int = 20,
    patience: int = 10,
    recall_at: int = 25,
    validation_batch: int = 512,
    precision: str = "float32",
    keep_best: bool = True,
    progress: bool | Callable[[Progress], None] = False,
    trackers: Sequence[Tracker] = (),
    checkpoints: TrainingFolder | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> FitResult:
    """Trains a backbone with several seeds, each with early stopping on its validation recall.

    Args:
        key: a JAX key; with a seed's number it decides the seed's initial values, batches and dropout. Consumed.
        model: a backbone.
        train: sessions to train on.
        validation: sessions for early stopping and the choice of the best parameters.
        seeds: the number of seeds, which are then 0 … seeds − 1, or their numbers.
        targets: "last" predicts each session's held-out item, as the paper; "all" predicts every item from those before
            it; "cloze" predicts every item from the other ones; "positions" is "all" with one pass over each session,
            for a causal backbone and an objective of positions, by default the full softmax.
        sequences: complete training sessions for all but "last"; by default what ``train`` holds of them.
        examples: the training examples, in place of ``targets``; with a seed axis, each seed has its own.
        loss: an objective of :mod:`alkd_jax.objectives`, by default in-batch BPR; or any function of
            ``(params, batch)`` or ``(params, batch, key)``. Passing the same function again, or an objective with other
            arrays of the same shapes, reuses the compiled programs.
        initial: initial parameters with a leading seed axis; by default random ones.
        extra_params_init: initializes further collections, which are trained along and not returned.
        optimizer: by default Adam, or AdamW where ``weight_decay`` is not 0. An optimizer whose ``update`` takes a
            keyword ``step`` receives the number of steps taken.
        learning_rate: of the default optimizer; a number, or an optax schedule over steps.
        weight_decay: decoupled weight decay of the default optimizer.
        batch_size: examples in a step, sampled without replacement; all examples where there are fewer.
        max_steps: the largest number of steps; an interval that would exceed it is not begun.
        steps_per_validation: steps of an interval, after each of which there is a validation.
        patience: validations without a higher recall after which a seed stops.
        recall_at: k of the validation recall.
        validation_batch: sessions whose scores are in memory at a time, for each seed.
        precision: "float32", "tf32" or "bfloat16": of the products in the loss, see :mod:`alkd_jax.ops.precision`.
        keep_best: whether to return the parameters of the best validation rather than the last ones.
        progress: True shows a bar in a terminal or a notebook, and elsewhere prints a line a minute; or a function that
            is called after each validation. It reads numbers that the host has anyway.
        trackers: log each validation, and are finished at the end, see :class:`alkd_jax.training.Tracker`.
        checkpoints: a folder for checkpoints; the same call again continues from the newest one, with the same result.
        mesh: the devices to train on, see :func:`alkd_jax.sharding.make_mesh`; by default the first device. Item tables
            and their optimizer state are sharded by rows, and batches are split where the data axis divides them.
            Results differ from those of one device only by the order of sums. Training may continue on another mesh.

    Returns:
        The best parameters of each seed and the learning curves.

    Raises:
        ValueError: a split is empty, an id is out of range, or a size is below 1; or the checkpoints belong to another
            training run.
        FloatingPointError: the training loss is not finite; the error names the step and the seed by its
            place among the seeds.

    Example:
        >>> ds = alkd.data.synthetic(num_items=100, num_sessions=300)
        >>> model = alkd.models.create("fpmc", num_items=ds.num_items, dim=10)
        >>> fitted = alkd.fit(jax.random.key(0), model, ds.train, ds.validation, seeds=2, max_steps=20)
        >>> fitted.params["params"]["output_embedding"].shape
        (2, 101, 10)
    """
    schedule = Schedule(batch_size, max_steps, steps_per_validation, patience, recall_at, validation_batch, precision)
    examples, source, validation = select_inputs(model, train, validation, targets, sequences, examples)
    keys, length = seed_keys(key, seeds), train.items.shape[1]
    init_keys, run_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    params, extra, layout = init_all_seeds(init_keys, model, length, initial, extra_params_init, mesh)
    adam = Adam(learning_rate, weight_decay) if optimizer is None else None
    optimizer = optimizer if adam is None else default_optimizer(adam)
    in_one_program = mesh is not None or (len(keys) > 1 and not platforms.trains_seeds_in_turn())
    stepper = Dense(model, optimizer, extra, layout, parameter_dtype(precision), cut_lengths(examples, in_one_program))
    interval = schedule.interval(stepper, examples, has_seed_axis=in_one_program)
    data = TrainingData(examples, source, validation, select_loss_of(examples, loss, model))
    data, run_keys = device_put((data, run_keys), layout)
    options = {"length": length, "patience": patience, **_not_default(keep_best)}
    describe = functools.partial(fingerprint, interval, keys, params, initial, extra_params_init, data, **options)
    shapes = jax.eval_shape(jax.vmap(stepper.init), params)
    interval = for_platform(interval, adam, data, params)
    loop = TrainingLoop(
        interval,
        *_split_keys_and_data(interval, run_keys, data),
        init=lambda: [init_state(interval, part) for part in split_seeds(interval, params)],
        split=functools.partial(split_seeds, interval),
        join=functools.partial(join_seeds, interval),
        max_steps=max_steps,
        patience=patience,
        keep_best=keep_best,
    )
    with reporting(progress, trackers) as report:
        best, curves, speed = loop.run(checkpoints, describe, shapes, report)
    params = best if layout is None else layout.with_seed_axis.unpad_outputs(best)
    return FitResult(params, curves.history(), *curves.values(best=keep_best), speed)


def _not_default(keep_best: bool) -> dict[str, Any]:
    """Returns an entry of the fingerprint, which checkpoints do not have that were begun before there was a choice."""
    return {} if keep_best else {"keep_best": False}


def cut_lengths(examples: AnyExamples, in_one_program: bool) -> tuple[int, ...]:
    """Returns the lengths that batches of whole sessions are cut to.

    Seeds in one program have batches of different lengths, and would compute the step of every length.
    """
    return examples.lengths if isinstance(examples, ShiftedSequences) and not in_one_program else ()


@functools.lru_cache(maxsize=64)
def default_optimizer(adam: Adam) -> optax.GradientTransformation:
    """Returns one object for equal hyperparameters, so that a second training reuses the first one's compilation."""
    return adam.as_optax()


def for_platform(
    interval: Interval, adam: Adam | None, data: TrainingData, params: Params, platform: str | None = None
) -> Interval:
    """Returns the interval with the steps that are fastest on a platform, of those with the results of dense steps.

    On a CPU, tables for which that is faster have row-sparse updates. On an accelerator, on which small operations take
    as long as larger ones, the tables are read and updated together, and the batches are gathered ahead.

    Args:
        interval: with dense steps.
        adam: hyperparameters of the optimizer, if it is Adam.
        data: what training reads.
        params: all parameters to train, with a seed axis.
        platform: the platform's name; by default that of the default device.
    """
    dense = interval.stepper
    assert isinstance(dense, Dense)
    if dense.layout is not None:
        return interval
    if not platforms.postpones_row_updates(platform):
        stacked = None if adam is None else stacked_adam(dense, adam, data, params, interval.steps, platform)
        return dataclasses.replace(interval, stepper=stacked or dense, gathers_ahead=fits_ahead(interval, data))
    tables = () if adam is None else row_sparse_tables(data, params, interval.batch_size, interval.steps)
    if adam is None or not tables:
        return interval
    stepper = RowSparseAdam(
        dense.model, dense.optimizer, dtype=dense.dtype, adam=adam, tables=tables, steps=interval.steps
    )
    return dataclasses.replace(interval, stepper=stepper)


def _split_keys_and_data(
    interval: Interval, keys: jax.Array, data: TrainingData
) -> tuple[list[jax.Array], list[TrainingData]]:
    """Returns the keys of every group of seeds, and what it reads."""
    groups = split_seeds(interval, keys)
    if data.examples.weight.ndim == 1:
        return groups, [data] * len(groups)
    own_examples = split_seeds(interval, data.examples)
    return groups, [data.replace(examples=own) for own in own_examples]  # type: ignore[attr-defined]
