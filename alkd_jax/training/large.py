"""Training on catalogues so large that there is no memory for a gradient of the size of the item tables."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from alkd_jax import objectives, sharding
from alkd_jax.models import Encoder, Params, init_params
from alkd_jax.ops import embedding
from alkd_jax.ops.embedding import RowOptimizer
from alkd_jax.training import gathered_rows
from alkd_jax.training.arguments import check_arguments, check_examples, device_put, select_examples
from alkd_jax.training.checkpoints import TrainingFolder
from alkd_jax.training.examples import AnyExamples
from alkd_jax.training.fit import default_optimizer, seed_keys
from alkd_jax.training.loop import Report, RowTrainingLoop, SeedResult
from alkd_jax.training.results import FitResult, History, Progress
from alkd_jax.training.steppers import lazy_rows
from alkd_jax.training.steppers.dense import TrainingData
from alkd_jax.training.steppers.row_sparse_adam import Adam
from alkd_jax.types import Sequences, Sessions

_PER_ITEM = ("log_frequency",)
"""The ``loss_inputs`` that have one row for each item."""

_FULL_CATALOGUE_LOSSES = (objectives.full_softmax, objectives.distilled_softmax, objectives.self_normalized_softmax)


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
    make_loss: gathered_rows.MakeLoss = objectives.in_batch_loss,
    loss_inputs: Any = None,
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
        examples: as in ``fit``, but the same for all seeds.
        make_loss: binds an in-batch or sampled loss to a backbone, such as
            ``functools.partial(objectives.sampled_loss, kind="softmax", num_negatives=64)``.
        loss_inputs: a dictionary that the loss reads from ``batch.loss_inputs``. "sampler" is a sampler of negatives,
            "log_frequency" has one row for each item, and other entries are passed on as they are.
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
        keep_best: whether to return the parameters of the best validation rather than the last ones. Their copy is kept
            on the host, or on a mesh or a CPU beside the tables.
        progress: as in ``fit``; where there are several seeds, the numbers of all but the current one are NaN.
        checkpoints: as in ``fit``, with a folder for each seed. Training waits while its state is saved, since a copy
            would take the memory of the tables again.
        mesh: the devices to train on, as in ``fit``. Only the rows of a batch and their gradient are sent between them.

    Returns:
        The result as of ``fit``. Only where ``seeds`` is given do parameters have a seed axis, and they are then on the
        host. Without ``seeds``, tables on a mesh stay sharded if the model axis divides V + 1, and are returned on the
        host if not.

    Raises:
        ValueError: as in ``fit``; or the loss reads the whole catalogue, or ``loss_inputs`` holds lists of items.
        FloatingPointError: the training loss is not finite.
    """
    _check_loss(make_loss, loss_inputs, model)
    sizes = {"batch_size": batch_size, "max_steps": max_steps, "steps_per_validation": steps_per_validation}
    sizes |= {"patience": patience, "recall_at": recall_at, "validation_batch": validation_batch}
    check_arguments(model, train, validation, sizes | {"validation_sessions": validation_sessions})
    examples, source = select_examples(train, targets, sequences, examples)
    check_examples(model, source, examples)
    initializer = _Initializer(model, train.items.shape[1], jnp.dtype(table_dtype), initial)
    train_step = _train_step(initializer, make_loss, row_optimizer, optimizer, mesh, examples, sizes)
    sample = _sample(jax.random.fold_in(key, 1), validation, validation_sessions)
    data = device_put(TrainingData(examples, source, sample, loss_inputs), train_step.layout)
    run = functools.partial(_run_seed, train_step, initializer, data, max_steps, patience, keep_best, checkpoints)
    return _run_seeds(train_step, key, seeds, run, keep_best, max_steps, progress)


