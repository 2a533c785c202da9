"""Training: one compiled program per validation interval, with seeds as a leading axis.

The data lie on the device once. A program scans over the steps of an interval, validates, and keeps the best
parameters; the host only reads a few numbers between intervals. Seed s of a run is the same computation whether it
runs alone or beside others.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from alkd_jax import losses, metrics, scoring
from alkd_jax.examples import Batch, Examples, batch_rows, last_item_examples
from alkd_jax.models import Encoder, Params, init_params
from alkd_jax.types import Sessions

Loss: TypeAlias = Callable[[Params, Batch, jax.Array], Float[Array, ""]]
"""``loss(params, batch, key)``; the key is for dropout and sampled negatives."""


@flax.struct.dataclass
class TrainState:
    """All that changes while training; every leaf gets a leading seed axis."""

    params: Params
    opt_state: optax.OptState
    best_params: Params
    best_metric: Float[Array, "*seeds"]
    best_step: Int[Array, "*seeds"]
    stale: Int[Array, "*seeds"]
    stopped: Bool[Array, "*seeds"]


@dataclasses.dataclass(frozen=True)
class History:
    """What the host saw after each validation; NaN once a seed has stopped.

    Attributes:
        step: ``[T]`` steps taken so far; the first is 0, before any.
        loss: ``[S, T]`` training loss of the interval's last batch; NaN at step 0.
        recall: ``[S, T]`` validation recall.
    """

    step: np.ndarray
    loss: np.ndarray
    recall: np.ndarray


@dataclasses.dataclass(frozen=True)
class Fitted:
    """The outcome of :func:`fit`.

    Attributes:
        params: the best parameters of each seed, with a leading seed axis.
        history: the learning curves.
        best_step: ``[S]`` the step each seed's parameters are from.
        best_metric: ``[S]`` their validation recall.
        sessions_per_second: training examples a second, all seeds together, compilation left out.
    """

    params: Params
    history: History
    best_step: np.ndarray
    best_metric: np.ndarray
    sessions_per_second: float


@dataclasses.dataclass(frozen=True)
class Progress:
    """What :func:`fit` tells an onlooker after each validation; means are over the seeds that were still training.

    Attributes:
        step: steps taken so far.
        max_steps: steps at most.
        loss: training loss of the interval's last batch.
        recall: validation recall.
        speed: examples a second, all seeds together, compilation left out; NaN before it is known.
        active: seeds that go on.
    """

    step: int
    max_steps: int
    loss: float
    recall: float
    speed: float
    active: int


@functools.lru_cache(maxsize=64)
def in_batch_loss(model: Encoder, *, released: bool = False) -> Loss:
    """In-batch BPR of a backbone; rows of one session are no negatives of each other unless ``released``.

    Equal arguments give the same function object, so that a second :func:`fit` reuses the first one's compilation.
    """

    def loss(params: Params, batch: Batch, key: jax.Array) -> Float[Array, ""]:
        vectors = model.apply(params, batch.items, batch.mask, train=True, rngs={"dropout": key})
        targets = model.apply(params, method="item_embeddings")[batch.target]
        return losses.fused_in_batch_bpr(vectors, targets, batch.target, batch.session, batch.weight, released)

    return loss


def seed_keys(key: jax.Array, seeds: int | Sequence[int]) -> jax.Array:
    """One key a seed: seed s gets the same key whichever seeds run beside it.

    Raises:
        ValueError: there are no seeds, or one comes twice.
    """
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(f"seeds are {seeds}; expected a positive number or a list of different numbers")
    return jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.asarray(numbers, jnp.uint32))


def _validation_recall(
    model: Encoder, params: Params, validation: Sessions, k: int, batch_size: int
) -> Float[Array, ""]:
    """Recall at k on the validation sessions, a batch of score rows in memory at a time."""
    table = model.apply(params, method="item_embeddings")
    num_sessions = len(validation)
    batch_size = min(batch_size, num_sessions)
    num_batches = -(-num_sessions // batch_size)
    # The last batch starts early enough to be whole; what it repeats is weighted 0.
    starts = jnp.minimum(jnp.arange(num_batches) * batch_size, num_sessions - batch_size)

    def hits(batch: tuple[Array, Array]) -> Float[Array, ""]:
        number, start = batch
        take = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=batch_size)
        items, mask, target = take(validation.items), take(validation.mask), take(validation.target)
        all_scores = scoring.scores(model.apply(params, items, mask), table)
        fresh = start + jnp.arange(batch_size) >= number * batch_size
        return (metrics.recall(scoring.target_rank(all_scores, target, exclude=items), k) * fresh).sum()

    return jax.lax.map(hits, (jnp.arange(num_batches), starts)).sum() / num_sessions


@dataclasses.dataclass(frozen=True)
class _Program:
    """The static half of a run: what is compiled in. Equal programs share one compilation."""

    model: Any
    loss: Loss
    optimizer: optax.GradientTransformation
    batch_size: int
    steps: int
    patience: int
    recall_at: int
    validation_batch: int

    def start(self, params: Params, validation: Sessions) -> TrainState:
        """The state before the first step; the parameters given are the ones to beat."""
        recall = _validation_recall(self.model, params, validation, self.recall_at, self.validation_batch)
        zero = jnp.zeros((), jnp.int32)
        copy = jax.tree.map(jnp.array, params)
        return TrainState(params, self.optimizer.init(params), copy, recall, zero, zero, jnp.zeros((), bool))

    def interval(
        self, state: TrainState, key: jax.Array, examples: Examples, step: Array, train: Sessions, validation: Sessions
    ) -> tuple[TrainState, Float[Array, ""], Float[Array, ""]]:
        """Takes the interval's steps, validates, and keeps the better parameters.

        Returns:
            The new state, the training loss of the last batch, the validation recall.
        """
        order_key, loss_key = jax.random.split(key)
        rows = batch_rows(order_key, step, self.steps, self.batch_size, examples.target.shape[-1])

        def take_step(carry: tuple[Params, optax.OptState], now: tuple[Array, Array]) -> tuple[Any, None]:
            params, opt_state = carry
            chosen, number = now
            batch = examples.take(chosen, train)
            gradient = jax.grad(self.loss)(params, batch, jax.random.fold_in(loss_key, number))
            updates, opt_state = self.optimizer.update(gradient, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), None

        numbers = step + jnp.arange(self.steps)
        (params, opt_state), _ = jax.lax.scan(take_step, (state.params, state.opt_state), (rows, numbers))
        # A loss at every step would cost as much as its gradient; one an interval tells as much.
        loss = self.loss(params, examples.take(rows[-1], train), jax.random.fold_in(loss_key, numbers[-1]))
        recall = _validation_recall(self.model, params, validation, self.recall_at, self.validation_batch)
        better = (recall > state.best_metric) & ~state.stopped
        stale = jnp.where(better, 0, state.stale + 1)
        new_state = TrainState(
            params=params,
            opt_state=opt_state,
            best_params=jax.tree.map(lambda new, old: jnp.where(better, new, old), params, state.best_params),
            best_metric=jnp.where(better, recall, state.best_metric),
            best_step=jnp.where(better, step + self.steps, state.best_step),
            stale=stale,
            stopped=state.stopped | (stale >= self.patience),
        )
        return new_state, loss, recall


@functools.partial(jax.jit, static_argnums=0)
def _start(program: _Program, params: Params, validation: Sessions) -> TrainState:
    return jax.vmap(program.start, in_axes=(0, None))(params, validation)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _interval(
    program: _Program,
    state: TrainState,
    keys: jax.Array,
    examples: Examples,
    step: Array,
    train: Sessions,
    validation: Sessions,
) -> tuple[TrainState, Float[Array, " S"], Float[Array, " S"]]:
    shared = 0 if examples.target.ndim == 2 else None
    return jax.vmap(program.interval, in_axes=(0, 0, shared, None, None, None))(
        state, keys, examples, step, train, validation
    )


def _check(model: Encoder, train: Sessions, validation: Sessions, examples: Examples, steps: dict[str, int]) -> None:
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
    if examples.target.shape[-1] == 0 or not np.asarray(examples.weight).any(-1).all():
        raise ValueError("there are no examples to learn from")
    if int(np.max(examples.session)) >= len(train) or int(np.min(examples.session)) < 0:
        raise ValueError(f"examples name session rows up to {int(np.max(examples.session))} of {len(train)}")
    if int(np.min(examples.target)) < 1 or int(np.max(examples.target)) > model.num_items:
        raise ValueError(f"example targets reach {int(np.max(examples.target))}; expected 1..{model.num_items}")


def fit(
    key: jax.Array,
    model: Encoder,
    train: Sessions,
    validation: Sessions,
    *,
    seeds: int | Sequence[int] = 1,
    initial: Params | None = None,
    examples: Examples | None = None,
    loss: Loss | None = None,
    optimizer: optax.GradientTransformation | None = None,
    learning_rate: float = 1e-3,
    batch_size: int = 1024,
    max_steps: int = 10_000,
    steps_per_validation: int = 20,
    patience: int = 10,
    recall_at: int = 25,
    validation_batch: int = 512,
    progress: Callable[[Progress], None] | None = None,
) -> Fitted:
    """Trains a backbone, every seed in the same program, each stopping when its validation recall stops rising.

    Args:
        key: consumed; with the seed's number it decides initial values, batches and dropout.
        model: a backbone.
        train: sessions to learn from.
        validation: sessions that decide when to stop and which parameters are kept.
        seeds: how many seeds, 0 … seeds − 1, or their numbers.
        initial: parameters to start from, with a leading seed axis; drawn afresh if not given.
        examples: what to learn; default :func:`last_item_examples`. With a seed axis, each seed its own.
        loss: default :func:`in_batch_loss` of the model. Pass the same function object to reuse a compilation.
        optimizer: default ``optax.adam(learning_rate)``.
        learning_rate: of the default optimizer.
        batch_size: examples a step, drawn without replacement; all of them where there are fewer.
        max_steps: at most so many steps.
        steps_per_validation: length of the compiled interval.
        patience: validations without a better recall after which a seed stops.
        recall_at: k of the validation recall.
        validation_batch: sessions whose scores are in memory at a time, per seed.
        progress: called after each validation.

    Returns:
        The best parameters of each seed and the learning curves.

    Raises:
        ValueError: a split is empty, an id out of range, a size below 1.
        FloatingPointError: the training loss is not finite; names seed and step.
    """
    examples = last_item_examples(train) if examples is None else examples
    sizes = {
        "batch_size": batch_size,
        "max_steps": max_steps,
        "steps_per_validation": steps_per_validation,
        "patience": patience,
        "recall_at": recall_at,
        "validation_batch": validation_batch,
    }
    _check(model, train, validation, examples, sizes)
    program = _Program(
        model=model,
        loss=in_batch_loss(model) if loss is None else loss,
        optimizer=_default_optimizer(learning_rate) if optimizer is None else optimizer,
        batch_size=min(batch_size, examples.target.shape[-1]),
        steps=min(steps_per_validation, max_steps),
        patience=patience,
        recall_at=recall_at,
        validation_batch=validation_batch,
    )
    keys = seed_keys(key, seeds)
    init_keys, run_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    if initial is None:
        initial = jax.vmap(lambda k: init_params(k, model, length=train.items.shape[1]))(init_keys)
    else:
        # The state is donated from step to step; the caller's arrays must not be.
        initial = jax.tree.map(jnp.copy, initial)
    examples, train, validation = jax.device_put((examples, train, validation))
    return _run(program, run_keys, initial, examples, train, validation, max_steps, progress)


@functools.lru_cache(maxsize=64)
def _default_optimizer(learning_rate: float) -> optax.GradientTransformation:
    return optax.adam(learning_rate)


def _run(
    program: _Program,
    keys: jax.Array,
    initial: Params,
    examples: Examples,
    train: Sessions,
    validation: Sessions,
    max_steps: int,
    progress: Callable[[Progress], None] | None,
) -> Fitted:
    """Runs intervals until every seed has stopped or the steps are spent."""
    state = _start(program, initial, validation)
    num_seeds = keys.shape[0]
    steps, loss_curve, recall_curve = [0], [np.full(num_seeds, np.nan)], [np.asarray(state.best_metric)]
    active = np.ones(num_seeds, bool)
    seconds, timed_examples = 0.0, 0
    for step in range(0, max_steps - program.steps + 1, program.steps):
        began = time.perf_counter()
        state, loss, recall = _interval(program, state, keys, examples, jnp.int32(step), train, validation)
        loss, recall, stopped = jax.device_get((loss, recall, state.stopped))
        if steps[-1] > 0:
            seconds += time.perf_counter() - began
            timed_examples += program.steps * program.batch_size * num_seeds
        if not np.isfinite(loss[active]).all():
            broken = int(np.flatnonzero(active & ~np.isfinite(loss))[0])
            raise FloatingPointError(
                f"the loss of seed {broken} is not finite between steps {step} and {step + program.steps}"
            )
        steps.append(step + program.steps)
        loss_curve.append(np.where(active, loss, np.nan))
        recall_curve.append(np.where(active, recall, np.nan))
        if progress is not None:
            speed = timed_examples / seconds if seconds else float("nan")
            means = float(loss[active].mean()), float(recall[active].mean())
            progress(Progress(steps[-1], max_steps, *means, speed, int((~stopped).sum())))
        active = ~stopped
        if not active.any():
            break
    history = History(np.asarray(steps), np.stack(loss_curve, 1), np.stack(recall_curve, 1))
    best_step, best_metric = jax.device_get((state.best_step, state.best_metric))
    speed = timed_examples / seconds if seconds else float("nan")
    return Fitted(state.best_params, history, best_step, best_metric, speed)
