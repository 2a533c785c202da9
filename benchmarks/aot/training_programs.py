"""The programs of training by case: intervals, validations, and the parts of training on large catalogues."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import alkd_jax as alkd
from alkd_jax import objectives, samplers
from alkd_jax.checks import check_one_of
from alkd_jax.models import Encoder, Params
from alkd_jax.ops import embedding, platforms
from alkd_jax.ops.row_sparse_adam import Adam
from alkd_jax.training import interval as programs
from alkd_jax.training.arrays import TrainingData
from alkd_jax.training.examples import Examples
from alkd_jax.training.fit import cut_lengths, default_optimizer, for_platform
from alkd_jax.training.initial import LazyInitializer, _init_part
from alkd_jax.training.interval import Interval
from alkd_jax.training.shifted import ShiftedSequences, lengths_up_to
from alkd_jax.training.steppers.dense import Dense
from alkd_jax.training.steppers.lazy_rows import LazyRows, item_tables
from alkd_jax.types import Sequences

from .abstract import SESSION_LENGTH, Program, abstract_key, array, num_bytes, sessions
from .cases import Case
from .targets import Target

_NUM_SESSIONS = {8475: (7393, 2465), 26138: (12054, 4018)}
"""V → training and validation sessions of the authors' two datasets; other catalogues take the larger one's."""
_NUM_LARGE = 100_000, 1024
_NEGATIVES = 64


def create_backbone(name: str, **sizes: int) -> Encoder:
    """Returns a backbone by the name that a case has: that of the registry, or of the module."""
    return alkd.models.create({"late_interaction": "late"}.get(name, name), **sizes)


def abstract_params(model: Encoder) -> Params:
    """Returns the description of a backbone's parameters."""
    return jax.eval_shape(lambda: alkd.models.init_params(jax.random.key(0), model, length=SESSION_LENGTH))


def row_optimizer(name: str) -> embedding.RowOptimizer:
    """Returns an optimizer of rows by name.

    Raises:
        ValueError: the name is unknown.
    """
    optimizers = {
        "adam": lambda: embedding.adam(1e-3),
        "adagrad": lambda: embedding.adagrad(0.05),
        "rowwise_adagrad": lambda: embedding.adagrad(0.05, rowwise=True, initial_accumulator_value=0.0, eps=1e-20),
        "sgd": lambda: embedding.sgd(1e-2),
    }
    check_one_of("optimizer", name, optimizers)
    return optimizers[name]()


def loss_of(name: str, model: Encoder, num_items: int, *, targets: str = "last") -> objectives.Loss:
    """Returns an objective by the name that a case has; its arrays are real, since their values do not matter.

    Args:
        name: of the loss.
        model: the backbone.
        num_items: V.
        targets: the "last" item of a session, or "all" after its first.

    Raises:
        ValueError: the name is unknown, or targets are.
    """
    check_one_of("targets", targets, ("last", "all"))
    of_sessions = {
        "in_batch_bpr": lambda: objectives.InBatchBPR(model),
        "in_batch_softmax": lambda: objectives.InBatchSoftmax(model, np.zeros(num_items + 1, np.float32)),
        "softmax": lambda: objectives.FullSoftmax(model),
        "sampled_softmax": lambda: objectives.SampledLoss(
            model, samplers.uniform(num_items), "softmax", num_negatives=_NEGATIVES
        ),
    }
    of_positions = {
        "softmax": lambda: objectives.PositionSoftmax(model),
        "sampled_softmax": lambda: objectives.PositionSampledLoss(
            model, samplers.uniform(num_items), "softmax", num_negatives=_NEGATIVES
        ),
    }
    losses = of_positions if targets == "all" else of_sessions
    check_one_of("loss", name, losses)
    return losses[name]()


def interval(case: Case, target: Target) -> Program:
    """Returns the program of the steps between two validations."""
    state, data, plan, calls = _interval_of(case, target)
    keys = abstract_key(case["seeds"]) if plan.has_seed_axis else abstract_key()
    arguments = plan, state, keys, data, array(dtype=jnp.int32)
    return Program(programs.take_steps, arguments, largest_array_bytes(state), steps=plan.steps, calls=calls)


def validation(case: Case, target: Target) -> Program:
    """Returns the program of a validation."""
    options = {"loss": "in_batch_bpr", "targets": "last", "steps": 20, **case.options}
    state, data, plan, calls = _interval_of(Case("interval", options), target)
    return Program(programs.validate, (plan, state, data.validation), largest_array_bytes(state), calls=calls)


