"""Training on the host: it checks the arguments, runs one interval after the other, and records learning curves.

The data are put on the device once. A compiled program scans over the steps of an interval, validates, and keeps the
best parameters; between intervals the host reads only a few numbers. The computation of a seed does not depend on which
seeds are trained beside it.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from alkd_jax import sharding
from alkd_jax.models import Encoder, Params, init_params
from alkd_jax.objectives import Loss, in_batch_loss
from alkd_jax.training import seeds as seed_groups
from alkd_jax.training.arguments import check_arguments, check_examples, device_put, select_examples
from alkd_jax.training.checkpoints import TrainingCheckpointer, TrainingFolder, open_checkpoints
from alkd_jax.training.examples import AnyExamples
from alkd_jax.training.fingerprint import fingerprint
from alkd_jax.training.results import FitResult, History, Progress
from alkd_jax.training.steppers.dense import IntervalMetrics, TrainingData, TrainState, TrainStep
from alkd_jax.training.steppers.row_sparse_adam import Adam
from alkd_jax.types import Sequences, Sessions

ExtraParamsInit: TypeAlias = Callable[[jax.Array, Encoder], Params]
"""``extra_params_init(key, model)`` returns further collections to train beside the model's."""

_EXTRA_PARAMS = 1
"""Folded into a seed's initial key for extra parameters, so that the model's own initial values do not change."""


def seed_keys(key: jax.Array, seeds: int | Sequence[int]) -> jax.Array:
    """Returns one key for each seed, which depends only on the seed's number.

    Args:
        key: a JAX key.
        seeds: the number of seeds, or their numbers.

    Raises:
        ValueError: there are no seeds, or a number occurs twice.
    """
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(f"seeds is {seeds}; expected a positive number or a list of different numbers")
    return jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.asarray(numbers, jnp.uint32))


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
    loss: Loss | None = None,
    loss_inputs: Any = None,
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
    progress: Callable[[Progress], None] | None = None,
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
            it; "cloze" predicts every item from the other ones.
        sequences: complete training sessions for "all" and "cloze"; by default what ``train`` holds of them.
        examples: the training examples, in place of ``targets``; with a seed axis, each seed has its own.
        loss: the training loss, by default :func:`alkd_jax.objectives.in_batch_loss`. Passing the same function object
            again reuses the compiled programs.
        loss_inputs: arrays that the loss reads from ``batch.loss_inputs``, the same for all seeds.
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
        progress: called after each validation.
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
    stopping = {"patience": patience, "recall_at": recall_at, "validation_batch": validation_batch}
    sizes = {"batch_size": batch_size, "max_steps": max_steps, "steps_per_validation": steps_per_validation}
    check_arguments(model, train, validation, sizes | stopping)
    examples, source = select_examples(train, targets, sequences, examples)
    check_examples(model, source, examples)
    keys = seed_keys(key, seeds)
    init_keys, run_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    length = train.items.shape[1]
    model_params, extra_params, layout = _init_params(init_keys, model, length, initial, extra_params_init, mesh)
    adam = Adam(learning_rate, weight_decay)
    train_step = TrainStep(
        model=model,
        loss=in_batch_loss(model) if loss is None else loss,
        optimizer=default_optimizer(adam) if optimizer is None else optimizer,
        batch_size=min(batch_size, examples.weight.shape[-1]),
        steps=min(steps_per_validation, max_steps),
        layout=layout,
        adam=adam if optimizer is None else None,
        **stopping,
    )
    data, run_keys = device_put((TrainingData(examples, source, validation, loss_inputs), run_keys), layout)
    with sharding.use_mesh(mesh):
        groups = seed_groups.split_seeds(train_step, run_keys, data)
        states = seed_groups.init_states(train_step, {**model_params, **extra_params}, model_params, groups)
    with _open_checkpoints(
        checkpoints, train_step, keys, states, initial, extra_params_init, data, length
    ) as checkpointer:
        return _run(train_step, groups, states, max_steps, progress, checkpointer)


