"""Checks of the options and arrays of a shipped student, whose files are untrusted."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from alkd_jax.errors import shown


def check_option_types(student: str, options: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Checks the names and the types of options.

    Args:
        student: name of the backbone or of the kind of student.
        options: the options.
        known: name → a value of the expected type.

    Raises:
        ValueError: an option is unknown, missing or of another type.
    """
    if options.keys() != known.keys():
        raise ValueError(f"options of {student} are {shown(sorted(options))}; expected {sorted(known)}")
    for name, value in known.items():
        if type(options[name]) is not type(value):
            raise ValueError(f"{student}: {name} is {shown(options[name])}; expected the type of {value!r}")


def check_array_shapes(
    arrays: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]], *, dtype: str
) -> None:
    """Checks the names, types and shapes of arrays.

    Args:
        arrays: the arrays.
        expected: name → shape.
        dtype: name of the type of all.

    Raises:
        ValueError: an array is unknown, missing, or of another type or shape.
    """
    if arrays.keys() != expected.keys():
        raise ValueError(f"arrays are {shown(sorted(arrays), width=300)}; expected {sorted(expected)}")
    for name, shape in expected.items():
        array = arrays[name]
        if array.shape != shape or array.dtype.name != dtype:
            raise ValueError(f"{name} is {array.dtype} {array.shape}; expected {dtype} {shape}")
