"""The fingerprint of a training run: plain values by which a checkpoint of another run is recognized and refused."""

import dataclasses
import hashlib
import importlib.metadata
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from alkd_jax import sharding
from alkd_jax.errors import printable, reading, shown
from alkd_jax.io import read_json, write_json
from alkd_jax.models import Params, init_params
from alkd_jax.objectives import Objective
from alkd_jax.training.arrays import TrainingData
from alkd_jax.training.interval import Interval
from alkd_jax.training.sharded_sessions import digest_in_parts, lies_in_parts

FINGERPRINT = "fingerprint.json"
"""The file of a training folder that identifies the training run."""

STEPS = "steps"
"""The folder below a training folder that holds a checkpoint for each of some steps."""

_FORMER_FINGERPRINT = "identity.json"
"""The name of the fingerprint in folders that alkd_jax wrote before; their checkpoints cannot be read any more."""

_JAXPR_DIGESTS = {"loss", "initializer", "optimizer", "row_optimizer"}
"""The values of a fingerprint that are digests of jaxprs, which differ from version to version of the packages."""

_PACKAGES = ("alkd_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")

_FORMAT = 2
"""Number of the form of a saved state; it is raised when a new version cannot read the states of the one before."""


@flax.struct.dataclass
class _SumOfSquares(Objective):
    """A loss whose steps are described by the optimizer alone."""

    def loss(self, params: Any, batch: Any, candidates: Any, key: Any) -> jax.Array:
        return sum((leaf.astype(jnp.float32) ** 2).sum() for leaf in jax.tree.leaves(params))

    def loss_of_vectors(self, params: Any, vectors: Any, batch: Any, candidates: Any, key: Any) -> jax.Array:
        return self.loss(params, batch, candidates, None)


def fingerprint(
    interval: Interval,
    keys: jax.Array,
    params: Params,
    initial: Params | None,
    extra_params_init: Callable[[jax.Array, Any], Params] | None,
    data: TrainingData,
    *,
    length: int,
    **options: Any,
) -> dict[str, Any]:
    """Describes a training run by plain values; the same run has the same fingerprint.

    Args:
        interval: the static arguments. Loss and optimizer are identified by what they compute on one device, since the
            mesh may change when training continues.
        keys: the seeds' keys; a single key where parameters have no seed axis.
        params: all parameters to train, or their shapes.
        initial: the initial parameters, if given. Random ones are identified by keys, model and initializer, since
            their values on a mesh may differ in the last bit.
        extra_params_init: the initializer of further collections, if given.
        data: what training reads.
        length: L, the number of positions that random parameters are drawn for.
        **options: further plain values.
    """
    # Neither the mesh nor the lengths that batches are cut to change what a step computes.
    plain = {"layout": None, "lengths": ()}
    fields = {field.name for field in dataclasses.fields(interval.stepper)} & plain.keys()  # type: ignore[arg-type]
    stepper = dataclasses.replace(interval.stepper, **{name: plain[name] for name in fields})  # type: ignore[type-var]
    state = jax.eval_shape(stepper.init, _one_seed(params, interval.stepper.layout, has_seed_axis=keys.ndim == 1))
    keys = keys.reshape(-1)

    def loss(state: Any, data: TrainingData, key: jax.Array) -> jax.Array:
        batch = data.of_first_seed().batch(jnp.arange(2), jnp.int32(0))
        return stepper.loss(state, state, data.loss, batch, key)

    def step(state: Any, data: TrainingData, key: jax.Array) -> Any:
        batch = data.of_first_seed().batch(jnp.arange(2), jnp.int32(0))
        carry, probe = stepper.step(stepper.begin(state), _SumOfSquares(stepper.model), batch, key)
        return carry, ~jnp.isnan(probe)

    def init(key: jax.Array) -> tuple[Params, Params]:
        model_params = init_params(key, stepper.model, length=length) if initial is None else {}
        return model_params, {} if extra_params_init is None else extra_params_init(key, stepper.model)

    return {
        "format": _FORMAT,
        "model": repr(stepper.model).replace("\n", " "),
        "loss": _jaxpr_digest(loss, state, data, keys[0]),
        "optimizer": _jaxpr_digest(step, state, data, keys[0]),
        "initializer": _jaxpr_digest(init, keys[0]),
        "batch_size": interval.batch_size,
        "steps_per_validation": interval.steps,
        "recall_at": interval.recall_at,
        "precision": interval.precision,
        **options,
        # Numbers derived from the keys, so that another random number generator gives another fingerprint.
        "seeds": _array_digest(jax.random.key_data(jax.vmap(jax.random.split)(keys))),
        "initial": "random" if initial is None else _array_digest(initial),
        "examples": _array_digest(data.examples),
        "train": _array_digest(data.source),
        "validation": _array_digest(data.validation),
        "loss_arrays": _array_digest(data.loss),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def claim_folder(path: pathlib.Path, fingerprint: Mapping[str, Any]) -> None:
    """Writes the fingerprint to a new training folder; refuses the folder of another training run.

    Args:
        path: the folder.
        fingerprint: plain values that distinguish this training run from others. "versions" is recorded and not
            compared; where it differs, digests of jaxprs ("loss", "initializer" and the optimizers) are not compared
            either, since they differ from version to version.

    Raises:
        ValueError: the folder holds another training run, whose differences the error names, or one of an earlier
            version; or its fingerprint is damaged.
    """
    file, choice = path / FINGERPRINT, "choose another folder, or remove this one to start from the beginning"
    if not file.exists():
        if (path / _FORMER_FINGERPRINT).exists():
            raise ValueError(f"{path} holds training that another version of alkd_jax began; {choice}")
        if any(step.name.isdecimal() for step in (path / STEPS).glob("*")):
            raise ValueError(f"{path} holds checkpoints without {FINGERPRINT}; {choice}")
        if jax.process_index() == 0:
            write_json(file, dict(fingerprint))
        return
    try:
        with reading(file):
            saved = read_json(file)
    except ValueError as error:
        raise ValueError(f"{error}; {choice}") from error
    if not isinstance(saved, dict):
        raise ValueError(f"{file} is {shown(saved)}; expected a JSON object; {choice}")
    ignored = {"versions"} | (_JAXPR_DIGESTS if saved.get("versions") != fingerprint["versions"] else set())
    differences = [
        f"{name} ({printable(saved.get(name))} there, {value} here)"
        for name, value in fingerprint.items()
        if name not in ignored and saved.get(name) != value
    ]
    if differences:
        raise ValueError(f"{path} holds another training run, which differs in {', '.join(differences)}; {choice}")


def _one_seed(params: Params, layout: sharding.Layout | None, *, has_seed_axis: bool) -> Params:
    """Returns the shapes of one seed's parameters in the model's own shapes."""

    def first(params: Params) -> Params:
        params = (
            params if layout is None else dataclasses.replace(layout, leading_axes=has_seed_axis).unpad_rows(params)
        )
        return jax.tree.map(lambda leaf: leaf[0], params) if has_seed_axis else params

    return jax.eval_shape(first, params)


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
        # An array that lies in parts need not fit a host.
        values = jax.random.key_data(leaf) if is_key else digest_in_parts(leaf) if lies_in_parts(leaf) else leaf
        array = np.asarray(values)
        described = leaf if lies_in_parts(leaf) else array
        digest.update(f"{jax.tree_util.keystr(path)} {described.dtype} {described.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