@functools.lru_cache(maxsize=64)
def default_optimizer(adam: Adam) -> optax.GradientTransformation:
    """Returns one object for equal hyperparameters, so that a second training reuses the first one's compilation."""
    return adam.as_optax()


@functools.partial(jax.jit, static_argnums=(0, 1, 2), static_argnames="length")
def _init_seeds(
    init: Callable[..., Params], model: Encoder, layout: sharding.Layout | None, keys: jax.Array, **options: int
) -> Params:
    """Initializes the parameters of every seed in one program; on a mesh each device initializes its own shard."""
    params = jax.vmap(lambda key: init(key, model, **options))(keys)
    return params if layout is None else layout.with_seed_axis.pad_rows(params)


def _init_params(
    keys: jax.Array,
    model: Encoder,
    length: int,
    initial: Params | None,
    extra_params_init: ExtraParamsInit | None,
    mesh: jax.sharding.Mesh | None,
) -> tuple[Params, Params, sharding.Layout | None]:
    """Returns the model's parameters and the extra ones of every seed, and how they lie on the mesh."""
    extra_keys = jax.vmap(lambda key: jax.random.fold_in(key, _EXTRA_PARAMS))(keys)

    def init(layout: sharding.Layout | None, keys: jax.Array, extra_keys: jax.Array) -> tuple[Params, Params]:
        model_params = _init_seeds(init_params, model, layout, keys, length=length) if initial is None else {}
        return model_params, {} if extra_params_init is None else _init_seeds(
            extra_params_init, model, layout, extra_keys
        )

    shapes = jax.eval_shape(functools.partial(init, None), keys, extra_keys)
    model_shapes = shapes[0] if initial is None else initial
    if clash := model_shapes.keys() & shapes[1].keys():
        raise ValueError(f"extra parameters are named {sorted(clash)}, as the model's own; expected other names")
    layout = sharding.layout_of({**model_shapes, **shapes[1]}, model.num_items + 1, mesh, leading_axes=1)
    if layout is not None:
        keys, extra_keys = sharding.device_put_global((keys, extra_keys), layout.replicated)
        layout = dataclasses.replace(layout, leading_axes=0)
    with sharding.use_mesh(mesh):
        model_params, extra_params = init(layout, keys, extra_keys)
    if initial is not None:
        model_params = initial if layout is None else layout.with_seed_axis.device_put(initial)
    return model_params, extra_params, layout


def _open_checkpoints(
    checkpoints: TrainingFolder | None,
    train_step: TrainStep,
    keys: jax.Array,
    states: list[TrainState],
    initial: Params | None,
    extra_params_init: ExtraParamsInit | None,
    data: TrainingData,
    length: int,
) -> contextlib.AbstractContextManager[TrainingCheckpointer | None]:
    """Opens the folder for checkpoints, where there is one."""
    if checkpoints is None:
        return contextlib.nullcontext()
    layout = train_step.layout
    with sharding.use_mesh(None if layout is None else layout.mesh):
        shapes = state = seed_groups.concatenate(train_step, states)
    if initial is not None:
        initial = state.best_params if layout is None else layout.with_seed_axis.to_host(state.best_params)
    if layout is not None:
        # The fingerprint has the model's own shapes and one device: the mesh may change when training continues.
        params = jax.eval_shape(layout.with_seed_axis.unpad_rows, state.params)
        opt_state = jax.eval_shape(jax.vmap(train_step.optimizer.init), params)
        model_params = {name: params[name] for name in state.best_params}
        shapes = dataclasses.replace(state, params=params, opt_state=opt_state, best_params=model_params)
        train_step = dataclasses.replace(train_step, layout=None)
    run_fingerprint = fingerprint(train_step, keys, shapes, initial, extra_params_init, data, length=length)
    return open_checkpoints(checkpoints, run_fingerprint, state)


