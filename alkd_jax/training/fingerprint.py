"""What makes a training run the run it is: enough to refuse a checkpoint of another one, and to say why."""

import functools
import hashlib
import importlib.metadata
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from alkd_jax.models import Params, init_params
from alkd_jax.training.steppers.dense import TrainingData, TrainState, TrainStep
from alkd_jax.training.steppers.lazy_rows import RowProgram, RowState

_PACKAGES = ("alkd_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def identity(
    program: TrainStep,
    keys: jax.Array,
    state: TrainState,
    initial: Params | None,
    extra_params_init: Callable[[jax.Array, Any], Params] | None,
    material: TrainingData,
    *,
    length: int,
) -> dict[str, Any]:
    """Describes a run by plain values: the same run gives the same ones.

    Args:
        program: what is compiled in, for one device; loss and optimizer are told apart by what they compute.
        keys: ``[S]`` of the seeds.
        state: shapes of the state.
        initial: parameters to start from, if given; those that are drawn follow from keys, model and what draws them.
            Their values would not do: drawn on a mesh, some may differ in the last bit.
        extra_params_init: draws further collections, if given.
        material: what is learned from.
        length: L that fresh parameters are drawn for.
    """
    first = functools.partial(jax.tree.map, lambda leaf: leaf[0])

    def loss(state: TrainState, material: TrainingData, key: jax.Array) -> jax.Array:
        examples = first(material.examples) if material.examples.weight.ndim == 2 else material.examples
        own = TrainingData(examples, material.source, material.validation, material.loss_inputs)
        batch = program.batch(own, jnp.arange(2), jnp.int32(0))
        return program.loss(first(state.params), batch, key)

    def update(state: TrainState) -> tuple[Any, Any]:
        params, opt_state = first(state.params), first(state.opt_state)
        return optax.with_extra_args_support(program.optimizer).update(params, opt_state, params, step=jnp.int32(0))

    computed = {"loss": _computation(loss, state, material, keys[0]), "optimizer": _computation(update, state)}
    computed |= {"draws": _draws(program.model, keys[0], initial, extra_params_init, length)}
    sizes = {"batch_size": program.batch_size, "steps_per_validation": program.steps, "patience": program.patience}
    sizes |= {"recall_at": program.recall_at}
    return _of_run(program.model, keys, initial, material, computed | sizes)


def row_identity(
    program: RowProgram,
    key: jax.Array,
    state: RowState,
    initial: Params | None,
    material: TrainingData,
    *,
    length: int,
    **options: Any,
) -> dict[str, Any]:
    """:func:`identity` of one seed of training by rows.

    Args:
        program: what is compiled in, for one device.
        key: the seed's; where there are no initial parameters, it decides them too.
        state: shapes of the state.
        initial: parameters to start from, if given.
        material: what is learned from.
        length: L that fresh parameters are drawn for.
        **options: further plain values.
    """

    def loss(state: RowState, material: TrainingData, key: jax.Array) -> jax.Array:
        gathered = program.gathered(state.tables, program.batch(material, jnp.arange(2), jnp.int32(0)), key)
        return gathered.loss(gathered.tables, state.dense)

    def update(state: RowState) -> tuple[Any, Any]:
        optimizer = optax.with_extra_args_support(program.optimizer)
        return optimizer.update(state.dense, state.opt_state, state.dense, step=jnp.int32(0))

    def update_rows(state: RowState) -> list[Any]:
        ids = jnp.arange(2)
        return [program.rows.update(leaf, state.slots[name], ids, leaf[:2]) for name, leaf in state.tables.items()]

    computed = {"loss": _computation(loss, state, material, key), "optimizer": _computation(update, state)}
    computed |= {"row_optimizer": _computation(update_rows, state)}
    computed |= {"draws": _draws(program.model, key, initial, None, length)}
    sizes = {"batch_size": program.batch_size, "steps_per_validation": program.steps, "recall_at": program.recall_at}
    return _of_run(program.model, key, initial, material, computed | sizes | options)


def _draws(
    model: Any,
    key: jax.Array,
    initial: Params | None,
    extra_params_init: Callable[[jax.Array, Any], Params] | None,
    length: int,
) -> str:
    """A digest of what draws parameters."""

    def draw(key: jax.Array) -> tuple[Params, Params]:
        own = init_params(key, model, length=length) if initial is None else {}
        return own, {} if extra_params_init is None else extra_params_init(key, model)

    return _computation(draw, key)


def _of_run(
    model: Any, keys: jax.Array, initial: Params | None, material: TrainingData, more: dict[str, Any]
) -> dict[str, Any]:
    """What all training has."""
    return {
        "model": repr(model).replace("\n", " "),
        **more,
        # What comes of the keys tells as well how random numbers are made here.
        "seeds": _digest(jax.random.key_data(jax.vmap(jax.random.split)(keys.reshape(-1)))),
        "initial": "drawn" if initial is None else _digest(initial),
        "examples": _digest(material.examples),
        "train": _digest(material.source),
        "validation": _digest(material.validation),
        "loss_inputs": _digest(material.loss_inputs),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def _computation(function: Any, *arguments: Any) -> str:
    """A digest of what a function computes: its program, without the addresses that change from run to run."""
    # Described, since arrays that lie on a mesh would have it named in the program.
    leaves, tree = jax.tree.flatten(arguments)
    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    program = jax.make_jaxpr(lambda *leaves: function(*jax.tree.unflatten(tree, leaves)))(*shapes)
    text = re.sub(r"0x[0-9a-f]+", "", str(program))
    # Arrays a function has brought along are no part of the text.
    return hashlib.sha256(f"{text} {_digest(program.consts)}".encode()).hexdigest()[:16]


def _digest(tree: Any) -> str:
    """A digest of the arrays of a tree."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
