"""Export of a student to a folder: weights, catalogue, a compiled program and an ONNX graph.

`config.json` describes the student and lists every file with its SHA-256. `model.safetensors` and `items.json` contain
its weights and its catalogue; `student.stablehlo` and `student.onnx` are two compiled forms. Both forms return the same
lists as `alkd_jax.serving.recommender`, which needs neither JAX nor ONNX.
"""

import dataclasses
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from alkd_jax import scoring
from alkd_jax.checks import check_at_least, check_one_of
from alkd_jax.errors import how_to_install, import_extra, shown, writing
from alkd_jax.models import BACKBONES, Encoder, PackedStudent, Params
from alkd_jax.serving import manifest, model_card, numpy_encoders, onnx_graph, packed, shipped_folder
from alkd_jax.serving.model_card import Card
from alkd_jax.serving.programs import TopK, load_onnx, load_program
from alkd_jax.serving.recommender import Recommender
from alkd_jax.types import Dataset

__all__ = ["Card", "Recommender", "load_onnx", "load_program", "recommender", "save"]

PLATFORMS = ("cpu", "cuda", "tpu")
"""Platforms that the program is compiled for."""

_TRAINING_ONLY = frozenset({"dropout", "item_dropout", "embedding_dropout", "hidden_dropout", "context_dropout"})
_MODULE_FIELDS = frozenset({"num_items", "dim", "parent", "name"})
_CHUNK_ITEMS = 2**20
_NUM_CHECKED_SESSIONS = 64


def save(
    folder: str | os.PathLike[str],
    model: Encoder | PackedStudent,
    params: Params | None,
    ds: Dataset,
    *,
    dtype: str = "float32",
    list_length: int = 100,
    compiled: bool = True,
    overwrite: bool = False,
    card: Card | None = None,
) -> None:
    """Writes a student to a folder, in one step: the folder is complete or does not exist.

    Before the folder appears, the files are read back and compared with the model on training sessions. The ONNX graph
    needs the package `onnx` and the program needs `flatbuffers`; without the package a warning is issued and the file
    is left out.

    Args:
        folder: the folder to write; it must not exist, unless it may be overwritten.
        model: one of the library's backbones, or a packed student, which has no compiled forms.
        params: its parameters, without a seed axis; finite. None for a packed student.
        ds: the dataset of its training, for the catalogue and the length L.
        dtype: type of the stored weights, "float32", or "float16" for half the size. With "float16" all forms of the
            student have the rounded weights; computation is still in float32.
        list_length: K, the number of items that the program and the ONNX graph return; at most V.
        compiled: whether the program and the ONNX graph are written; the other files answer without them.
        overwrite: whether a shipped student that is there is replaced, once the new one is whole.
        card: what the model card, README.md, says beside the config.

    Raises:
        ModuleNotFoundError: safetensors is not installed.
        ValueError: the folder exists, parameters or catalogue do not match the model, scores are not finite, the
            catalogue's texts are too long to be read back, or an option is out of range.
    """
    path = pathlib.Path(folder).absolute()
    shipped_folder.check_target(path, overwrite=overwrite)
    safetensors_numpy = import_extra("safetensors.numpy")
    check_one_of("dtype", dtype, manifest.DTYPES)
    check_at_least(1, list_length=list_length)
    list_length = min(list_length, ds.num_items)
    if isinstance(model, PackedStudent) != (params is None):
        raise ValueError(f"params is {shown(params)}; expected None for a packed student, and parameters for a model")
    check_catalogue(model, ds)
    # A catalogue that cannot be read back is refused before a program is compiled.
    items = manifest.items_json(ds.item_ids, ds.titles)
    if isinstance(model, PackedStudent):
        dtype, parts = manifest.PACKED_DTYPE, packed_parts(model, ds)
    else:
        parts = encoder_parts(model, params, ds, dtype, list_length if compiled else None)
    files = parts.compiled | {manifest.WEIGHTS: safetensors_numpy.save(parts.weights), manifest.ITEMS: items}
    config = manifest.Config(
        backbone=parts.backbone,
        options=parts.options,
        num_items=ds.num_items,
        dim=parts.dim,
        length=ds.train.items.shape[1],
        list_length=list_length,
        dtype=dtype,
        dataset=ds.name,
        fingerprint=ds.fingerprint,
        versions=environment_versions(),
        files={name: manifest.file_entry(data) for name, data in sorted(files.items())},
        left_out=parts.left_out,
    )
    with shipped_folder.new_folder(path, overwrite=overwrite) as partial:
        readme = model_card.as_markdown(config, card or Card()).encode()
        extra = [(model_card.FILE, readme), (manifest.CONFIG, manifest.config_json(config))]
        for name, data in [*files.items(), *extra]:
            with writing(path / name, size=len(data)):
                (partial / name).write_bytes(data)
        sessions = np.asarray(ds.train.items[:_NUM_CHECKED_SESSIONS], np.int32)
        if isinstance(model, PackedStudent):
            check_packed_folder(partial, model, sessions)
        else:
            check_written_folder(partial, model, parts.weights, sessions)
    is_missing = compiled and not isinstance(model, PackedStudent)
    for name, reason in parts.left_out.items() if is_missing else ():
        warnings.warn(f"{name} is left out: {reason}", stacklevel=2)


