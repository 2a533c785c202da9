"""Training from the host's side: what is asked is checked, intervals are run one after the other, curves are kept.

The data lie on the device once. A program scans over the steps of an interval, validates, and keeps the best
parameters; the host only reads a few numbers between intervals. Seed s of a run is the same computation whether it
runs alone or beside others.
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
from alkd_jax.training.checkpoints import TrainingCheckpointer, TrainingFolder, open_checkpoints
from alkd_jax.training.examples import (
    AnyExamples,
    Examples,
    Positions,
    cloze_examples,
    last_item_examples,
    prefix_examples,
    sequences_of,
)
from alkd_jax.training.fingerprint import identity
from alkd_jax.training.results import FitResult, History, Progress
from alkd_jax.training.steppers.dense import IntervalMetrics, TrainingData, TrainState, TrainStep
from alkd_jax.training.steppers.row_sparse_adam import Adam
from alkd_jax.types import Sequences, Sessions

ExtraParams: TypeAlias = Callable[[jax.Array, Encoder], Params]
"""``extra_params_init(key, model)`` returns further collections to train beside the model's."""

_EXTRA = 1
"""Folded into a seed's initial key, so that extra parameters leave the model's own initial values as they are."""


def seed_keys(key: jax.Array, seeds: int | Sequence[int]) -> jax.Array:
    """One key a seed: seed s gets the same key whichever seeds run beside it.

    Raises:
        ValueError: there are no seeds, or one comes twice.
    """
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(f"seeds are {seeds}; expected a positive number or a list of different numbers")
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
    extra_params_init: ExtraParams | None = None,
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
    """Trains a backbone, every seed in the same program, each stopping when its validation recall stops rising.

    Args:
        key: consumed; with the seed's number it decides initial values, batches and dropout.
        model: a backbone.
        train: sessions to learn from.
        validation: sessions that decide when to stop and which parameters are kept.
        seeds: how many seeds, 0 … seeds − 1, or their numbers.
        targets: "last" learns the held-out items, as the paper; "all" every item, given those before; "cloze" every
            item, given the others.
        sequences: whole training sessions for "all" and "cloze"; by default as much of them as ``train`` holds.
        examples: what to learn, in place of ``targets``. With a seed axis, each seed its own.
        loss: default :func:`alkd_jax.objectives.in_batch_loss`. The same function object reuses a compilation.
        loss_inputs: arrays the loss finds in ``batch.aside``, the same for all seeds.
        initial: parameters to start from, with a leading seed axis; drawn afresh if not given.
        extra_params_init: draws further collections that are trained along and dropped at the end.
        optimizer: default Adam, AdamW where ``weight_decay`` is not 0. One that takes ``step=`` is given it.
        learning_rate: of the default optimizer; a number, or an optax schedule over steps.
        weight_decay: of the default optimizer, decoupled.
        batch_size: examples a step, drawn without replacement; all of them where there are fewer.
        max_steps: at most so many steps.
        steps_per_validation: length of the compiled interval.
        patience: validations without a better recall after which a seed stops.
        recall_at: k of the validation recall.
        validation_batch: sessions whose scores are in memory at a time, per seed.
        progress: called after each validation.
        checkpoints: where the state is kept while training; the same call goes on from there, to the same result.
        mesh: devices to train on, see :func:`alkd_jax.sharding.make`; by default the first. Item tables and what the
            optimizer keeps of them lie in parts, batches are cut where the data axis divides them. Results are those
            of one device but for the order of sums, and training may go on under another mesh.

    Returns:
        The best parameters of each seed and the learning curves.

    Raises:
        ValueError: a split is empty, an id out of range, a size below 1; the checkpoints are another run's.
        FloatingPointError: the training loss is not finite; names seed and step.
    """
    watch = {"patience": patience, "recall_at": recall_at, "validation_batch": validation_batch}
    sizes = {"batch_size": batch_size, "max_steps": max_steps, "steps_per_validation": steps_per_validation}
    _check(model, train, validation, sizes | watch)
    examples, source = _what_to_learn(train, targets, sequences, examples)
    _check_examples(model, source, examples)
    keys = seed_keys(key, seeds)
    init_keys, run_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    (own, more), layout = _first_params(init_keys, model, train.items.shape[1], initial, extra_params_init, mesh)
    adam = Adam(learning_rate, weight_decay)
    program = TrainStep(
        model=model,
        loss=in_batch_loss(model) if loss is None else loss,
        optimizer=_default_optimizer(adam) if optimizer is None else optimizer,
        batch_size=min(batch_size, examples.weight.shape[-1]),
        steps=min(steps_per_validation, max_steps),
        layout=layout,
        adam=adam if optimizer is None else None,
        **watch,
    )
    material, run_keys = _placed((TrainingData(examples, source, validation, loss_inputs), run_keys), layout)
    with sharding.use_mesh(mesh):
        groups = seed_groups.split(program, run_keys, material)
        states = seed_groups.start(program, {**own, **more}, own, groups)
    with _kept(checkpoints, program, keys, states, initial, extra_params_init, material, train.items.shape[1]) as kept:
        return _run(program, groups, states, max_steps, progress, kept)


