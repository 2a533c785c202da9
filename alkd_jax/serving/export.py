"""A student as a folder to serve from: weights, catalogue, a compiled program and an ONNX graph.

`config.json` says what it is and lists every file with its SHA-256. `model.safetensors` and `items.json` are the
student; `student.stablehlo` and `student.onnx` are two compiled forms of it. All give the same lists, and so does
`alkd_jax.serving.recommender`, which needs neither JAX nor ONNX.
"""

import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from alkd_jax import scoring
from alkd_jax.models import BACKBONES, Encoder, Params
from alkd_jax.serving import manifest as shipped
from alkd_jax.serving import numpy_encoders, onnx_graph
from alkd_jax.serving.recommender import Recommender, read_arrays
from alkd_jax.types import Dataset

__all__ = ["Recommender", "load_program", "save"]

PLATFORMS = ("cpu", "cuda", "tpu")
"""What the compiled program runs on."""

_TRAINING_ONLY = frozenset({"dropout", "item_dropout"})
_MODULE_FIELDS = frozenset({"num_items", "dim", "parent", "name"})
_CHUNK = 2**20
_CHECKED_SESSIONS = 64

Lists: TypeAlias = tuple[Float[Array, "B K"], Int[Array, "B K"]]
Program: TypeAlias = Callable[[Int[np.ndarray, "B L"], Int[np.ndarray, "B M"]], Lists]


def save(
    folder: str | os.PathLike[str],
    model: Encoder,
    params: Params,
    ds: Dataset,
    *,
    dtype: str = "float32",
    list_length: int = 100,
) -> None:
    """Writes a student; the folder appears whole or not at all.

    What is written is read back and compared with the model on training sessions before the folder appears. Where the
    package `onnx`, or `flatbuffers` for the program, is not installed, a warning says so and that file is left out.

    Args:
        folder: does not exist yet.
        model: one of the library's backbones.
        params: without a seed axis; finite.
        ds: what it was trained on: the catalogue, and the length L that it reads.
        dtype: how the weights are stored: "float32", or "float16" for half the size. All forms of the student then have
            the rounded weights, and still compute in float32.
        list_length: K, how many items the program and the ONNX graph return; at most the catalogue.

    Raises:
        ValueError: the folder exists, the parameters are not the model's, the catalogue is not, or an option is wrong.
    """
    path = pathlib.Path(folder).absolute()
    if path.exists():
        raise ValueError(f"{path} exists; expected a new folder")
    if dtype not in shipped.DTYPES:
        raise ValueError(f"dtype is {dtype!r}; expected {' or '.join(shipped.DTYPES)}")
    if list_length < 1:
        raise ValueError(f"list_length is {list_length}; expected at least 1")
    backbone, options = described(model)
    stored = stored_arrays(backbone, options, model, params, np.dtype(dtype))
    check_catalogue(model, ds)
    length, list_length = ds.train.items.shape[1], min(list_length, ds.num_items)
    files, left_out = compiled_forms(backbone, options, model, stored, length, list_length)
    import safetensors.numpy

    files[shipped.WEIGHTS] = safetensors.numpy.save(stored)
    files[shipped.ITEMS] = shipped.items_json(ds.item_ids, ds.titles)
    config = shipped.Config(
        backbone=backbone,
        options=options,
        num_items=ds.num_items,
        dim=model.dim,
        length=length,
        list_length=list_length,
        dtype=dtype,
        dataset=ds.name,
        fingerprint=ds.fingerprint,
        versions=versions(),
        files={name: shipped.described(data) for name, data in sorted(files.items())},
        left_out=left_out,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        for name, data in [*files.items(), (shipped.CONFIG, shipped.config_json(config))]:
            (partial / name).write_bytes(data)
        compare(partial, model, stored, np.asarray(ds.train.items[:_CHECKED_SESSIONS], np.int32))
        partial.chmod(0o755)
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for name, why in left_out.items():
        warnings.warn(f"{name} is left out: {why}", stacklevel=2)


def described(model: Encoder) -> tuple[str, dict[str, Any]]:
    """A backbone's name and those of its options that matter after training.

    Raises:
        ValueError: it is none of the library's backbones, or has an option that cannot be shipped.
    """
    name = next((name for name, kind in BACKBONES.items() if type(model) is kind), None)
    if name is None:
        raise ValueError(f"model is a {type(model).__name__}; expected one of {', '.join(BACKBONES)}")
    fields = {field: getattr(model, field) for field in type(model).__dataclass_fields__}  # type: ignore[attr-defined]
    options = {key: value for key, value in fields.items() if key not in _MODULE_FIELDS | _TRAINING_ONLY}
    numpy_encoders.check_options(name, options, dim=model.dim)
    return name, options


def stored_arrays(
    backbone: str, options: numpy_encoders.Options, model: Encoder, params: Params, dtype: np.dtype
) -> dict[str, np.ndarray]:
    """The parameters as they are stored.

    Raises:
        ValueError: they are not this model's, or not finite in that type.
    """
    expected = numpy_encoders.parameter_shapes(backbone, options, num_items=model.num_items, dim=model.dim)
    held = {name: np.asarray(array) for name, array in params["params"].items()}
    shapes = {name: array.shape for name, array in held.items()}
    if shapes != expected:
        differ = [
            f"{name} {shapes.get(name)} (expected {expected.get(name)})"
            for name in sorted(shapes.keys() | expected.keys())
            if shapes.get(name) != expected.get(name)
        ]
        raise ValueError(f"params are not one {backbone} of this size: {', '.join(differ)}")
    with np.errstate(over="ignore"):
        stored = {name: np.ascontiguousarray(array.astype(dtype)) for name, array in held.items()}
    for name, array in stored.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has numbers that are not finite in {dtype}")
    return stored


def check_catalogue(model: Encoder, ds: Dataset) -> None:
    """Raises ValueError where the dataset's catalogue is not the model's, or its ids do not tell items apart."""
    if ds.num_items != model.num_items or len(ds.item_ids) != len(ds.titles) or len(ds.titles) != ds.num_items + 1:
        raise ValueError(f"ds has {ds.num_items} items; the model {model.num_items}")
    if "" in ds.item_ids[1:] or len(set(ds.item_ids)) != len(ds.item_ids):
        raise ValueError(f"{ds.name}: an item id is empty or there twice; expected ids that tell items apart")


def compiled_forms(
    backbone: str,
    options: numpy_encoders.Options,
    model: Encoder,
    stored: dict[str, np.ndarray],
    length: int,
    list_length: int,
) -> tuple[dict[str, bytes], dict[str, str]]:
    """The program and the ONNX graph: file name → bytes, and for what could not be made, file name → why."""
    files, left_out = {}, {}
    if importlib.util.find_spec("flatbuffers") is None:
        left_out[shipped.PROGRAM] = "the package flatbuffers is not installed"
    else:
        files[shipped.PROGRAM] = exported_program(model, stored, length, list_length)
    if importlib.util.find_spec("onnx") is None:
        left_out[shipped.ONNX] = "the package onnx is not installed"
    elif sum(array.nbytes for array in stored.values()) > onnx_graph.LARGEST:
        left_out[shipped.ONNX] = f"the weights are above {onnx_graph.LARGEST} bytes, which an ONNX file cannot hold"
    else:
        files[shipped.ONNX] = onnx_graph.student(backbone, options, stored, length=length, list_length=list_length)
    return files, left_out


def lists_program(
    model: Encoder, list_length: int
) -> Callable[[dict[str, Array], Int[Array, "B L"], Int[Array, "B M"]], Lists]:
    """The student as one function of its arrays, the sessions' items, and the items to leave out."""

    def lists(arrays: dict[str, Array], items: Int[Array, "B L"], exclude: Int[Array, "B M"]) -> Lists:
        params = {"params": {name: array.astype(jnp.float32) for name, array in arrays.items()}}
        with jax.default_matmul_precision("highest"):
            vectors = model.apply(params, items, items > 0)
            table = model.apply(params, method="item_embeddings")
            return scoring.top_k(vectors, table, list_length, exclude=exclude, chunk_size=min(len(table), _CHUNK))

    return lists


def exported_program(model: Encoder, stored: dict[str, np.ndarray], length: int, list_length: int) -> bytes:
    """StableHLO with any number of sessions and of items to leave out; the weights are arguments of it."""
    batch, excluded = jax.export.symbolic_shape("b, m")
    weights = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in stored.items()}
    items, exclude = (jax.ShapeDtypeStruct((batch, size), jnp.int32) for size in (length, excluded))
    traced = jax.export.export(jax.jit(lists_program(model, list_length)), platforms=PLATFORMS)
    return bytes(traced(weights, items, exclude).serialize())