def _interval_of(case: Case, target: Target) -> tuple[Any, TrainingData, Interval, int]:
    """The state before an interval, what training reads, the static arguments, and how often the host calls."""
    model = create_backbone(case["backbone"], num_items=case["V"], dim=case["width"])
    data = training_data(case["V"], loss_of(case["loss"], model, case["V"], targets=case["targets"]))
    data = over_positions(data) if case["targets"] == "all" else data
    adam = Adam(1e-3)
    in_turn = platforms.trains_seeds_in_turn(target.platform)
    has_seed_axis = case["seeds"] > 1 and not in_turn
    params = abstract_params(model)
    of_seeds = jax.tree.map(lambda leaf: array(case["seeds"], *leaf.shape, dtype=leaf.dtype), params)
    stepper = Dense(model, default_optimizer(adam), lengths=cut_lengths(data.examples, has_seed_axis))
    plan = interval_plan(stepper, case["steps"], has_seed_axis=has_seed_axis)
    plan = for_platform(plan, adam, data, of_seeds, target.platform)
    params = of_seeds if has_seed_axis else params
    return jax.eval_shape(lambda p: programs.init_state(plan, p), params), data, plan, case["seeds"] if in_turn else 1


def fit_large(case: Case, target: Target) -> Program:
    """Returns a part of training with lazy rows: "step", "init", "validation" or "save"."""
    check_one_of("part", case["part"], ("step", "init", "validation", "save"))
    model = alkd.models.create("fpmc", num_items=case["V"], dim=case["D"])
    dtype = jnp.dtype(case["dtype"])
    packs = platforms.tiles_memory(target.platform)
    stepper = LazyRows(model, row_optimizer(case["optimizer"]), default_optimizer(Adam(1e-3)), packs=packs)
    plan = interval_plan(stepper, case["steps"])
    tables = item_tables(model)
    shapes = LazyInitializer(stepper, SESSION_LENGTH, dtype, None).shapes(jax.random.key(0))
    table_bytes = num_bytes(shapes.tables[tables[0]])
    if case["part"] == "init":
        return Program(
            _init_part, (stepper, SESSION_LENGTH, tables[:1], dtype, abstract_key()), table_bytes, calls=len(tables)
        )
    data = training_data(case["V"], loss_of("sampled_softmax", model, case["V"]), *_NUM_LARGE)
    if case["part"] == "validation":
        return Program(programs.validate, (plan, shapes, data.validation), table_bytes)
    if case["part"] == "save":
        return Program(programs.copy_params, (plan, shapes), table_bytes)
    arguments = plan, shapes, abstract_key(), data, array(dtype=jnp.int32)
    return Program(programs.take_steps, arguments, table_bytes, steps=plan.steps)


def interval_plan(stepper: Any, steps: int, *, has_seed_axis: bool = False) -> Interval:
    """Returns the static arguments of training with the paper's sizes."""
    return Interval(stepper, 1024, steps, recall_at=25, validation_batch=512, has_seed_axis=has_seed_axis)


def training_data(
    num_items: int, loss: Any, num_train: int | None = None, num_validation: int | None = None
) -> TrainingData:
    """Returns the description of what training reads; the loss's own arrays are real."""
    default_train, default_validation = _NUM_SESSIONS.get(num_items, _NUM_SESSIONS[26138])
    train, held_out = sessions(num_train or default_train), sessions(num_validation or default_validation)
    num = len(train)
    examples = Examples(array(num, dtype=jnp.int32), array(num, dtype=jnp.int32), array(num))
    return TrainingData(examples, train, held_out, loss)


def over_positions(data: TrainingData) -> TrainingData:
    """Returns the description of the same training where every item after the first is a target."""
    num = len(data.source)
    train = Sequences(array(num * (SESSION_LENGTH + 1), dtype=jnp.int32), array(num + 1, dtype=jnp.int32))
    lengths = lengths_up_to(SESSION_LENGTH)
    short = num // len(lengths)
    groups = (short,) * (len(lengths) - 1) + (num - short * (len(lengths) - 1),)
    examples = ShiftedSequences(array(num, dtype=jnp.int32), array(num), SESSION_LENGTH, lengths, groups)
    return dataclasses.replace(data, source=train, examples=examples)


def largest_array_bytes(state: Any) -> int:
    """Returns the bytes of the largest array of a state, an item table of all seeds."""
    return max(num_bytes(leaf) for leaf in jax.tree.leaves(state))