@functools.partial(jax.jit, static_argnums=(0, 1, 2), static_argnames="length")
def _draw(
    draw: Callable[..., Params], model: Encoder, layout: sharding.Layout | None, keys: jax.Array, **options: int
) -> Params:
    """Parameters of every seed, in one program rather than one an array; on a mesh each device draws its own part."""
    params = jax.vmap(lambda key: draw(key, model, **options))(keys)
    return params if layout is None else layout.stacked.pad_rows(params)


def _placed(tree: Any, layout: sharding.Layout | None) -> Any:
    """Arrays on the device, on a mesh on every one."""
    return jax.device_put(tree) if layout is None else sharding.device_put_global(tree, layout.whole)


def _kept(
    checkpoints: TrainingFolder | None,
    program: TrainStep,
    keys: jax.Array,
    states: list[TrainState],
    initial: Params | None,
    extra_params_init: ExtraParams | None,
    material: TrainingData,
    length: int,
) -> contextlib.AbstractContextManager[TrainingCheckpointer | None]:
    """The open folder of checkpoints, where there is one."""
    if checkpoints is None:
        return contextlib.nullcontext()
    layout = program.layout
    with sharding.use_mesh(None if layout is None else layout.mesh):
        shapes = state = seed_groups.joined(program, states)
    if initial is not None:
        initial = state.best_params if layout is None else layout.stacked.to_host(state.best_params)
    if layout is not None:
        # Told in the model's own shapes and for one device: the mesh is no part of what a training is.
        params = jax.eval_shape(layout.stacked.unpad_rows, state.params)
        opt_state = jax.eval_shape(jax.vmap(program.optimizer.init), params)
        own = {name: params[name] for name in state.best_params}
        shapes = dataclasses.replace(state, params=params, opt_state=opt_state, best_params=own)
        program = dataclasses.replace(program, layout=None)
    told = identity(program, keys, shapes, initial, extra_params_init, material, length=length)
    return open_checkpoints(checkpoints, told, state)


def _first_params(
    keys: jax.Array,
    model: Encoder,
    length: int,
    initial: Params | None,
    extra_params_init: ExtraParams | None,
    mesh: jax.sharding.Mesh | None,
) -> tuple[tuple[Params, Params], sharding.Layout | None]:
    """The model's parameters and the further ones of every seed, and how they lie on the mesh."""
    more_keys = jax.vmap(lambda key: jax.random.fold_in(key, _EXTRA))(keys)

    def draw(layout: sharding.Layout | None, keys: jax.Array, more_keys: jax.Array) -> tuple[Params, Params]:
        own = _draw(init_params, model, layout, keys, length=length) if initial is None else {}
        return own, {} if extra_params_init is None else _draw(extra_params_init, model, layout, more_keys)

    shapes = jax.eval_shape(functools.partial(draw, None), keys, more_keys)
    own_shapes = shapes[0] if initial is None else initial
    if clash := own_shapes.keys() & shapes[1].keys():
        raise ValueError(f"extra parameters are called {sorted(clash)}, as the model's own; expected other names")
    layout = sharding.layout_of({**own_shapes, **shapes[1]}, model.num_items + 1, mesh, lead=1)
    if layout is not None:
        keys, more_keys = sharding.device_put_global((keys, more_keys), layout.whole)
        layout = dataclasses.replace(layout, lead=0)
    with sharding.use_mesh(mesh):
        own, more = draw(layout, keys, more_keys)
    if initial is not None:
        own = initial if layout is None else layout.stacked.place(initial)
    return (own, more), layout


def _what_to_learn(
    train: Sessions, targets: str, sequences: Sequences | None, examples: AnyExamples | None
) -> tuple[AnyExamples, Sessions | Sequences]:
    """The examples and what they point into."""
    if targets not in ("last", "all", "cloze"):
        raise ValueError(f"targets is {targets!r}; expected 'last', 'all' or 'cloze'")
    if isinstance(examples, Examples) or (examples is None and targets == "last"):
        return last_item_examples(train) if examples is None else examples, train
    whole = sequences_of(train) if sequences is None else sequences
    if examples is None:
        length = train.items.shape[1]
        examples = (prefix_examples if targets == "all" else cloze_examples)(whole, length=length)
    return examples, whole


def _check(model: Encoder, train: Sessions, validation: Sessions, steps: dict[str, int]) -> None:
    """Raises on what would otherwise train nonsense: empty splits, ids out of range, sizes below 1."""
    for name, number in steps.items():
        if number < 1:
            raise ValueError(f"{name} is {number}; expected at least 1")
    for name, split in (("train", train), ("validation", validation)):
        if len(split) == 0:
            raise ValueError(f"the {name} split is empty; expected at least one session")
        for part, array in (("items", split.items), ("targets", split.target)):
            low, high = int(np.min(array)), int(np.max(array))
            least = 0 if part == "items" else 1
            if low < least or high > model.num_items:
                raise ValueError(f"{name} {part} span {low}..{high}; expected {least}..{model.num_items}")
        if not np.asarray(split.mask).any(1).all():
            raise ValueError(f"a {name} session has no known item; drop such sessions first")