@dataclasses.dataclass(frozen=True)
class Parts:
    """What is written of a student.

    Attributes:
        backbone: as of `manifest.Config`.
        options: likewise.
        dim: likewise.
        weights: its arrays, in the type in which they are stored.
        compiled: name of a compiled form → content.
        left_out: name of a form that is not written → reason.
    """

    backbone: str
    options: Mapping[str, Any]
    dim: int
    weights: dict[str, np.ndarray]
    compiled: dict[str, bytes]
    left_out: dict[str, str]


def recommender(model: Encoder, params: Params, ds: Dataset, *, dtype: str = "float32") -> Recommender:
    """Returns a trained encoder as the student that :func:`save` would write, without a folder.

    Args:
        model: one of the library's backbones.
        params: its parameters, without a seed axis; finite.
        ds: the dataset of its training.
        dtype: type to which the weights are rounded, as of :func:`save`.

    Raises:
        ValueError: as of :func:`save`.
    """
    check_one_of("dtype", dtype, manifest.DTYPES)
    check_catalogue(model, ds)
    backbone, options = backbone_options(model)
    weights = weights_to_store(backbone, options, model, params, np.dtype(dtype))
    return _checked_recommender(backbone, options, weights, ds)


def _checked_recommender(
    backbone: str, options: Mapping[str, Any], weights: Mapping[str, np.ndarray], ds: Dataset
) -> Recommender:
    arrays = {name: array.astype(np.float32) for name, array in weights.items()}
    found = Recommender(backbone, options, arrays, ds.item_ids, ds.titles, ds.train.items.shape[1])
    found.check_scores()
    return found


def encoder_parts(model: Encoder, params: Params, ds: Dataset, dtype: str, list_length: int | None) -> Parts:
    """Returns what is written of a trained encoder, after its scores were checked; no compiled form for no length."""
    backbone, options = backbone_options(model)
    weights = weights_to_store(backbone, options, model, params, np.dtype(dtype))
    length = _checked_recommender(backbone, options, weights, ds).length
    if list_length is None:
        left_out = dict.fromkeys((manifest.PROGRAM, manifest.ONNX), "it was not asked for")
        return Parts(backbone, options, model.dim, weights, {}, left_out)
    return Parts(
        backbone, options, model.dim, weights, *compiled_forms(backbone, options, model, weights, length, list_length)
    )


