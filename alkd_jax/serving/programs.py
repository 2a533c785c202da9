"""The compiled forms of a shipped student as functions: the StableHLO program in JAX, the ONNX graph in ONNX Runtime.

Both are called once while they are loaded, and their scores are compared with those of the weights: a damaged program
is found then, and not at the first request.
"""

import os
import pathlib
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from alkd_jax.errors import import_extra, printable, reading
from alkd_jax.serving import manifest, numpy_encoders, onnx_graph
from alkd_jax.serving.weights import current_names, read_arrays

TopK: TypeAlias = tuple[Float[Array | np.ndarray, "B K"], Int[Array | np.ndarray, "B K"]]
Program: TypeAlias = Callable[[Int[np.ndarray, "B L"], Int[np.ndarray, "B M"]], TopK]

_Arrays: TypeAlias = dict[str, Float[np.ndarray, "..."]]


def load_program(folder: str | os.PathLike[str]) -> Program:
    """Reads the compiled program of a shipped student and its weights.

    The program runs on CPU, CUDA and TPU, with a JAX at least as new as the one that wrote it. Weights and catalogue
    are only parsed, but the program is executed: load it only from a source that you trust.

    Args:
        folder: the folder of the shipped student.

    Returns:
        A function of items ``[B, L]`` int32, left-aligned, 0 after the last, and of excluded items ``[B, M]`` int32, in
        which 0 has no effect. It returns ``(scores [B, K], ids [B, K])``, best first; −inf and −1 where fewer remain.

    Raises:
        FileNotFoundError: the folder or one of its files is missing.
        ModuleNotFoundError: flatbuffers is not installed.
        ValueError: a file was changed, this JAX cannot read the program, or its scores are not those of the weights.
    """
    import_extra("flatbuffers")
    path = pathlib.Path(folder).resolve()
    config, _ = manifest.read_config(path)
    stored = read_arrays(path, config)
    data = manifest.read_checked(path, config, manifest.PROGRAM, max_bytes=manifest.MAX_PROGRAM_BYTES)
    writer = config.versions.get("jax")
    expected = "an undamaged program of its exporter"
    if writer != jax.__version__:
        expected = f"one that JAX {jax.__version__} can read; JAX {printable(writer, width=50)} wrote it"
    arrays = {name: jnp.asarray(array, config.dtype) for name, array in stored.items()}
    with reading(path / manifest.PROGRAM, expected=expected):
        exported = jax.export.deserialize(bytearray(data))

        def run(items: Int[np.ndarray, "B L"], exclude: Int[np.ndarray, "B M"]) -> TopK:
            return exported.call(arrays, jnp.asarray(items, jnp.int32), jnp.asarray(exclude, jnp.int32))

        answer = run(*_first_session(config))
    _compare(path / manifest.PROGRAM, config, current_names(stored), answer)
    return run


def load_onnx(folder: str | os.PathLike[str]) -> Program:
    """Reads the ONNX graph of a shipped student into ONNX Runtime, on the CPU.

    Args:
        folder: the folder of the shipped student.

    Returns:
        A function as of :func:`load_program`.

    Raises:
        FileNotFoundError: the folder or one of its files is missing.
        ModuleNotFoundError: ONNX Runtime is not installed.
        ValueError: a file was changed, ONNX Runtime cannot read the graph, or its scores are not those of the weights.
    """
    onnxruntime = import_extra("onnxruntime")
    path = pathlib.Path(folder).resolve()
    config, _ = manifest.read_config(path)
    arrays = current_names(read_arrays(path, config))
    data = manifest.read_checked(path, config, manifest.ONNX, max_bytes=onnx_graph.MAX_FILE_BYTES)
    options = onnxruntime.SessionOptions()
    # Errors are raised; the log would only repeat them.
    options.log_severity_level = 4
    with reading(path / manifest.ONNX, expected="an undamaged graph of its exporter"):
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

        def run(items: Int[np.ndarray, "B L"], exclude: Int[np.ndarray, "B M"]) -> TopK:
            inputs = {"items": np.asarray(items, np.int32), "exclude": np.asarray(exclude, np.int32)}
            scores, ids = session.run(["scores", "ids"], inputs)
            return scores, ids

        answer = run(*_first_session(config))
    _compare(path / manifest.ONNX, config, arrays, answer)
    return run


def _first_session(config: manifest.Config) -> tuple[np.ndarray, np.ndarray]:
    """Returns a session of the first and the last item, and no item to exclude."""
    items = np.zeros((1, config.length), np.int32)
    items[0, :2] = (1, config.num_items)[: config.length]
    return items, np.zeros((1, 1), np.int32)


def _compare(file: pathlib.Path, config: manifest.Config, arrays: _Arrays, answer: TopK) -> None:
    """Refuses a compiled form that gives other scores than the weights.

    Raises:
        ValueError: shapes differ, or scores differ by more than rounding.
    """
    items, _ = _first_session(config)
    vectors = numpy_encoders.encode(config.backbone, config.options, arrays, items, length=config.length)
    table = numpy_encoders.item_embeddings(config.backbone, config.options, arrays)
    wanted = -np.sort(-numpy_encoders.scores(vectors, table)[:, 1:])[:, : config.list_length]
    scores, ids = (np.asarray(array) for array in answer)
    if scores.shape != wanted.shape or ids.shape != wanted.shape:
        raise ValueError(f"{file}: shape of the scores is {scores.shape}; expected {wanted.shape}")
    if not np.allclose(scores, wanted, rtol=1e-4, atol=1e-5 * float(np.abs(wanted).max())):
        raise ValueError(f"{file}: scores of the first session differ; expected those of {manifest.WEIGHTS}")
