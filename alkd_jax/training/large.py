"""Training on catalogues whose tables leave no room for a gradient of their size."""

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
from alkd_jax.training import gathered
from alkd_jax.training.checkpoints import TrainingFolder
from alkd_jax.training.examples import AnyExamples
from alkd_jax.training.fit import _check, _check_examples, _default_optimizer, _placed, _what_to_learn, seed_keys
from alkd_jax.training.loop import Outcome, RowRun, Tell
from alkd_jax.training.results import FitResult, History, Progress
from alkd_jax.training.steppers import lazy_rows
from alkd_jax.training.steppers.dense import TrainingData
from alkd_jax.training.steppers.row_sparse_adam import Adam
from alkd_jax.types import Sequences, Sessions

_PER_ITEM = ("log_frequency",)
"""What of ``loss_inputs`` has a row an item."""
_WHOLE_CATALOGUE = (objectives.full_softmax, objectives.distilled_softmax, objectives.self_normalized_softmax)


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
    loss_of: gathered.LossOf = objectives.in_batch_loss,
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
    """:func:`alkd_jax.training.fit` for a large catalogue: a step costs what its batch costs.

    Only the rows of the item tables that a batch names are read, differentiated and written; no gradient and no score
    of the catalogue's size is ever made, tables and slots are changed in place. With SGD or Adagrad it is the training
    :func:`~alkd_jax.training.fit` does, step for step; Adam is lazy, see :mod:`alkd_jax.ops.embedding`.

    Args:
        key: consumed; with the seed's number it decides initial values, batches, dropout and draws as in ``fit``.
        model: a backbone.
        train: sessions to learn from.
        validation: sessions that decide when to stop.
        seeds: how many seeds, or their numbers: trained one after the other, since memory is for the tables of one.
            By default seed 0 alone, and parameters without a seed axis.
        targets: with ``sequences`` and ``examples`` as in ``fit``; all seeds have the same examples.
        loss_of: gives a loss for a backbone: in-batch or sampled, such as
            ``functools.partial(objectives.sampled_loss, kind="softmax", num_negatives=64)``.
        loss_inputs: a dictionary that the loss finds in ``batch.loss_inputs``; "sampler" may be drawn from,
            "log_frequency" has a row an item, the rest is handed on as it is.
        initial: parameters to start from, without a seed axis; drawn afresh if not given.
        row_optimizer: of the item tables; default row-wise Adagrad at rate 0.05 from an accumulator of 0.
        optimizer: of the other parameters; default Adam at rate 1e-3.
        table_dtype: tables are stored in; bfloat16 rows are rounded at random, arithmetic is in float32.
        batch_size: with ``max_steps``, ``steps_per_validation``, ``patience``, ``recall_at`` and ``validation_batch``
            as in ``fit``.
        validation_sessions: at most so many sessions, drawn at random, are ranked.
        keep_best: returns the parameters of the best validation, of which a copy is kept, on the host, or on a mesh in
            parts beside the tables; else the last.
        progress: as in ``fit``; where there are several seeds, numbers of all but one are NaN.
        checkpoints: as in ``fit``, each seed's in a folder of its own. Training waits while its state is saved, since a
            copy would take as much memory again as the tables.
        mesh: devices to train on, as in ``fit``. What travels is a batch's rows and their gradient.

    Returns:
        As ``fit``. Parameters have a seed axis, and lie on the host, only where ``seeds`` is given. On a mesh, tables
        of one seed stay in parts if their rows allow it, and are handed back on the host if not.

    Raises:
        ValueError: as ``fit``; the loss reads the whole catalogue; ``loss_inputs`` holds lists of items.
        FloatingPointError: the training loss is not finite.
    """
    _check_large(loss_of, loss_inputs, model)
    sizes = {"batch_size": batch_size, "max_steps": max_steps, "steps_per_validation": steps_per_validation}
    sizes |= {"patience": patience, "recall_at": recall_at, "validation_batch": validation_batch}
    _check(model, train, validation, sizes | {"validation_sessions": validation_sessions})
    examples, source = _what_to_learn(train, targets, sequences, examples)
    _check_examples(model, source, examples)
    first = _First(model, train.items.shape[1], jnp.dtype(table_dtype), initial)
    program = _program(first, loss_of, row_optimizer, optimizer, mesh, examples, sizes)
    sample = _sample(jax.random.fold_in(key, 1), validation, validation_sessions)
    material = _placed(TrainingData(examples, source, sample, loss_inputs), program.layout)
    run = functools.partial(_run, program, first, material, max_steps, patience, keep_best, checkpoints)
    return _one_after_another(program, key, seeds, run, keep_best, max_steps, progress)