def _run(
    train_step: TrainStep,
    groups: list[seed_groups.SeedGroup],
    states: list[TrainState],
    max_steps: int,
    progress: Callable[[Progress], None] | None,
    checkpointer: TrainingCheckpointer | None,
) -> FitResult:
    """Runs intervals until every seed has stopped or there are no steps left."""
    layout = train_step.layout
    on_mesh = functools.partial(sharding.use_mesh, None if layout is None else layout.mesh)
    recall = np.concatenate(jax.device_get([state.best_metric for state in states]))
    num_seeds = len(recall)
    steps, losses, recalls = [0], [np.full(num_seeds, np.nan)], [recall]
    restored = None if checkpointer is None else checkpointer.restore()
    if restored is not None:
        state, curves = restored
        with on_mesh():
            states = seed_groups.split_seed_axis(train_step, state)
        del state, restored
        steps = list(curves[0])
        losses, recalls = ([np.asarray(row) for row in curve] for curve in curves[1:])
    seconds, timed_examples = 0.0, 0
    stopped = _stopped(states)
    first_step = steps[-1]
    for step in range(first_step, max_steps - train_step.steps + 1, train_step.steps):
        active = ~stopped
        if not active.any():
            break
        began = time.perf_counter()
        with on_mesh():
            states, metrics = seed_groups.run_interval(train_step, states, groups, np.int32(step), active)
        stopped = _stopped(states)
        if step > first_step:
            seconds += time.perf_counter() - began
            timed_examples += train_step.steps * train_step.batch_size * num_seeds
        _check_finite(metrics, active, step)
        steps.append(step + train_step.steps)
        losses.append(np.where(active, metrics.loss, np.nan))
        recalls.append(np.where(active, metrics.recall, np.nan))
        if checkpointer is not None and checkpointer.is_due(len(steps) - 1):
            with on_mesh():
                state = seed_groups.concatenate(train_step, states)
                checkpointer.save(steps[-1], state, _as_lists(steps, losses, recalls))
                del state
        if progress is not None:
            speed = timed_examples / seconds if seconds else float("nan")
            progress(Progress(steps[-1], max_steps, losses[-1], recalls[-1], speed, int((~stopped).sum())))
    history = History(np.asarray(steps), np.stack(losses, 1), np.stack(recalls, 1))
    speed = timed_examples / seconds if seconds else float("nan")
    with on_mesh():
        if checkpointer is not None:
            state = seed_groups.concatenate(train_step, states)
            checkpointer.save(steps[-1], state, _as_lists(steps, losses, recalls))
            del state
        best = [(state.best_params, state.best_step, state.best_metric) for state in states]
        best_params, best_step, best_metric = seed_groups.concatenate(train_step, best)
    best_step, best_metric = jax.device_get((best_step, best_metric))
    best_params = best_params if layout is None else layout.with_seed_axis.unpad_outputs(best_params)
    return FitResult(best_params, history, best_step, best_metric, speed)


def _stopped(states: list[TrainState]) -> np.ndarray:
    return np.concatenate(jax.device_get([state.stopped for state in states]))


def _as_lists(steps: list[int], losses: list[np.ndarray], recalls: list[np.ndarray]) -> tuple[list[Any], ...]:
    # Copies, since they are written in the background while the originals get longer.
    return list(steps), [row.tolist() for row in losses], [row.tolist() for row in recalls]


def _check_finite(metrics: IntervalMetrics, active: np.ndarray, step: int) -> None:
    """Raises where an active seed's loss, or its item vectors after any step of the interval, are not finite."""
    for seed in np.flatnonzero(active):
        bad_steps = np.flatnonzero(~metrics.is_finite[seed])
        if len(bad_steps) or not np.isfinite(metrics.loss[seed]):
            last = len(metrics.is_finite[seed])
            first = int(bad_steps[0]) + 1 if len(bad_steps) else last
            raise FloatingPointError(f"the loss of seed {seed} is not finite at step {step + first}")
