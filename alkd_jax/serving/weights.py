"""The weights of a shipped student: a safetensors file, read as untrusted. This module loads without JAX."""

import math
import pathlib
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32, UInt8

from alkd_jax.errors import import_extra, reading, shown
from alkd_jax.serving import manifest, numpy_encoders, packed

_FORMER_NAMES = {"meeting_kernel": "interaction_kernel"}
"""Former name of a parameter in shipped folders → its name today."""
_HEADER_BYTES = 2**20


Weights: TypeAlias = dict[str, Float32[np.ndarray, "..."] | UInt8[np.ndarray, "..."]]


def read_arrays(path: pathlib.Path, config: manifest.Config) -> Weights:
    """Reads the weights of a shipped student.

    Args:
        path: the folder.
        config: its config.

    Returns:
        Parameter name, as in the file, → array in float32; of a packed student in bytes.

    Raises:
        FileNotFoundError: the file of the weights is missing.
        ValueError: the file was changed, is damaged, or contains other arrays than those of this student; or the
            config has an option or a length that its backbone does not have.
    """
    if config.backbone in packed.PACKED_STUDENTS:
        return _read_packed(path, config)
    safetensors_numpy = import_extra("safetensors.numpy")
    sizes = {"num_items": config.num_items, "dim": config.dim}
    try:
        numpy_encoders.check_options(config.backbone, config.options, dim=config.dim)
        numpy_encoders.check_length(config.backbone, config.options, dim=config.dim, length=config.length)
    except ValueError as error:
        raise ValueError(f"{path / manifest.CONFIG}: {error}") from error
    shapes = numpy_encoders.parameter_shapes(config.backbone, config.options, **sizes)
    max_bytes = _HEADER_BYTES + sum(map(math.prod, shapes.values())) * np.dtype(config.dtype).itemsize
    file = path / manifest.WEIGHTS
    content = manifest.read_checked(path, config, manifest.WEIGHTS, max_bytes=max_bytes)
    with reading(file, expected=f"arrays of {config.dtype} in the safetensors format"):
        arrays = safetensors_numpy.load(content)
    try:
        numpy_encoders.check_arrays(config.backbone, config.options, current_names(arrays), **sizes, dtype=config.dtype)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def _read_packed(path: pathlib.Path, config: manifest.Config) -> Weights:
    """Reads the arrays of a packed student.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file was changed or has other arrays, or an option is out of range.
    """
    safetensors_numpy = import_extra("safetensors.numpy")
    kind, options, num_items = config.backbone, config.options, config.num_items
    try:
        packed.check_options(kind, options, num_items=num_items)
    except ValueError as error:
        raise ValueError(f"{path / manifest.CONFIG}: {error}") from error
    sizes = packed.PACKED_STUDENTS[kind].shapes(options, num_items).values()
    most, file = _HEADER_BYTES + sum(map(math.prod, sizes)), path / manifest.WEIGHTS
    content = manifest.read_checked(path, config, manifest.WEIGHTS, max_bytes=most)
    with reading(file, expected="arrays of uint8 in the safetensors format"):
        arrays = safetensors_numpy.load(content)
    try:
        packed.check_arrays(kind, options, arrays, num_items=num_items)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    return arrays


def current_names(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns a student's parameters by the names of today.

    Raises:
        ValueError: a parameter is there by both names.
    """
    renamed = {_FORMER_NAMES.get(name, name): array for name, array in arrays.items()}
    if len(renamed) != len(arrays):
        raise ValueError(f"arrays are {shown(sorted(arrays), width=300)}; expected each parameter once")
    return renamed
