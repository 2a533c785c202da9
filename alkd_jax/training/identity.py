"""What makes a training run the run it is: enough to refuse a checkpoint of another one, and to say why."""

import functools
import hashlib
import importlib.metadata
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from alkd_jax.training.program import Material, Program, TrainState

_PACKAGES = ("alkd_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def identity(program: Program, keys: jax.Array, state: TrainState, material: Material) -> dict[str, Any]:
    """Describes a run by plain values: the same run gives the same ones.

    Args:
        program: what is compiled in; loss and optimizer are told apart by what they compute.
        keys: ``[S]`` of the seeds.
        state: before the first step.
        material: what is learned from.
    """
    first = functools.partial(jax.tree.map, lambda leaf: leaf[0])

    def loss(state: TrainState, material: Material, key: jax.Array) -> jax.Array:
        examples = first(material.examples) if material.examples.weight.ndim == 2 else material.examples
        own = Material(examples, material.source, material.validation, material.aside)
        batch = program.batch(own, jnp.arange(2), jnp.int32(0))
        return program.loss(first(state.params), batch, key)

    def update(state: TrainState) -> tuple[Any, Any]:
        params, opt_state = first(state.params), first(state.opt_state)
        return optax.with_extra_args_support(program.optimizer).update(params, opt_state, params, step=jnp.int32(0))

    return {
        "model": repr(program.model).replace("\n", " "),
        "loss": _computation(loss, state, material, keys[0]),
        "optimizer": _computation(update, state),
        "batch_size": program.batch_size,
        "steps_per_validation": program.steps,
        "patience": program.patience,
        "recall_at": program.recall_at,
        "seeds": _digest(jax.random.key_data(keys)),
        "initial": _digest((state.params, state.best_metric)),
        "examples": _digest(material.examples),
        "train": _digest(material.source),
        "validation": _digest(material.validation),
        "aside": _digest(material.aside),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def _computation(function: Any, *arguments: Any) -> str:
    """A digest of what a function computes: its program as text, without the addresses that change from run to run."""
    text = re.sub(r"0x[0-9a-f]+", "", str(jax.make_jaxpr(function)(*arguments)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _digest(tree: Any) -> str:
    """A digest of the arrays of a tree."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