def load_program(folder: str | os.PathLike[str]) -> Program:
    """Reads the compiled program of a shipped student with its weights.

    It runs on a JAX at least as new as the one that wrote it, on CPU, CUDA and TPU. Unlike the weights and the
    catalogue, which are only read, it is compiled and run: take it from whom you trust.

    Returns:
        A function of items ``[B, L]`` int32, left-aligned, 0 after the last, and of items to leave out ``[B, M]``
        int32, 0 harmless. It returns scores ``[B, K]``, best first, and item numbers; −inf and −1 where fewer remain.

    Raises:
        FileNotFoundError: the folder or a file of it is missing.
        ValueError: a file was changed, or this JAX cannot read the program.
    """
    path = pathlib.Path(folder)
    config, _ = shipped.read_config(path)
    numpy_encoders.check_options(config.backbone, config.options, dim=config.dim)
    data = shipped.read_checked(path, config, shipped.PROGRAM)
    arrays = {name: jnp.asarray(array, config.dtype) for name, array in read_arrays(path, config).items()}
    try:
        exported = jax.export.deserialize(bytearray(data))
    except Exception as error:
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path / shipped.PROGRAM}: JAX {jax.__version__} cannot read what "
            f"{config.versions.get('jax', 'another')} wrote: {told}"
        ) from error

    def run(items: Int[np.ndarray, "B L"], exclude: Int[np.ndarray, "B M"]) -> Lists:
        return exported.call(arrays, jnp.asarray(items, jnp.int32), jnp.asarray(exclude, jnp.int32))

    return run


def compare(folder: pathlib.Path, model: Encoder, stored: dict[str, np.ndarray], items: np.ndarray) -> None:
    """Raises ValueError where the folder, read back, does not score as the model does."""
    arrays = {name: jnp.asarray(array) for name, array in stored.items()}
    wanted, _ = jax.jit(lists_program(model, min(10, model.num_items)))(arrays, jnp.asarray(items), jnp.asarray(items))
    recommender = Recommender.load(folder)
    found, _ = recommender.top_k(items, wanted.shape[1], exclude=items)
    finite = np.isfinite(wanted)
    size = float(np.abs(np.where(finite, wanted, 0)).max(initial=0.0))
    if not np.allclose(found, wanted, rtol=1e-4, atol=1e-5 * size):
        raise ValueError(f"{model} as written scores differently from itself".replace("\n", " "))


def versions() -> dict[str, str]:
    """Of what wrote the folder."""
    packages = ("alkd_jax", "jax", "jaxlib", "flax", "numpy", "onnx", "safetensors")
    told = {"python": platform.python_version()}
    for package in packages:
        if importlib.util.find_spec(package) is not None:
            told[package] = importlib.metadata.version(package)
    return told
