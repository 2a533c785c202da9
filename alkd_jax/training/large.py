"""Training on catalogues so large that there is no memory for a gradient of the size of the item tables."""

import dataclasses
import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from alkd_jax import sharding
from alkd_jax.checks import check_count
from alkd_jax.models import Encoder, Params, init_params
from alkd_jax.ops import embedding, platforms
from alkd_jax.ops.embedding import RowOptimizer
from alkd_jax.ops.precision import parameter_dtype
from alkd_jax.ops.row_sparse_adam import Adam
from alkd_jax.training.arguments import (
    check_parallel,
    select_inputs,
    select_row_loss,
)
from alkd_jax.training.arrays import TrainingData, device_put
from alkd_jax.training.checkpoints import TrainingFolder
from alkd_jax.training.examples import AnyExamples
from alkd_jax.training.fingerprint import fingerprint
from alkd_jax.training.fit import default_optimizer
from alkd_jax.training.initial import LazyInitializer
from alkd_jax.training.interval import Interval, Schedule
from alkd_jax.training.loop import TrainingLoop
from alkd_jax.training.packed_state import pack_state, unpack_on_host
from alkd_jax.training.parallel_sessions import ParallelSessions
from alkd_jax.training.reports import reporting
from alkd_jax.training.results import FitResult, Progress, combine_seeds, progress_of_seed
from alkd_jax.training.seeds import seed_keys, seed_numbers
from alkd_jax.training.steppers.lazy_rows import LazyRows, LazyState
from alkd_jax.training.steppers.recurrent_rows import RecurrentRows
from alkd_jax.training.trackers import Tracker
from alkd_jax.types import Sequences, Sessions


def fit_large(
    key: jax.Array,
    model: Encoder,
    train: Sessions,
    validation: Sessions,
    *,
    seeds: int | Sequence[int] | None = None,
    targets: str = "last",
    sequences: Sequences | None = None,
    examples: AnyExamples | None = None,
    loss: Callable[..., Any] | None = None,
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
    precision: str = "float32",
    keep_best: bool = True,
    progress: bool | Callable[[Progress], None] = False,
    trackers: Sequence[Tracker] = (),
    checkpoints: TrainingFolder | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> FitResult:
    """Trains as :func:`alkd_jax.training.fit` does, for a large catalogue: the cost of a step is that of its batch.

    Only the rows of the item tables that a batch refers to are read, differentiated and written. No array of gradients
    or scores has the size of the catalogue, and tables and slots are updated in place. With SGD or Adagrad the steps
    are those of :func:`~alkd_jax.training.fit`; Adam is lazy, see :mod:`alkd_jax.ops.embedding`.

    Args:
        key: a JAX key; with a seed's number it decides initial values, batches, dropout and samples as in ``fit``.
            Consumed.
        model: a backbone.
        train: sessions to train on.
        validation: sessions for early stopping and the choice of the best parameters.
        seeds: the number of seeds, or their numbers; they are trained one after the other, since the memory is for one
            seed's tables. By default seed 0 alone, whose parameters have no seed axis.
        targets: as in ``fit``.
        sequences: as in ``fit``.
        examples: as in ``fit``, but the same for all seeds; or those of
            :func:`alkd_jax.training.parallel_sessions.parallel_sessions`, which carry the states of a recurrent
            backbone from step to step, with their own batch size.
        loss: an objective as in ``fit``, but none that scores the whole catalogue, such as
            ``objectives.SampledLoss(model, sampler, "softmax", num_negatives=64)``; by default in-batch BPR.
        initial: initial parameters without a seed axis; by default random ones.
        row_optimizer: optimizer of the item tables; by default row-wise Adagrad with learning rate 0.05 and initial
            accumulator 0.
        optimizer: optimizer of the other parameters; by default Adam with learning rate 1e-3.
        table_dtype: the type that tables are stored in. Arithmetic is in float32; bfloat16 rows are rounded
            stochastically.
        batch_size: as in ``fit``.
        max_steps: as in ``fit``.
        steps_per_validation: as in ``fit``.
        patience: as in ``fit``.
        recall_at: as in ``fit``.
        validation_sessions: the largest number of validation sessions; where there are more, a random sample is used.
        validation_batch: as in ``fit``.
        precision: as in ``fit``.
        keep_best: whether to return the parameters of the best validation rather than the last ones. Their copy is kept
            on the host, or on a mesh or a CPU beside the tables.
        progress: as in ``fit``; where there are several seeds, the numbers of all but the current one are NaN.
        trackers: as in ``fit``.
        checkpoints: as in ``fit``, with a folder for each seed. Training waits while its state is saved, since a copy
            would take the memory of the tables again.
        mesh: the devices to train on, as in ``fit``. Only the rows of a batch and their gradient are sent between them.

    Returns:
        The result as of ``fit``. Only where ``seeds`` is given do parameters have a seed axis, and they are then on the
        host. Without ``seeds``, tables on a mesh stay sharded if the model axis divides V + 1, and are returned on the
        host if not, as they are on a TPU without a mesh.

    Raises:
        ValueError: as in ``fit``; or the loss is no objective, or reads the whole catalogue.
        FloatingPointError: the training loss is not finite.
    """
    schedule = Schedule(batch_size, max_steps, steps_per_validation, patience, recall_at, validation_batch, precision)
    check_count(1, validation_sessions=validation_sessions)
    examples, source, validation = select_inputs(model, train, validation, targets, sequences, examples)
    length = train.items.shape[1]
    shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), model, length=length))
    check_parallel(examples, model, loss, can_train=mesh is None)
    parts: dict[str, Any] = {
        "row_optimizer": _default_row_optimizer() if row_optimizer is None else row_optimizer,
        "optimizer": default_optimizer(Adam(1e-3)) if optimizer is None else optimizer,
        "layout": sharding.layout_of(shapes, model.num_items + 1, mesh),
        "dtype": parameter_dtype(precision),
    }
    if isinstance(examples, ParallelSessions):
        stepper: LazyRows = RecurrentRows(model, **parts, batch_size=examples.batch_size)
        schedule = dataclasses.replace(schedule, batch_size=examples.batch_size)
    else:
        stepper = LazyRows(model, **parts, packs=mesh is None and platforms.tiles_memory())
    interval = schedule.interval(stepper, examples)
    sample = _sample(jax.random.fold_in(key, 1), validation, validation_sessions)
    data = device_put(TrainingData(examples, source, sample, select_row_loss(loss, model, examples)), stepper.layout)
    initializer = LazyInitializer(stepper, length, jnp.dtype(table_dtype), initial)
    options: dict[str, Any] = {"max_steps": max_steps, "patience": patience, "keep_best": keep_best}
    fit_seed = functools.partial(_fit_seed, interval, initializer, data, **options)
    with reporting(progress, trackers) as report:
        return _fit_seeds(fit_seed, stepper, key, seeds, checkpoints, report)