def packed_parts(student: PackedStudent, ds: Dataset) -> Parts:
    """Returns what is written of a packed student, after its arrays were checked."""
    length = ds.train.items.shape[1]
    Recommender(student.kind, student.options, student.arrays, ds.item_ids, ds.titles, length).check_scores()
    reason = f"a student of the kind {student.kind} is answered in NumPy alone"
    return Parts(
        student.kind,
        dict(student.options),
        1,
        dict(student.arrays),
        {},
        {manifest.PROGRAM: reason, manifest.ONNX: reason},
    )


def backbone_options(model: Encoder) -> tuple[str, dict[str, Any]]:
    """Returns the name of a backbone, and its options without those that affect training only.

    Raises:
        ValueError: the model is not one of the library's backbones, or an option is out of range.
    """
    name = next((name for name, backbone_class in BACKBONES.items() if type(model) is backbone_class), None)
    if name is None:
        raise ValueError(f"type of model is {type(model).__name__}; expected one of {', '.join(BACKBONES)}")
    fields = {field: getattr(model, field) for field in type(model).__dataclass_fields__}  # type: ignore[attr-defined]
    options = {key: value for key, value in fields.items() if key not in _MODULE_FIELDS | _TRAINING_ONLY}
    numpy_encoders.check_options(name, options, dim=model.dim)
    return name, options


