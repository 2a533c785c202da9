"""Training on catalogues whose tables leave no room for a gradient of their size."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from alkd_jax import objectives, sparse_rows
from alkd_jax.examples import AnyExamples
from alkd_jax.models import Encoder, Params, init_params
from alkd_jax.sparse_rows import RowOptimizer
from alkd_jax.training import rows
from alkd_jax.training.fit import _check, _check_examples, _default_optimizer, _what_to_learn, seed_keys
from alkd_jax.training.program import Material
from alkd_jax.training.records import Fitted, History, Progress
from alkd_jax.types import Sequences, Sessions

_PER_ITEM = ("log_frequency",)
"""What of ``aside`` has a row an item."""
_WHOLE_CATALOGUE = (objectives.full_softmax, objectives.taught_softmax)


def fit_large(
    key: jax.Array,
    model: Encoder,
    train: Sessions,
    validation: Sessions,
    *,
    targets: str = "last",
    sequences: Sequences | None = None,
    examples: AnyExamples | None = None,
    loss_of: rows.LossOf = objectives.in_batch_loss,
    aside: Any = None,
    initial: Params | None = None,
    row_optimizer: RowOptimizer | None = None,
    optimizer: optax.GradientTransformation | None = None,
    table_dtype: Any = jnp.float32,
    batch_size: int = 1024,
    max_steps: int = 10_000,
    steps_per_validation: int = 100,
    patience: int = 10,
    recall_at: int = 25,
    validation_sessions: int = 1024,
    validation_batch: int = 512,
    keep_best: bool = True,
    progress: Callable[[Progress], None] | None = None,
) -> Fitted:
    """:func:`alkd_jax.training.fit` of one seed for a large catalogue: a step costs what its batch costs.

    Only the rows of the item tables that a batch names are read, differentiated and written; no gradient and no score
    of the catalogue's size is ever made, tables and slots are changed in place. With SGD or Adagrad it is the training
    :func:`~alkd_jax.training.fit` does, step for step; Adam is lazy, see :mod:`alkd_jax.sparse_rows`.

    Args:
        key: consumed; decides initial values, batches, dropout and draws as in ``fit`` for seed 0.
        model: a backbone.
        train: sessions to learn from.
        validation: sessions that decide when to stop.
        targets: with ``sequences`` and ``examples`` as in ``fit``.
        loss_of: gives a loss for a backbone: in-batch or sampled, such as
            ``functools.partial(objectives.sampled_loss, kind="softmax", num_negatives=64)``.
        aside: a dictionary the loss finds in ``batch.aside``; "sampler" may be drawn from, "log_frequency" has a row an
            item, the rest is handed on as it is.
        initial: parameters to start from; drawn afresh if not given.
        row_optimizer: of the item tables; default row-wise Adagrad at rate 0.05 from an accumulator of 0.
        optimizer: of the other parameters; default Adam at rate 1e-3.
        table_dtype: tables are stored in; bfloat16 rows are rounded at random, arithmetic is in float32.
        batch_size: examples a step.
        max_steps: at most so many steps.
        steps_per_validation: length of the compiled interval.
        patience: validations without a better recall after which it stops.
        recall_at: k of the validation recall.
        validation_sessions: at most so many sessions, drawn at random, are ranked.
        validation_batch: of these at a time.
        keep_best: returns the parameters of the best validation, of which a copy is kept on the host; else the last.
        progress: called after each validation.

    Returns:
        As ``fit``, but the parameters have no seed axis.

    Raises:
        ValueError: as ``fit``; the loss reads the whole catalogue; ``aside`` holds lists of items.
        FloatingPointError: the training loss is not finite.
    """
    _check_large(loss_of, aside, model)
    sizes = {"batch_size": batch_size, "max_steps": max_steps, "steps_per_validation": steps_per_validation}
    sizes |= {"patience": patience, "recall_at": recall_at, "validation_sessions": validation_sessions}
    _check(model, train, validation, sizes | {"validation_batch": validation_batch})
    examples, source = _what_to_learn(train, targets, sequences, examples)
    _check_examples(model, source, examples)
    program = rows.RowProgram(
        model=model,
        loss_of=loss_of,
        rows=_default_rows() if row_optimizer is None else row_optimizer,
        optimizer=_default_optimizer(1e-3, 0.0) if optimizer is None else optimizer,
        per_item=_PER_ITEM,
        batch_size=min(batch_size, examples.weight.shape[-1]),
        steps=min(steps_per_validation, max_steps),
        recall_at=recall_at,
        validation_batch=validation_batch,
    )
    init_key, run_key = jax.random.split(seed_keys(key, 1)[0])
    sample = _sample(jax.random.fold_in(key, 1), validation, validation_sessions)
    material = jax.device_put(Material(examples, source, sample, aside))
    state = _start(program, initial, init_key, train.items.shape[1], table_dtype)
    return _run(program, run_key, state, material, max_steps, patience, keep_best, progress)


def _default_rows() -> RowOptimizer:
    # A row's part of a mean over the batch is tiny: beside optax's accumulator of 0.1 or ε of 1e-7 it would not count.
    return sparse_rows.adagrad(0.05, rowwise=True, initial_accumulator_value=0.0, eps=1e-20)


def _check_large(loss_of: rows.LossOf, aside: Any, model: Encoder) -> None:
    if getattr(loss_of, "func", loss_of) in _WHOLE_CATALOGUE:
        raise ValueError("loss_of reads the whole catalogue; expected an in-batch or a sampled loss")
    if aside is not None and not isinstance(aside, dict):
        raise ValueError(f"aside is a {type(aside).__name__}; expected a dictionary")
    for name, value in (aside or {}).items():
        if name == "list_items":
            raise ValueError("aside holds list_items; expected no lists of items in training by rows")
        if name in _PER_ITEM and len(value) != model.num_items + 1:
            raise ValueError(f"aside's {name} has {len(value)} rows; expected {model.num_items + 1}, one an item")


def _sample(key: jax.Array, validation: Sessions, num: int) -> Sessions:
    """Some sessions, in their order."""
    if len(validation) <= num:
        return validation
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    chosen = np.sort(rng.choice(len(validation), num, replace=False))
    return jax.tree.map(lambda array: np.asarray(array)[chosen], validation)


def _first_params(model: Encoder, key: jax.Array, length: int, dtype: Any) -> Params:
    """Fresh parameters, the item tables in the type they are stored in."""
    tables = rows.item_tables(model)
    # A program a table: the random words of all of them at once would be the peak of the whole training.
    groups = [((name,), dtype) for name in tables] + [(tables, None)]
    drawn = [_drawn(key, model, length, names, kept) for names, kept in groups]
    return {"params": {name: leaf for group in drawn for name, leaf in group.items()}}


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _drawn(key: jax.Array, model: Encoder, length: int, names: tuple[str, ...], dtype: Any) -> dict[str, jax.Array]:
    """These parameters in this type; without a type, all but these."""
    params = init_params(key, model, length=length)["params"]
    if dtype is None:
        return {name: leaf for name, leaf in params.items() if name not in names}
    return {name: params[name].astype(dtype) for name in names}


def _start(program: rows.RowProgram, initial: Params | None, key: jax.Array, length: int, dtype: Any) -> rows.RowState:
    dtype = jnp.dtype(dtype)
    if initial is None:
        return program.start(_first_params(program.model, key, length, dtype))
    names = rows.item_tables(program.model)
    # The state is donated from step to step; the caller's arrays must not be.
    copies = {n: jnp.array(leaf, dtype if n in names else None, copy=True) for n, leaf in initial["params"].items()}
    return program.start({"params": copies})


@dataclasses.dataclass
class _Best:
    """The best validation so far, and its parameters on the host."""

    step: int
    metric: float
    params: Params | None = None

    def beaten(self, step: int, metric: float, state: rows.RowState, keep: bool) -> bool:
        if metric <= self.metric:
            return False
        self.step, self.metric = step, metric
        if keep:
            # A copy: on a CPU the array itself would change under our hands.
            self.params = jax.tree.map(lambda leaf: np.array(leaf, copy=True), state.params)
        return True


def _run(
    program: rows.RowProgram,
    key: jax.Array,
    state: rows.RowState,
    material: Material,
    max_steps: int,
    patience: int,
    keep_best: bool,
    progress: Callable[[Progress], None] | None,
) -> Fitted:
    """Runs intervals until the recall has stopped rising or the steps are spent."""
    best, stale = _Best(0, -1.0), 0
    steps, losses, recalls = [0], [np.nan], [np.nan]
    seconds, timed, speed = 0.0, 0, float("nan")
    for step in range(0, max_steps - program.steps + 1, program.steps):
        began = time.perf_counter()
        state, seen = rows.interval(program, state, key, material, jnp.int32(step))
        loss, recall = (float(value) for value in jax.device_get(seen))
        if step > 0:
            seconds, timed = seconds + time.perf_counter() - began, timed + program.steps * program.batch_size
            speed = timed / seconds
        if not np.isfinite(loss):
            raise FloatingPointError(f"the loss is not finite at step {step + program.steps}")
        steps.append(step + program.steps)
        losses.append(loss)
        recalls.append(recall)
        stale = 0 if best.beaten(steps[-1], recall, state, keep_best) else stale + 1
        if progress is not None:
            now = np.asarray([loss]), np.asarray([recall])
            progress(Progress(steps[-1], max_steps, *now, speed, int(stale < patience)))
        if stale >= patience:
            break
    history = History(np.asarray(steps), np.asarray([losses]), np.asarray([recalls]))
    params = state.params if best.params is None else best.params
    last = best.step if keep_best else steps[-1]
    return Fitted(params, history, np.asarray([last]), np.asarray([best.metric]), speed)