@dataclasses.dataclass(frozen=True)
class _Initializer:
    """Makes the initial state of a seed.

    Attributes:
        model: a backbone.
        length: L, the number of positions that random parameters are drawn for.
        dtype: the type that tables are stored in.
        initial: the initial parameters, if given.
    """

    model: Any
    length: int
    dtype: Any
    initial: Params | None

    def init(self, train_step: lazy_rows.RowTrainStep, key: jax.Array) -> lazy_rows.RowTrainState:
        """Returns the state before the first step."""
        if self.initial is None:
            return train_step.init(_random_params(train_step, key, self.length, self.dtype))
        # The state is donated from step to step; the caller's arrays must not be.
        copies = {name: jnp.array(leaf, dtype, copy=True) for name, (leaf, dtype) in self._given_params().items()}
        layout = train_step.layout
        return train_step.init({"params": copies} if layout is None else layout.device_put({"params": copies}))

    def shapes(self, train_step: lazy_rows.RowTrainStep, key: jax.Array) -> lazy_rows.RowTrainState:
        """Returns the shapes of the state."""
        if self.initial is None:
            return jax.eval_shape(lambda: self.init(train_step, key))
        shapes = {name: jax.ShapeDtypeStruct(leaf.shape, dtype) for name, (leaf, dtype) in self._given_params().items()}
        pad_rows = train_step.layout.pad_rows if train_step.layout is not None else lambda params: params
        return jax.eval_shape(lambda params: train_step.init(pad_rows(params)), {"params": shapes})

    def _given_params(self) -> dict[str, tuple[Any, Any]]:
        """Returns the given parameters and the types they are stored in."""
        tables, params = lazy_rows.item_tables(self.model), self.initial["params"]  # type: ignore[index]
        return {name: (leaf, self.dtype if name in tables else leaf.dtype) for name, leaf in params.items()}


def _train_step(
    initializer: _Initializer,
    make_loss: gathered_rows.MakeLoss,
    row_optimizer: RowOptimizer | None,
    optimizer: optax.GradientTransformation | None,
    mesh: jax.sharding.Mesh | None,
    examples: AnyExamples,
    sizes: dict[str, int],
) -> lazy_rows.RowTrainStep:
    """Returns the static arguments of the compiled programs."""
    model = initializer.model
    shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), model, length=initializer.length))
    return lazy_rows.RowTrainStep(
        binding=gathered_rows.LossBinding(model, make_loss, _PER_ITEM),
        row_optimizer=_default_row_optimizer() if row_optimizer is None else row_optimizer,
        optimizer=default_optimizer(Adam(1e-3)) if optimizer is None else optimizer,
        batch_size=min(sizes["batch_size"], examples.weight.shape[-1]),
        steps=min(sizes["steps_per_validation"], sizes["max_steps"]),
        recall_at=sizes["recall_at"],
        validation_batch=sizes["validation_batch"],
        layout=sharding.layout_of(shapes, model.num_items + 1, mesh),
    )


def _run_seed(
    train_step: lazy_rows.RowTrainStep,
    initializer: _Initializer,
    data: TrainingData,
    max_steps: int,
    patience: int,
    keep_best: bool,
    checkpoints: TrainingFolder | None,
    seed: int,
    key: jax.Array,
    report: Report,
) -> SeedResult:
    """Trains one seed."""
    init_key, run_key = device_put(tuple(jax.random.split(key)), train_step.layout)
    init = functools.partial(initializer.init, train_step, init_key)
    shapes = initializer.shapes(train_step, init_key)
    loop = RowTrainingLoop(train_step, run_key, init, shapes, data, max_steps, patience, keep_best)
    if checkpoints is not None:
        checkpoints = dataclasses.replace(checkpoints, path=checkpoints.path / f"seed_{seed}")
    with loop.open_checkpoints(checkpoints, key, initializer.initial, initializer.length) as checkpointer:
        return loop.run(checkpointer, report)


def _run_seeds(
    train_step: lazy_rows.RowTrainStep,
    key: jax.Array,
    seeds: int | Sequence[int] | None,
    run: Callable[[int, jax.Array, Report], SeedResult],
    keep_best: bool,
    max_steps: int,
    progress: Callable[[Progress], None] | None,
) -> FitResult:
    """Trains all seeds one after the other; of a finished seed only the resulting parameters are kept, on the host."""
    numbers = [0] if seeds is None else list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    results: list[SeedResult] = []
    stacked: dict[str, np.ndarray] = {}
    for index, (number, seed_key) in enumerate(zip(numbers, seed_keys(key, numbers), strict=True)):
        result = run(number, seed_key, _reporter(progress, max_steps, len(numbers), index))
        if seeds is not None:
            _write_seed(stacked, _to_host(train_step, result.params), index, len(numbers))
            result = result._replace(params=None)
        results.append(result)
    params = _unpad_outputs(train_step, results[0].params) if seeds is None else {"params": stacked}
    return _fit_result(params, results, keep_best)


def _default_row_optimizer() -> RowOptimizer:
    # A row's gradient of a mean over the batch is tiny: optax's defaults, an accumulator of 0.1 and ε = 1e-7, would
    # dominate its square.
    return embedding.adagrad(0.05, rowwise=True, initial_accumulator_value=0.0, eps=1e-20)