def weights_to_store(
    backbone: str, options: numpy_encoders.Options, model: Encoder, params: Params, dtype: np.dtype
) -> dict[str, np.ndarray]:
    """Returns the parameters in the type in which they are stored.

    Raises:
        ValueError: their names or shapes are not those of the model, or a number is not finite in that type.
    """
    expected = numpy_encoders.parameter_shapes(backbone, options, num_items=model.num_items, dim=model.dim)
    arrays = {name: np.asarray(array) for name, array in params["params"].items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    if shapes != expected:
        differences = [
            f"{name} {shapes.get(name)} (expected {expected.get(name)})"
            for name in sorted(shapes.keys() | expected.keys())
            if shapes.get(name) != expected.get(name)
        ]
        raise ValueError(f"params differ from those of one {backbone} of this size: {', '.join(differences)}")
    with np.errstate(over="ignore"):
        weights = {name: np.ascontiguousarray(array.astype(dtype)) for name, array in arrays.items()}
    for name, array in weights.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has a number that is not finite in {dtype}; expected finite numbers")
    return weights


def check_catalogue(model: Encoder | PackedStudent, ds: Dataset) -> None:
    """Refuses a dataset with another number of items than the model, or with ids that do not identify items.

    Raises:
        ValueError: the numbers differ, an id or title is no text, or an item id is empty or a duplicate.
    """
    for name, column in (("item_ids", ds.item_ids), ("titles", ds.titles)):
        if not isinstance(column, tuple) or not all(isinstance(entry, str) for entry in column):
            raise ValueError(f"{name} of ds is {shown(column)}; expected a tuple of strings")
    if ds.num_items != model.num_items or len(ds.item_ids) != len(ds.titles) or len(ds.titles) != ds.num_items + 1:
        raise ValueError(f"number of items in ds is {ds.num_items}; expected {model.num_items}, as in the model")
    if "" in ds.item_ids[1:] or len(set(ds.item_ids)) != len(ds.item_ids):
        raise ValueError(f"{ds.name}: an item id is empty or a duplicate; expected distinct ids")


def compiled_forms(
    backbone: str,
    options: numpy_encoders.Options,
    model: Encoder,
    weights: dict[str, np.ndarray],
    length: int,
    list_length: int,
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Returns the program and the ONNX graph, file name → content; and for files that are left out, name → reason."""
    files, left_out = {}, {}
    if importlib.util.find_spec("flatbuffers") is None:
        left_out[manifest.PROGRAM] = how_to_install("flatbuffers")
    else:
        files[manifest.PROGRAM] = export_program(model, weights, length, list_length)
    if importlib.util.find_spec("onnx") is None:
        left_out[manifest.ONNX] = how_to_install("onnx")
    elif sum(array.nbytes for array in weights.values()) > onnx_graph.MAX_WEIGHT_BYTES:
        left_out[manifest.ONNX] = f"the weights exceed {onnx_graph.MAX_WEIGHT_BYTES} bytes, the limit of an ONNX file"
    else:
        files[manifest.ONNX] = onnx_graph.student_graph(
            backbone, options, weights, length=length, list_length=list_length
        )
    return files, left_out


def student_program(
    model: Encoder, list_length: int
) -> Callable[[dict[str, Array], Int[Array, "B L"], Int[Array, "B M"]], TopK]:
    """Returns the student as one function of its weights, the items of sessions, and the items to exclude."""

    def top_k_lists(arrays: dict[str, Array], items: Int[Array, "B L"], exclude: Int[Array, "B M"]) -> TopK:
        params = {"params": {name: array.astype(jnp.float32) for name, array in arrays.items()}}
        with jax.default_matmul_precision("highest"):
            vectors = model.apply(params, items, items > 0)
            table = model.apply(params, method="item_embeddings")
            return scoring.top_k(vectors, table, list_length, exclude=exclude, chunk_size=min(len(table), _CHUNK_ITEMS))

    return top_k_lists


def export_program(model: Encoder, weights: dict[str, np.ndarray], length: int, list_length: int) -> bytes:
    """Returns the student as StableHLO, for any numbers of sessions and excluded items, with weights as arguments."""
    batch, excluded = jax.export.symbolic_shape("b, m")
    weight_shapes = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in weights.items()}
    items, exclude = (jax.ShapeDtypeStruct((batch, size), jnp.int32) for size in (length, excluded))
    exported = jax.export.export(jax.jit(student_program(model, list_length)), platforms=PLATFORMS)
    return bytes(exported(weight_shapes, items, exclude).serialize())


def check_written_folder(
    folder: pathlib.Path, model: Encoder, weights: dict[str, np.ndarray], items: np.ndarray
) -> None:
    """Compares the scores of a written folder with those of the model.

    Raises:
        ValueError: they differ by more than rounding.
    """
    arrays = {name: jnp.asarray(array) for name, array in weights.items()}
    program = jax.jit(student_program(model, min(10, model.num_items)))
    expected, _ = program(arrays, jnp.asarray(items), jnp.asarray(items))
    recommender = Recommender.load(folder)
    actual, _ = recommender.top_k(items, expected.shape[1], exclude=items)
    finite = np.isfinite(expected)
    magnitude = float(np.abs(np.where(finite, expected, 0)).max(initial=0.0))
    if not np.allclose(actual, expected, rtol=1e-4, atol=1e-5 * magnitude):
        raise ValueError(f"scores of the written {model} differ; expected those of the model".replace("\n", " "))


def check_packed_folder(folder: pathlib.Path, student: PackedStudent, items: np.ndarray) -> None:
    """Compares the arrays and the lists of a written folder with those of the packed student.

    Raises:
        ValueError: they differ.
    """
    written = Recommender.load(folder)
    backbone, options, arrays = packed.resident_form(
        student.kind, student.options, student.arrays, num_items=student.num_items
    )
    held = dataclasses.replace(written, backbone=backbone, options=options, arrays=arrays)
    k = min(10, student.num_items)
    for found, expected in zip(*(each.top_k(items, k, exclude=items) for each in (written, held)), strict=True):
        if not np.array_equal(found, expected):
            raise ValueError(f"lists of the written {student.kind} differ; expected those of the packed student")


def environment_versions() -> dict[str, str]:
    """Returns package → version of this environment."""
    packages = ("alkd_jax", "jax", "jaxlib", "flax", "numpy", "onnx", "safetensors")
    versions = {"python": platform.python_version()}
    for package in packages:
        if importlib.util.find_spec(package) is not None:
            versions[package] = importlib.metadata.version(package)
    return versions
