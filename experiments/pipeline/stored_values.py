"""Types of values that are read from a run's JSON files, which a user may have edited."""

import dataclasses
import math
import pathlib
import types
import typing
from collections.abc import Mapping
from typing import Any

from alkd_jax.errors import shown


def check_fields(file: pathlib.Path, values: Mapping[str, Any], options: type) -> None:
    """Checks that values are fields of a dataclass and have their types, as JSON holds them.

    Args:
        file: where the values are stored.
        values: field → value.
        options: the dataclass.

    Raises:
        ValueError: there is no such field, a value has another type, or a field without default is missing.
    """
    kinds = typing.get_type_hints(options)
    for name, value in values.items():
        if name not in kinds:
            raise ValueError(f"{file}: {shown(name)} is {shown(value)}; expected one of {', '.join(kinds)} as the name")
        if not fits(value, kinds[name]):
            kind = kinds[name].__name__ if isinstance(kinds[name], type) else kinds[name]
            raise ValueError(f"{file}: {shown(name)} is {shown(value)}; expected {kind}")
    for field in dataclasses.fields(options):
        if field.default is dataclasses.MISSING and field.name not in values:
            raise ValueError(f"{file}: {field.name} is missing; expected {', '.join(kinds)}")


def fits(value: Any, kind: Any) -> bool:
    """Returns whether a value of JSON is of a type: a list is a tuple, a text is a path, and no bool is a number."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return any(fits(value, part) for part in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        parts = typing.get_args(kind)
        is_sequence = isinstance(value, list | tuple) and len(value) == len(parts)
        return is_sequence and all(map(fits, value, parts))
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return isinstance(value, str | pathlib.Path) if kind is pathlib.Path else type(value) is kind
