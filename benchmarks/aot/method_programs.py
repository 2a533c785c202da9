"""The steps of the distillation methods by case, with the loss that each method makes on small data."""

import unittest.mock
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import alkd_jax as alkd
from alkd_jax import distillation, training
from alkd_jax.checks import check_one_of
from alkd_jax.distillation import alkdrec, de, dllm2rec, dsl, ftd, htd, rd, unkd
from alkd_jax.ops.row_sparse_adam import Adam
from alkd_jax.training import interval as programs
from alkd_jax.training.fit import default_optimizer
from alkd_jax.training.steppers.dense import Dense

from .abstract import Program, abstract_key, array
from .cases import Case
from .training_programs import abstract_params, create_backbone, interval_plan, largest_array_bytes, training_data

METHODS = ("DE", "FTD", "HTD", "unKD", "DSL", "DLLM2Rec", "RD", "ALKDRec")
_STUDENT_WIDTH, _TEACHER_WIDTH = 10, 100
_LIST_LENGTH = 25


class _Captured(Exception):
    """Ends a method's call where it would begin to train."""


def method(case: Case) -> Program:
    """Returns the program of a method's steps.

    Args:
        case: of the kind "method".

    Raises:
        ValueError: the method is unknown.
    """
    check_one_of("name", case["name"], METHODS)
    dataset = alkd.data.synthetic(num_items=case["V"], num_sessions=2_000)
    captured = _fit_call(case["name"], case["backbone"], dataset)
    model = captured["model"]
    init = captured.get("extra_params_init")
    extra = {} if init is None else jax.eval_shape(lambda: init(jax.random.key(0), model))
    optimizer = captured.get("optimizer") or default_optimizer(Adam(1e-3))
    plan = interval_plan(Dense(model, optimizer, tuple(sorted(extra))), case["steps"])
    params = {**abstract_params(model), **extra}
    state = jax.eval_shape(lambda p: programs.init_state(plan, p), params)
    loss = captured.get("loss") or alkd.objectives.InBatchBPR(model)
    data = training_data(case["V"], loss, len(dataset.train), len(dataset.validation))
    arguments = plan, state, abstract_key(), data, array(dtype=jnp.int32)
    return Program(programs.take_steps, arguments, largest_array_bytes(state), steps=plan.steps)


def _fit_call(name: str, backbone: str, dataset: alkd.Dataset) -> dict[str, Any]:
    """The model and the options with which a method calls :func:`alkd_jax.training.fit`."""
    captured: dict[str, Any] = {}

    def capture(key: Any, model: Any, train: Any, validation: Any, **options: Any) -> None:
        captured.update(options, model=model)
        raise _Captured

    with unittest.mock.patch.object(training, "fit", capture):
        try:
            _call(name, backbone, dataset)()
        except _Captured:
            return captured
    raise RuntimeError(f"{name} returned without a call of training.fit; expected one")


def _call(name: str, backbone: str, dataset: alkd.Dataset) -> Callable[[], Any]:
    model, teacher = (
        create_backbone(backbone, num_items=dataset.num_items, dim=dim) for dim in (_STUDENT_WIDTH, _TEACHER_WIDTH)
    )
    student_params, teacher_params = (
        jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), abstract_params(m)) for m in (model, teacher)
    )
    key, splits = jax.random.key(0), (dataset.train, dataset.validation)
    items = np.random.default_rng(0).permuted(
        np.tile(np.arange(1, dataset.num_items + 1, dtype=np.int32), (len(dataset.train), 1)), axis=1
    )
    rankings = alkd.Rankings.from_top_k(dataset.train.session_id, items[:, :_LIST_LENGTH])
    if name == "ALKDRec":
        return lambda: alkdrec.distill(
            key, model, jax.tree.map(lambda leaf: leaf[None], student_params), *splits, rankings
        )
    if name == "DLLM2Rec":
        return lambda: dllm2rec.distill(key, model, rankings, *splits)
    if name == "DSL":
        return lambda: dsl.distill(key, teacher, *splits)
    distill = {"DE": de, "FTD": ftd, "HTD": htd, "unKD": unkd, "RD": rd}[name].distill
    return lambda: distill(key, model, distillation.TeacherModel(teacher, teacher_params), *splits)