def _fit_seeds(
    fit_seed: Callable[..., FitResult],
    stepper: LazyRows,
    key: jax.Array,
    seeds: int | Sequence[int] | None,
    checkpoints: TrainingFolder | None,
    progress: Callable[[Progress], None] | None,
) -> FitResult:
    """Trains the seeds in turn; parameters have a seed axis and are on the host, unless ``seeds`` is None."""
    numbers = seed_numbers(1 if seeds is None else seeds)
    results: list[FitResult] = []
    stacked: Params = None
    for place, seed_key in enumerate(seed_keys(key, numbers)):
        folder = checkpoints and dataclasses.replace(checkpoints, path=checkpoints.path / f"seed_{numbers[place]}")
        report = None if progress is None else progress_of_seed(progress, place, len(numbers))
        result = fit_seed(seed_key, folder, report, first_seed=place)
        if seeds is not None:
            # The memory is for one seed's tables, so those of finished seeds are kept on the host.
            params = _to_host(stepper, result.params)
            result = dataclasses.replace(result, params=None)
            if stacked is None:
                stacked = jax.tree.map(lambda leaf: np.empty((len(numbers), *leaf.shape), leaf.dtype), params)
            jax.tree.map(lambda whole, leaf: operator.setitem(whole, place, leaf), stacked, params)  # noqa: B023
        results.append(result)
    return combine_seeds(results, _unpad(stepper, results[0].params) if seeds is None else stacked)


def _fit_seed(
    interval: Interval,
    initializer: LazyInitializer,
    data: TrainingData,
    key: jax.Array,
    folder: TrainingFolder | None,
    progress: Callable[[Progress], None] | None,
    **options: Any,
) -> FitResult:
    """Trains one seed; the result has padded rows and no seed axis."""
    stepper = initializer.stepper
    # Checkpoints are the same whether tables are packed or not, and so is what identifies the run.
    plain = dataclasses.replace(initializer, stepper=dataclasses.replace(stepper, packs=False))
    init_key, run_key = device_put(tuple(jax.random.split(key)), stepper.layout)
    loop = TrainingLoop(
        interval,
        [run_key],
        [data],
        init=lambda: [initializer.state(init_key)],
        split=lambda saved: [pack_state(saved) if stepper.packs and isinstance(saved, LazyState) else saved],
        join=lambda states: unpack_on_host(states[0]) if stepper.packs else states[0],
        state_on_host=stepper.packs,
        best_on_host=stepper.layout is None and platforms.has_own_memory(),
        **options,
    )
    shapes = plain.shapes(init_key)
    describe = functools.partial(
        fingerprint,
        dataclasses.replace(interval, stepper=plain.stepper),
        key,
        stepper.model_params(shapes),
        initializer.initial,
        None,
        data,
        length=initializer.length,
        patience=loop.patience,
        keep_best=loop.keep_best,
        table_dtype=str(initializer.dtype),
    )
    # Training waits while the state itself is saved: a copy would take the memory of the tables again.
    params, curves, speed = loop.run(folder, describe, shapes, progress, in_background=False)
    best_step, best_metric = curves.values(best=loop.keep_best)
    return FitResult(params, curves.history(), best_step, best_metric, speed)


def _default_row_optimizer() -> RowOptimizer:
    # A row's gradient of a mean over the batch is tiny: optax's defaults, an accumulator of 0.1 and ε = 1e-7, would
    # dominate its square.
    return embedding.adagrad(0.05, rowwise=True, initial_accumulator_value=0.0, eps=1e-20)


def _sample(key: jax.Array, validation: Sessions, num: int) -> Sessions:
    """Returns a random sample of the sessions, in their order."""
    if len(validation) <= num:
        return validation
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    rows = np.sort(rng.choice(len(validation), num, replace=False))
    return jax.tree.map(np.asarray, validation).take(rows)


def _to_host(stepper: LazyRows, params: Params) -> Params:
    """Copies parameters to the host of every process, in the model's own shapes."""
    return jax.tree.map(np.asarray, params) if stepper.layout is None else stepper.layout.to_host(params)


def _unpad(stepper: LazyRows, params: Params) -> Params:
    """Returns parameters in the model's own shapes: sharded where no rows are padded, otherwise on the host.

    They are never replicated on the devices, where there may be no memory for whole tables.
    """
    is_padded = stepper.layout is not None and stepper.layout.num_padded_rows != stepper.layout.num_rows
    return _to_host(stepper, params) if is_padded else params