def _check_examples(model: Encoder, source: Sessions | Sequences, examples: AnyExamples) -> None:
    """Raises where examples point past what there is."""
    if examples.weight.shape[-1] == 0 or not np.asarray(examples.weight).any(-1).all():
        raise ValueError("there are no examples to learn from")
    low, high = int(np.min(examples.session)), int(np.max(examples.session))
    if low < 0 or high >= len(source):
        raise ValueError(f"examples name session rows up to {high} of {len(source)}")
    if isinstance(examples, Positions):
        low, high = int(np.min(examples.position)), int(np.max(examples.position))
        if low < 0 or high >= len(source.items):
            raise ValueError(f"examples name positions {low}..{high} of {len(source.items)}")
        target = source.items
    else:
        target = examples.target
    if int(np.min(target)) < 1 or int(np.max(target)) > model.num_items:
        raise ValueError(f"example targets span {np.min(target)}..{np.max(target)}; expected 1..{model.num_items}")


@functools.lru_cache(maxsize=64)
def _default_optimizer(adam: Adam) -> optax.GradientTransformation:
    """One object for equal numbers, so that a second training reuses the first one's compilation."""
    return adam.dense()


def _run(
    program: TrainStep,
    groups: list[seed_groups.Group],
    states: list[TrainState],
    max_steps: int,
    progress: Callable[[Progress], None] | None,
    kept: TrainingCheckpointer | None,
) -> FitResult:
    """Runs intervals until every seed has stopped or the steps are spent."""
    layout = program.layout
    on_mesh = functools.partial(sharding.use_mesh, None if layout is None else layout.mesh)
    recall = np.concatenate(jax.device_get([state.best_metric for state in states]))
    num_seeds = len(recall)
    steps, losses, recalls = [0], [np.full(num_seeds, np.nan)], [recall]
    restored = None if kept is None else kept.restore()
    if restored is not None:
        whole, curves = restored
        with on_mesh():
            states = seed_groups.cut(program, whole)
        del whole, restored
        steps = list(curves[0])
        losses, recalls = ([np.asarray(row) for row in curve] for curve in curves[1:])
    seconds, timed_examples = 0.0, 0
    stopped = _stopped(states)
    began_at = steps[-1]
    for step in range(began_at, max_steps - program.steps + 1, program.steps):
        active = ~stopped
        if not active.any():
            break
        began = time.perf_counter()
        with on_mesh():
            states, seen = seed_groups.interval(program, states, groups, np.int32(step), active)
        stopped = _stopped(states)
        if step > began_at:
            seconds += time.perf_counter() - began
            timed_examples += program.steps * program.batch_size * num_seeds
        _check_finite(seen, active, step)
        steps.append(step + program.steps)
        losses.append(np.where(active, seen.loss, np.nan))
        recalls.append(np.where(active, seen.recall, np.nan))
        if kept is not None and kept.is_due(len(steps) - 1):
            with on_mesh():
                kept.save(steps[-1], seed_groups.joined(program, states), _as_lists(steps, losses, recalls))
        if progress is not None:
            speed = timed_examples / seconds if seconds else float("nan")
            progress(Progress(steps[-1], max_steps, losses[-1], recalls[-1], speed, int((~stopped).sum())))
    history = History(np.asarray(steps), np.stack(losses, 1), np.stack(recalls, 1))
    speed = timed_examples / seconds if seconds else float("nan")
    with on_mesh():
        if kept is not None:
            kept.save(steps[-1], seed_groups.joined(program, states), _as_lists(steps, losses, recalls))
        found = [(state.best_params, state.best_step, state.best_metric) for state in states]
        best, best_step, best_metric = seed_groups.joined(program, found)
    best_step, best_metric = jax.device_get((best_step, best_metric))
    return FitResult(
        best if layout is None else layout.stacked.unpad_outputs(best), history, best_step, best_metric, speed
    )


def _stopped(states: list[TrainState]) -> np.ndarray:
    return np.concatenate(jax.device_get([state.stopped for state in states]))


def _as_lists(steps: list[int], losses: list[np.ndarray], recalls: list[np.ndarray]) -> tuple[list[Any], ...]:
    # A copy of each: they are written in the background while the originals grow.
    return list(steps), [row.tolist() for row in losses], [row.tolist() for row in recalls]


def _check_finite(seen: IntervalMetrics, active: np.ndarray, step: int) -> None:
    """Raises where the loss of a seed that counts, or what a step made of the item vectors, is not finite."""
    for seed in np.flatnonzero(active):
        unsound = np.flatnonzero(~seen.sound[seed])
        if len(unsound) or not np.isfinite(seen.loss[seed]):
            last = len(seen.sound[seed])
            first = int(unsound[0]) + 1 if len(unsound) else last
            raise FloatingPointError(f"the loss of seed {seed} is not finite at step {step + first}")