@dataclasses.dataclass(frozen=True)
class _First:
    """What a seed starts from: a backbone, the length of its input, the type of its tables, parameters if given."""

    model: Any
    length: int
    dtype: Any
    initial: Params | None

    def state(self, program: lazy_rows.RowProgram, key: jax.Array) -> lazy_rows.RowState:
        """The state before the first step."""
        if self.initial is None:
            return program.start(_first_params(program, key, self.length, self.dtype))
        # The state is donated from step to step; the caller's arrays must not be.
        copies = {name: jnp.array(leaf, dtype, copy=True) for name, (leaf, dtype) in self._given().items()}
        return program.start({"params": copies} if program.layout is None else program.layout.place({"params": copies}))

    def shapes(self, program: lazy_rows.RowProgram, key: jax.Array) -> lazy_rows.RowState:
        """The shapes of the state."""
        if self.initial is None:
            return jax.eval_shape(lambda: self.state(program, key))
        given = {name: jax.ShapeDtypeStruct(leaf.shape, dtype) for name, (leaf, dtype) in self._given().items()}
        fill = program.layout.pad_rows if program.layout is not None else lambda params: params
        return jax.eval_shape(lambda params: program.start(fill(params)), {"params": given})

    def _given(self) -> dict[str, tuple[Any, Any]]:
        """The parameters given, and the types they are stored in."""
        tables, given = lazy_rows.item_tables(self.model), self.initial["params"]  # type: ignore[index]
        return {name: (leaf, self.dtype if name in tables else leaf.dtype) for name, leaf in given.items()}


def _program(
    first: _First,
    loss_of: gathered.LossOf,
    row_optimizer: RowOptimizer | None,
    optimizer: optax.GradientTransformation | None,
    mesh: jax.sharding.Mesh | None,
    examples: AnyExamples,
    sizes: dict[str, int],
) -> lazy_rows.RowProgram:
    """What is compiled in."""
    model = first.model
    shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), model, length=first.length))
    return lazy_rows.RowProgram(
        binding=gathered.Binding(model, loss_of, _PER_ITEM),
        rows=_default_rows() if row_optimizer is None else row_optimizer,
        optimizer=_default_optimizer(Adam(1e-3)) if optimizer is None else optimizer,
        batch_size=min(sizes["batch_size"], examples.weight.shape[-1]),
        steps=min(sizes["steps_per_validation"], sizes["max_steps"]),
        recall_at=sizes["recall_at"],
        validation_batch=sizes["validation_batch"],
        layout=sharding.layout_of(shapes, model.num_items + 1, mesh),
    )


def _run(
    program: lazy_rows.RowProgram,
    first: _First,
    material: TrainingData,
    max_steps: int,
    patience: int,
    keep_best: bool,
    checkpoints: TrainingFolder | None,
    number: int,
    key: jax.Array,
    tell: Tell,
) -> Outcome:
    """One seed."""
    init_key, run_key = _placed(tuple(jax.random.split(key)), program.layout)
    start = functools.partial(first.state, program, init_key)
    shapes = first.shapes(program, init_key)
    run = RowRun(program, run_key, start, shapes, material, max_steps, patience, keep_best)
    if checkpoints is not None:
        checkpoints = dataclasses.replace(checkpoints, path=checkpoints.path / f"seed_{number}")
    with run.folder(checkpoints, key, first.initial, first.length) as kept:
        return run.run(kept, tell)


def _one_after_another(
    program: lazy_rows.RowProgram,
    key: jax.Array,
    seeds: int | Sequence[int] | None,
    run: Callable[[int, jax.Array, Tell], Outcome],
    keep_best: bool,
    max_steps: int,
    progress: Callable[[Progress], None] | None,
) -> FitResult:
    """Every seed, and what they came to; of those that are done, only the best parameters are held, on the host."""
    numbers = [0] if seeds is None else list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    outcomes: list[Outcome] = []
    stacked: dict[str, np.ndarray] = {}
    for place, (number, seed_key) in enumerate(zip(numbers, seed_keys(key, numbers), strict=True)):
        outcome = run(number, seed_key, _teller(progress, max_steps, len(numbers), place))
        if seeds is not None:
            _put(stacked, _on_host(program, outcome.params), place, len(numbers))
            outcome = outcome._replace(params=None)
        outcomes.append(outcome)
    params = _given_back(program, outcomes[0].params) if seeds is None else {"params": stacked}
    return _fitted(params, outcomes, keep_best)


