"""The programs of a mesh of eight devices by case."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import alkd_jax as alkd
from alkd_jax import losses, objectives, samplers, scoring, sharding
from alkd_jax.checks import check_one_of
from alkd_jax.evaluation import evaluation
from alkd_jax.ops import embedding
from alkd_jax.ops.row_sparse_adam import Adam
from alkd_jax.selection import sampling
from alkd_jax.training import interval as programs
from alkd_jax.training.arrays import TrainingData
from alkd_jax.training.examples import Examples
from alkd_jax.training.fit import default_optimizer
from alkd_jax.training.interval import Interval
from alkd_jax.training.steppers.dense import Dense
from alkd_jax.training.steppers.lazy_rows import LazyRows

from .abstract import Program, abstract_key, array, on_device, sessions
from .cases import Case
from .targets import Target
from .training_programs import abstract_params, row_optimizer

_Call: TypeAlias = tuple[Any, tuple[Any, ...], dict[str, Any]]
"""A jitted function, its arguments and its keyword arguments."""

_NUM_SESSIONS = 100_000, 2048
_STEPS = 20
_SELECTED_SESSIONS = 10**8


def build(case: Case, target: Target) -> Program:
    """Returns the program of a case of the kind "sharded".

    Args:
        case: the case.
        target: the accelerator.

    Raises:
        ValueError: the program or the number of devices is unknown.
    """
    check_one_of("program", case["program"], _PROGRAMS)
    if case["devices"] not in target.shapes or case["devices"] < 4:
        raise ValueError(f"devices is {case['devices']}; expected 8")
    mesh = make_mesh(target.devices(case["devices"]), 2, case["devices"] // 2)
    function, arguments, options = _PROGRAMS[case["program"]](case, mesh)
    steps = _STEPS if case["program"] in ("interval", "fit_large") else None
    return Program(function, arguments, 4 * (case["V"] + 1) * case["D"], options, steps=steps, mesh=mesh)


def make_mesh(devices: Any, data: int, model: int) -> Mesh:
    """Returns a mesh of devices that need not be there."""
    axes = sharding.DATA, sharding.MODEL
    return Mesh(np.asarray(devices).reshape(data, model), axes, axis_types=(AxisType.Auto,) * 2)


def step(case: Case, mesh: Mesh, *, batch: int) -> Program:
    """Returns the program of one step of training.

    Args:
        case: of the program "interval" or "fit_large".
        mesh: the devices.
        batch: examples of the step, on all devices together.
    """
    function, arguments, options = _PROGRAMS[case["program"]](case, mesh, batch, 1)
    return Program(function, arguments, 4 * (case["V"] + 1) * case["D"], options, steps=1, mesh=mesh)


def _replicated(mesh: Mesh, tree: Any) -> Any:
    return on_device(tree, NamedSharding(mesh, P()))


def _rows(mesh: Mesh, case: Case, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    """The description of a table whose rows are divided along the model axis."""
    num_rows = case["V"] + 1 + -(case["V"] + 1) % mesh.shape[sharding.MODEL]
    return on_device(array(num_rows, case["D"], dtype=dtype), NamedSharding(mesh, P(sharding.MODEL)))


def _batch(mesh: Mesh, *arrays: jax.ShapeDtypeStruct) -> Any:
    return on_device(arrays, NamedSharding(mesh, P(sharding.DATA)))


def _state(layout: sharding.Layout, shapes: Any) -> Any:
    """Descriptions of a state whose tables are divided by rows."""
    return jax.tree.map(lambda leaf: on_device(leaf, layout.sharding_of(leaf)), shapes)


def _data(mesh: Mesh, loss: Any, batch: int) -> TrainingData:
    num, num_validation = _NUM_SESSIONS
    num = max(num, 2 * batch)
    examples = Examples(array(num, dtype=jnp.int32), array(num, dtype=jnp.int32), array(num))
    return _replicated(mesh, TrainingData(examples, sessions(num), sessions(num_validation), loss))


def _model_and_layout(case: Case, mesh: Mesh) -> tuple[Any, sharding.Layout, Any]:
    model = alkd.models.create("fpmc", num_items=case["V"], dim=case["D"])
    shapes = abstract_params(model)
    layout = sharding.layout_of(shapes, case["V"] + 1, mesh)
    assert layout is not None
    padded = jax.tree.map(lambda leaf: array(layout.num_padded_rows, *leaf.shape[1:], dtype=leaf.dtype), shapes)
    return model, layout, padded


def _interval(case: Case, mesh: Mesh, batch: int = 1024, steps: int = _STEPS) -> _Call:
    model, layout, params = _model_and_layout(case, mesh)
    stepper = Dense(model, default_optimizer(Adam(1e-3)), layout=layout)
    plan = Interval(stepper, batch, steps, recall_at=25, validation_batch=512, has_seed_axis=True)
    stacked = _state(layout.with_seed_axis, jax.tree.map(lambda leaf: array(1, *leaf.shape), params))
    with sharding.use_mesh(mesh):
        state = _state(layout.with_seed_axis, jax.eval_shape(lambda p: programs.init_state(plan, p), stacked))
    keys, step = _replicated(mesh, (abstract_key(1), array(dtype=jnp.int32)))
    data = _data(mesh, objectives.InBatchBPR(model), batch)
    return programs.take_steps, (plan, state, keys, data, step), {}


def _fit_large(case: Case, mesh: Mesh, batch: int = 1024, steps: int = _STEPS) -> _Call:
    model, layout, params = _model_and_layout(case, mesh)
    stepper = LazyRows(model, row_optimizer("rowwise_adagrad"), default_optimizer(Adam(1e-3)), layout)
    plan = Interval(stepper, batch, steps, recall_at=25, validation_batch=512)
    with sharding.use_mesh(mesh):
        state = _state(layout, jax.eval_shape(stepper.init, _state(layout, params)))
    key, step = _replicated(mesh, (abstract_key(), array(dtype=jnp.int32)))
    loss = objectives.SampledLoss(model, samplers.uniform(case["V"]), "softmax", num_negatives=64)
    data = _data(mesh, loss, batch)
    return programs.take_steps, (plan, state, key, data, step), {}


def _update(case: Case, mesh: Mesh) -> _Call:
    optimizer, table = embedding.adam(1e-3), _rows(mesh, case)
    by_rows = NamedSharding(mesh, P(sharding.MODEL))
    slots = jax.tree.map(
        lambda leaf: on_device(leaf, by_rows if leaf.ndim else NamedSharding(mesh, P())),
        jax.eval_shape(optimizer.init, table),
    )
    ids, gradients = _batch(mesh, array(4096, dtype=jnp.int32), array(4096, case["D"]))
    update = jax.jit(functools.partial(embedding.update_sharded, optimizer, mesh), donate_argnums=(0, 1))
    return update, (table, slots, ids, gradients), {}


def _ranks(case: Case, mesh: Mesh) -> _Call:
    model, layout, params = _model_and_layout(case, mesh)
    batch = _replicated(mesh, sessions(512))
    options = {"is_released": False, "chunk_size": None, "k": 0}
    state = _state(layout, params)
    return evaluation._count_batch, (model, layout, state, batch.items, batch.mask, batch.target, batch.items), options


def _top_k(case: Case, mesh: Mesh) -> _Call:
    vectors, exclude = _batch(mesh, array(512, case["D"]), array(512, 10, dtype=jnp.int32))
    search = jax.jit(lambda u, e, y: scoring.top_k(u, y, 100, exclude=e, mesh=mesh))
    table = _rows(mesh, case)
    return search, (vectors, exclude, table), {}


def _select(case: Case, mesh: Mesh) -> _Call:
    size = sampling.RANDOM_BLOCK
    num_blocks = -(-_SELECTED_SESSIONS // (size * mesh.size)) * mesh.size
    blocks = on_device(array(num_blocks, size), NamedSharding(mesh, P((sharding.DATA, sharding.MODEL))))
    key = _replicated(mesh, abstract_key())
    return sampling._select_on_mesh, (key, blocks), {"num": 1_000_000, "mesh": mesh}


def _chunked_softmax(case: Case, mesh: Mesh) -> _Call:
    vectors, target = _batch(mesh, array(1024, case["D"]), array(1024, dtype=jnp.int32))
    table = _rows(mesh, dataclasses.replace(case, options={**case.options, "V": case["V"] - 1}))
    loss = functools.partial(losses.full_softmax, chunk_size=8192)
    gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    return gradient, (vectors, table, target), {}


_PROGRAMS: dict[str, Callable[..., _Call]] = {
    "interval": _interval,
    "fit_large": _fit_large,
    "update": _update,
    "ranks": _ranks,
    "top_k": _top_k,
    "select": _select,
    "chunked_softmax": _chunked_softmax,
}
