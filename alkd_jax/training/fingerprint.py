"""The fingerprint of a training run: plain values by which a checkpoint of another run is recognized and refused."""

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
from alkd_jax.training.steppers.lazy_rows import RowTrainState, RowTrainStep

_PACKAGES = ("alkd_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def fingerprint(
    train_step: TrainStep,
    keys: jax.Array,
    state: TrainState,
    initial: Params | None,
    extra_params_init: Callable[[jax.Array, Any], Params] | None,
    data: TrainingData,
    *,
    length: int,
) -> dict[str, Any]:
    """Describes a run of :func:`alkd_jax.training.fit` by plain values; the same run has the same fingerprint.

    Args:
        train_step: the static arguments, for one device. Loss and optimizer are identified by what they compute.
        keys: ``[S]`` the seeds' keys.
        state: the shapes of the state, with a leading seed axis.
        initial: the initial parameters, if given. Random ones are identified by keys, model and initializer, since
            their values on a mesh may differ in the last bit.
        extra_params_init: the initializer of further collections, if given.
        data: what training reads.
        length: L, the number of positions that random parameters are drawn for.
    """
    first = functools.partial(jax.tree.map, lambda leaf: leaf[0])

    def loss(state: TrainState, data: TrainingData, key: jax.Array) -> jax.Array:
        examples = first(data.examples) if data.examples.weight.ndim == 2 else data.examples
        seed_data = TrainingData(examples, data.source, data.validation, data.loss_inputs)
        batch = train_step.gather_batch(seed_data, jnp.arange(2), jnp.int32(0))
        return train_step.loss(first(state.params), batch, key)

    def update(state: TrainState) -> tuple[Any, Any]:
        params, opt_state = first(state.params), first(state.opt_state)
        return optax.with_extra_args_support(train_step.optimizer).update(params, opt_state, params, step=jnp.int32(0))

    values = {
        "loss": _jaxpr_digest(loss, state, data, keys[0]),
        "optimizer": _jaxpr_digest(update, state),
        "initializer": _initializer_digest(train_step.model, keys[0], initial, extra_params_init, length),
        "batch_size": train_step.batch_size,
        "steps_per_validation": train_step.steps,
        "patience": train_step.patience,
        "recall_at": train_step.recall_at,
    }
    return _with_common_values(train_step.model, keys, initial, data, values)


def row_fingerprint(
    train_step: RowTrainStep,
    key: jax.Array,
    state: RowTrainState,
    initial: Params | None,
    data: TrainingData,
    *,
    length: int,
    **options: Any,
) -> dict[str, Any]:
    """Describes one seed of :func:`alkd_jax.training.fit_large`, as :func:`fingerprint` does.

    Args:
        train_step: the static arguments, for one device.
        key: the seed's key; it also decides random initial parameters.
        state: the shapes of the state.
        initial: the initial parameters, if given.
        data: what training reads.
        length: L, the number of positions that random parameters are drawn for.
        **options: further plain values.
    """

    def loss(state: RowTrainState, data: TrainingData, key: jax.Array) -> jax.Array:
        batch = train_step.gather_batch(data, jnp.arange(2), jnp.int32(0))
        gathered = train_step.gather_rows(state.tables, batch, key)
        return gathered.loss(gathered.tables, state.dense)

    def update(state: RowTrainState) -> tuple[Any, Any]:
        optimizer = optax.with_extra_args_support(train_step.optimizer)
        return optimizer.update(state.dense, state.opt_state, state.dense, step=jnp.int32(0))

    def update_rows(state: RowTrainState) -> list[Any]:
        ids, row_update = jnp.arange(2), train_step.row_optimizer.update
        return [row_update(leaf, state.slots[name], ids, leaf[:2]) for name, leaf in state.tables.items()]

    values = {
        "loss": _jaxpr_digest(loss, state, data, key),
        "optimizer": _jaxpr_digest(update, state),
        "row_optimizer": _jaxpr_digest(update_rows, state),
        "initializer": _initializer_digest(train_step.model, key, initial, None, length),
        "batch_size": train_step.batch_size,
        "steps_per_validation": train_step.steps,
        "recall_at": train_step.recall_at,
    }
    return _with_common_values(train_step.model, key, initial, data, values | options)


def _initializer_digest(
    model: Any,
    key: jax.Array,
    initial: Params | None,
    extra_params_init: Callable[[jax.Array, Any], Params] | None,
    length: int,
) -> str:
    """Returns a digest of the computation of the random parameters."""

    def init(key: jax.Array) -> tuple[Params, Params]:
        model_params = init_params(key, model, length=length) if initial is None else {}
        return model_params, {} if extra_params_init is None else extra_params_init(key, model)

    return _jaxpr_digest(init, key)


def _with_common_values(
    model: Any, keys: jax.Array, initial: Params | None, data: TrainingData, values: dict[str, Any]
) -> dict[str, Any]:
    """Adds the values that all kinds of training have."""
    return {
        "model": repr(model).replace("\n", " "),
        **values,
        # Numbers derived from the keys, so that another random number generator gives another fingerprint.
        "seeds": _array_digest(jax.random.key_data(jax.vmap(jax.random.split)(keys.reshape(-1)))),
        "initial": "random" if initial is None else _array_digest(initial),
        "examples": _array_digest(data.examples),
        "train": _array_digest(data.source),
        "validation": _array_digest(data.validation),
        "loss_inputs": _array_digest(data.loss_inputs),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def _jaxpr_digest(function: Any, *arguments: Any) -> str:
    """Returns a digest of what a function computes: its jaxpr without memory addresses, which differ between runs."""
    # The function is traced with shapes: arrays on a mesh would put the mesh into the jaxpr.
    leaves, tree = jax.tree.flatten(arguments)
    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    jaxpr = jax.make_jaxpr(lambda *leaves: function(*jax.tree.unflatten(tree, leaves)))(*shapes)
    text = re.sub(r"0x[0-9a-f]+", "", str(jaxpr))
    # The text of a jaxpr does not contain the values of its constants.
    return hashlib.sha256(f"{text} {_array_digest(jaxpr.consts)}".encode()).hexdigest()[:16]


def _array_digest(tree: Any) -> str:
    """Returns a digest of the arrays of a tree."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