def _default_rows() -> RowOptimizer:
    # A row's part of a mean over the batch is tiny: beside optax's accumulator of 0.1 or ε of 1e-7 it would not count.
    return embedding.adagrad(0.05, rowwise=True, initial_accumulator_value=0.0, eps=1e-20)


def _check_large(loss_of: gathered.LossOf, loss_inputs: Any, model: Encoder) -> None:
    if getattr(loss_of, "func", loss_of) in _WHOLE_CATALOGUE:
        raise ValueError("loss_of reads the whole catalogue; expected an in-batch or a sampled loss")
    if loss_inputs is not None and not isinstance(loss_inputs, dict):
        raise ValueError(f"aside is a {type(loss_inputs).__name__}; expected a dictionary")
    for name, value in (loss_inputs or {}).items():
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


def _first_params(program: lazy_rows.RowProgram, key: jax.Array, length: int, dtype: Any) -> Params:
    """Fresh parameters, the item tables in the type they are stored in, on a mesh every part where it lies."""
    tables = lazy_rows.item_tables(program.model)
    # A program a table: the random words of all of them at once would be the peak of the whole training.
    groups = [((name,), dtype) for name in tables] + [(tables, None)]
    drawn = [_drawn(key, program, length, names, kept) for names, kept in groups]
    return {"params": {name: leaf for group in drawn for name, leaf in group.items()}}


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _drawn(
    key: jax.Array, program: lazy_rows.RowProgram, length: int, names: tuple[str, ...], dtype: Any
) -> dict[str, jax.Array]:
    """These parameters in this type; without a type, all but these."""
    params = init_params(key, program.model, length=length)["params"]
    if dtype is None:
        chosen = {name: leaf for name, leaf in params.items() if name not in names}
    else:
        chosen = {name: params[name].astype(dtype) for name in names}
    return chosen if program.layout is None else program.layout.pad_rows({"params": chosen})["params"]


def _teller(progress: Callable[[Progress], None] | None, max_steps: int, num_seeds: int, place: int) -> Tell:
    """What a seed's run tells, as ``fit`` tells it."""

    def tell(step: int, loss: float, recall: float, speed: float, goes_on: bool) -> None:
        if progress is None:
            return
        losses, recalls = np.full((2, num_seeds), np.nan)
        losses[place], recalls[place] = loss, recall
        progress(Progress(step, max_steps, losses, recalls, speed, num_seeds - 1 - place + goes_on))

    return tell


def _on_host(program: lazy_rows.RowProgram, params: Params) -> dict[str, np.ndarray]:
    """Parameters in the model's own shapes, on the host of every process."""
    fetched = jax.tree.map(np.asarray, params) if program.layout is None else program.layout.to_host(params)
    return fetched["params"]


def _given_back(program: lazy_rows.RowProgram, params: Params) -> Params:
    """Parameters in the model's own shapes, tables in their parts where they are even; never whole on every device."""
    if program.layout is None or program.layout.rows_held == program.layout.num_rows:
        return params
    return {"params": _on_host(program, params)}


def _put(stacked: dict[str, np.ndarray], params: dict[str, np.ndarray], place: int, num_seeds: int) -> None:
    """Puts a seed's parameters in their place; untouched places take no memory yet."""
    for name, leaf in params.items():
        stacked.setdefault(name, np.empty((num_seeds, *leaf.shape), leaf.dtype))[place] = leaf


def _fitted(params: Params, outcomes: Sequence[Outcome], keep_best: bool) -> FitResult:
    """The outcome of all seeds; those that stopped early have NaN from there on."""
    curves = [outcome.curves for outcome in outcomes]
    steps = max((curve.steps for curve in curves), key=len)

    def filled(curve: list[float]) -> list[float]:
        return curve + [np.nan] * (len(steps) - len(curve))

    losses = np.asarray([filled(curve.losses) for curve in curves])
    recalls = np.asarray([filled(curve.recalls) for curve in curves])
    last = np.asarray([curve.steps[curve.best if keep_best else -1] for curve in curves])
    metric = np.asarray([curve.recalls[curve.best] for curve in curves])
    seconds = sum(outcome.seconds for outcome in outcomes)
    speed = sum(outcome.timed for outcome in outcomes) / seconds if seconds else float("nan")
    return FitResult(params, History(np.asarray(steps), losses, recalls), last, metric, speed)