def _check_loss(make_loss: gathered_rows.MakeLoss, loss_inputs: Any, model: Encoder) -> None:
    if getattr(make_loss, "func", make_loss) in _FULL_CATALOGUE_LOSSES:
        raise ValueError("make_loss is a loss over the whole catalogue; expected an in-batch or a sampled loss")
    if loss_inputs is not None and not isinstance(loss_inputs, dict):
        raise ValueError(f"loss_inputs is a {type(loss_inputs).__name__}; expected a dictionary")
    for name, value in (loss_inputs or {}).items():
        if name == "list_items":
            raise ValueError("loss_inputs has list_items; expected no lists of items in fit_large")
        if name in _PER_ITEM and len(value) != model.num_items + 1:
            raise ValueError(f"loss_inputs has {len(value)} rows in {name}; expected {model.num_items + 1}")


def _sample(key: jax.Array, validation: Sessions, num: int) -> Sessions:
    """Returns a random sample of the sessions, in their order."""
    if len(validation) <= num:
        return validation
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    rows = np.sort(rng.choice(len(validation), num, replace=False))
    return jax.tree.map(np.asarray, validation).take(rows)


def _random_params(train_step: lazy_rows.RowTrainStep, key: jax.Array, length: int, dtype: Any) -> Params:
    """Returns random parameters, with the item tables in this type, on a mesh sharded."""
    tables = lazy_rows.item_tables(train_step.model)
    # One program for each table: the random bits of all tables together would need the most memory of the whole run.
    programs = [((name,), dtype) for name in tables] + [(tables, None)]
    parts = [_init_part(key, train_step, length, names, part_dtype) for names, part_dtype in programs]
    return {"params": {name: leaf for part in parts for name, leaf in part.items()}}


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _init_part(
    key: jax.Array, train_step: lazy_rows.RowTrainStep, length: int, names: tuple[str, ...], dtype: Any
) -> dict[str, jax.Array]:
    """Returns the parameters of these names in this type; without a type, all parameters except these."""
    params = init_params(key, train_step.model, length=length)["params"]
    if dtype is None:
        part = {name: leaf for name, leaf in params.items() if name not in names}
    else:
        part = {name: params[name].astype(dtype) for name in names}
    return part if train_step.layout is None else train_step.layout.pad_rows({"params": part})["params"]


def _reporter(progress: Callable[[Progress], None] | None, max_steps: int, num_seeds: int, index: int) -> Report:
    """Returns a function that passes one seed's numbers on to ``progress``."""

    def report(step: int, loss: float, recall: float, speed: float, is_active: bool) -> None:
        if progress is None:
            return
        losses, recalls = np.full((2, num_seeds), np.nan)
        losses[index], recalls[index] = loss, recall
        progress(Progress(step, max_steps, losses, recalls, speed, num_seeds - 1 - index + is_active))

    return report


def _to_host(train_step: lazy_rows.RowTrainStep, params: Params) -> dict[str, np.ndarray]:
    """Copies parameters to the host of every process, in the model's own shapes."""
    layout = train_step.layout
    return (jax.tree.map(np.asarray, params) if layout is None else layout.to_host(params))["params"]


def _unpad_outputs(train_step: lazy_rows.RowTrainStep, params: Params) -> Params:
    """Returns parameters in the model's own shapes: sharded where no rows are padded, otherwise on the host.

    They are never replicated on the devices, where there may be no memory for whole tables.
    """
    if train_step.layout is None or train_step.layout.num_padded_rows == train_step.layout.num_rows:
        return params
    return {"params": _to_host(train_step, params)}


def _write_seed(stacked: dict[str, np.ndarray], params: dict[str, np.ndarray], index: int, num_seeds: int) -> None:
    """Writes one seed's parameters to arrays with a seed axis, which are allocated at the first call."""
    for name, leaf in params.items():
        stacked.setdefault(name, np.empty((num_seeds, *leaf.shape), leaf.dtype))[index] = leaf


def _fit_result(params: Params, results: Sequence[SeedResult], keep_best: bool) -> FitResult:
    """Combines the results of all seeds; the curves of seeds that stopped early end with NaN."""
    curves = [result.curves for result in results]
    steps = max((curve.steps for curve in curves), key=len)

    def padded(values: list[float]) -> list[float]:
        return values + [np.nan] * (len(steps) - len(values))

    losses = np.asarray([padded(curve.losses) for curve in curves])
    recalls = np.asarray([padded(curve.recalls) for curve in curves])
    best_step = np.asarray([curve.steps[curve.best if keep_best else -1] for curve in curves])
    best_metric = np.asarray([curve.recalls[curve.best] for curve in curves])
    seconds = sum(result.seconds for result in results)
    speed = sum(result.timed_examples for result in results) / seconds if seconds else float("nan")
    return FitResult(params, History(np.asarray(steps), losses, recalls), best_step, best_metric, speed)
