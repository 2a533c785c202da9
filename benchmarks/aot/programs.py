"""The public programs by case, lowered for devices that need not be there."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from alkd_jax import losses, scoring
from alkd_jax.checks import check_one_of
from alkd_jax.evaluation import evaluation
from alkd_jax.maxmin import exact, instances
from alkd_jax.ops import packed_rows, platforms
from alkd_jax.selection import sampling

from . import method_programs, sharded_programs, training_programs
from .abstract import SESSION_LENGTH, Program, abstract_key, array, num_bytes, on_device, sessions
from .cases import Case
from .targets import Target

_CHUNK_ITEMS = 8192


def build(case: Case, target: Target) -> Program:
    """Returns the program of a case.

    Args:
        case: the case.
        target: the accelerator to compile for.

    Raises:
        ValueError: a name in the case is unknown.
    """
    if case.kind in _BUILDERS_FOR_TARGET:
        program = _BUILDERS_FOR_TARGET[case.kind](case, target)
    else:
        program = _BUILDERS[case.kind](case)
    if program.mesh is not None:
        return program
    device = SingleDeviceSharding(target.devices()[0])
    return dataclasses.replace(program, arguments=on_device(program.arguments, device))


def _top_k(case: Case) -> Program:
    vectors, table = array(case["B"], case["D"]), array(case["V"] + 1, case["D"])
    exclude = array(case["B"], SESSION_LENGTH, dtype=jnp.int32)
    search = jax.jit(lambda u, y, e: scoring.top_k(u, y, case["k"], exclude=e, precision=case["precision"]))
    table_bytes = 4 * (case["V"] + 1) * case["D"]
    return Program(search, (vectors, table, exclude), table_bytes, ideal_bytes=table_bytes)


def _ranks(case: Case) -> Program:
    vectors, table = array(case["B"], case["D"]), array(case["V"] + 1, case["D"])
    target, exclude = array(case["B"], dtype=jnp.int32), array(case["B"], SESSION_LENGTH, dtype=jnp.int32)
    options = {"precision": case["precision"]}
    rank = jax.jit(lambda u, y, t, e: scoring.full_catalogue_rank(u, y, t, exclude=e, **options))
    table_bytes = 4 * (case["V"] + 1) * case["D"]
    return Program(rank, (vectors, table, target, exclude), table_bytes, ideal_bytes=table_bytes)


def _evaluation(case: Case) -> Program:
    model = training_programs.create_backbone(case["backbone"], num_items=case["V"], dim=case["width"])
    params = training_programs.abstract_params(model)
    batch = sessions(512)
    options = {"is_released": False, "chunk_size": None, "k": 20}
    arguments = model, None, params, batch.items, batch.mask, batch.target, batch.items
    return Program(evaluation._count_batch, arguments, 4 * (case["V"] + 1) * case["width"], options)


def _update(case: Case, target: Target) -> Program:
    optimizer = training_programs.row_optimizer(case["optimizer"])
    table: Any = array(case["V"] + 1, case["D"], dtype=jnp.dtype(case["dtype"]))
    if platforms.tiles_memory(target.platform) and packed_rows.is_narrow(table):
        table = jax.eval_shape(packed_rows.pack, table)
    slots = jax.eval_shape(optimizer.init, table)
    ids, gradients = array(case["ids"], dtype=jnp.int32), array(case["ids"], case["D"])
    update = jax.jit(optimizer.update, donate_argnums=(0, 1))
    moved = 1 + sum(leaf.ndim > 0 for leaf in jax.tree.leaves(slots))
    ideal = 2 * moved * case["ids"] * case["D"] * 4
    return Program(update, (table, slots, ids, gradients), num_bytes(table), ideal_bytes=ideal)


def _game(case: Case, *, proportional: bool) -> Program:
    gains, count = array(case["N"]), array(dtype=jnp.int32)
    from_gains = functools.partial(instances.from_gains, log_gains=True)
    game = jax.eval_shape(from_gains, gains, gains, gains)
    options = {"proportional": proportional, "log_gains": True}
    return Program(exact._solve, (game, count, count), 4 * case["N"], options, ideal_bytes=num_bytes(game))


def _select(case: Case) -> Program:
    size = min(case["N"], sampling.RANDOM_BLOCK)
    blocks = array(-(-case["N"] // size), size)
    arguments, options = (abstract_key(), blocks), {"num": case["num"]}
    return Program(sampling._select, arguments, 4 * case["N"], options, ideal_bytes=4 * case["N"])


def _loss(case: Case) -> Program:
    vectors, table = array(case["B"], case["D"]), array(case["V"] + 1, case["D"])
    target = array(case["B"], dtype=jnp.int32)
    chunk_sizes = {"chunked_softmax": _CHUNK_ITEMS, "softmax": None}
    check_one_of("name", case["name"], chunk_sizes)
    loss = functools.partial(losses.full_softmax, chunk_size=chunk_sizes[case["name"]])
    gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    return Program(gradient, (vectors, table, target), num_bytes(table), ideal_bytes=3 * num_bytes(table))


_BUILDERS: dict[str, Callable[[Case], Program]] = {
    "top_k": _top_k,
    "ranks": _ranks,
    "evaluation": _evaluation,
    "game": functools.partial(_game, proportional=False),
    "proportional_game": functools.partial(_game, proportional=True),
    "select": _select,
    "loss": _loss,
    "method": method_programs.method,
}

_BUILDERS_FOR_TARGET: dict[str, Callable[[Case, Target], Program]] = {
    "interval": training_programs.interval,
    "validation": training_programs.validation,
    "update": _update,
    "fit_large": training_programs.fit_large,
    "sharded": sharded_programs.build,
}
"""Programs that depend on the accelerator: seeds train in turn and tables are packed on some, and a mesh is made of its
devices."""
