"""Files with the options of a command, in YAML, TOML or JSON: untrusted text, of which only plain values are taken."""

import dataclasses
import inspect
import json
import pathlib
import re
import tomllib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import tyro
import yaml

from alkd_jax.errors import reading, shown

MAX_BYTES = 2**20
SUFFIXES = (".yaml", ".yml", ".toml", ".json")


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a command.

    Attributes:
        type: of its value, without annotations.
        repeats: whether several values are given as `--name A --name B`.
        is_required: whether it has no default.
    """

    type: Any
    repeats: bool = False
    is_required: bool = False

    @property
    def members(self) -> tuple[Any, ...]:
        """The types that a value may have, one or several."""
        is_union = typing.get_origin(self.type) in (typing.Union, types.UnionType)
        return tuple(map(_bare, typing.get_args(self.type))) if is_union else (self.type,)

    @property
    def is_flag(self) -> bool:
        """Whether it is given as `--name` or `--no-name`, without a value."""
        return bool in self.members


def options_of(kind: Callable[..., Any]) -> dict[str, Option]:
    """Returns the options of a command by name.

    Args:
        kind: a dataclass or a function; the fields of a dataclass among its parameters are options, too.
    """
    found: dict[str, Option] = {}
    hints = typing.get_type_hints(kind, include_extras=True)
    for name, parameter in inspect.signature(kind).parameters.items():
        bare = _bare(hints[name])
        if dataclasses.is_dataclass(bare) and isinstance(bare, type):
            found |= options_of(bare)
        elif not _is_positional(hints[name]):
            repeats = tyro.conf.UseAppendAction in getattr(hints[name], "__metadata__", ())
            found[name] = Option(bare, repeats, parameter.default is inspect.Parameter.empty)
    return found


def num_positional(kind: Callable[..., Any]) -> int:
    """Returns how many values of a command stand without an option's name, before all options."""
    return sum(_is_positional(hint) for hint in typing.get_type_hints(kind, include_extras=True).values())


def _is_positional(annotated: Any) -> bool:
    return tyro.conf.Positional in getattr(annotated, "__metadata__", ())


def _bare(annotated: Any) -> Any:
    return typing.get_args(annotated)[0] if typing.get_origin(annotated) is typing.Annotated else annotated


def read_arguments(path: pathlib.Path, kind: Callable[..., Any], given: Sequence[str]) -> list[str]:
    """Reads a file of options as arguments of a command line.

    Args:
        path: the file; its suffix names the format. A value of null stands for the default.
        kind: the options of the command.
        given: the arguments of the command line, whose options the file does not set.

    Raises:
        ValueError: the file is damaged or too large, an option is unknown, or a value is of another type; the error
            names the file, the option, its value and what was expected.
    """
    options = options_of(kind)
    named = {argument[2:].partition("=")[0].replace("-", "_") for argument in given if argument.startswith("--")}
    arguments: list[str] = []
    for key, value in read_values(path).items():
        name = key.replace("-", "_") if isinstance(key, str) else key
        if name not in options:
            known = ", ".join(sorted(options))
            raise ValueError(f"{path}: {shown(key)} is {shown(value)}, and is no option; expected some of {known}")
        option = options[name]
        if not any(_is_of(value, member) for member in option.members):
            raise ValueError(f"{path}: {name} is {shown(value)}; expected {in_words(option, quotes=', in quotes')}")
        if isinstance(value, list) and any(str(each).startswith("--") for each in value):
            raise ValueError(f"{path}: {name} is {shown(value)}; expected values that do not begin with --")
        if value is not None and not named & {name, f"no_{name}"}:
            arguments += _as_arguments(name.replace("_", "-"), value, option)
    return arguments


def read_values(path: pathlib.Path) -> dict[Any, Any]:
    """Reads the values of a file of options.

    Raises:
        ValueError: the file is not what its suffix says, is larger than 1 MiB, or holds no mapping.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"--config is {shown(str(path))}; expected a file whose name ends in {', '.join(SUFFIXES)}")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{path}: size is more than {MAX_BYTES:,} bytes; expected a file of options")
    form = {".toml": "TOML", ".json": "JSON"}.get(suffix, "YAML")
    try:
        with reading(path, expected=f"{form} in UTF-8 with each option once"):
            parsed = _PARSERS[form](data.decode())
    except _RefusedError as error:
        raise ValueError(f"{path}: {error}") from None
    if parsed is None:
        return {}
    if not isinstance(parsed, dict):
        raise ValueError(f"{path}: holds {shown(parsed)}; expected options by name")
    return parsed


class _RefusedError(ValueError):
    """What no file of options may have; the message lacks the file."""


def _parse_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_distinct)


def _distinct(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    values: dict[Any, Any] = {}
    for key, value in pairs:
        if key in values:
            raise _RefusedError(f"{shown(key)} is there twice; expected each option once")
        values[key] = value
    return values


_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_WHOLE = r"[-+]?(0|[1-9][0-9]*)"


class _PlainValues(yaml.SafeLoader):
    """Loads plain values. An alias, which could stand for a value of any size, is refused, and so is a key twice."""

    # YAML 1.1 takes 1e-3 for text, 1:30 for a number in base 60 and 010 for 8.
    yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_INT, _FLOAT)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise _RefusedError(f"line {event.start_mark.line + 1} has a reference, *{event.anchor}; expected values")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        return _distinct(
            [(self.construct_object(key, True), self.construct_object(of, True)) for key, of in node.value]
        )


_PlainValues.add_constructor("tag:yaml.org,2002:map", _PlainValues.construct_mapping)
_PlainValues.add_implicit_resolver(_INT, re.compile(rf"{_WHOLE}\Z"), list("-+0123456789"))
_PlainValues.add_implicit_resolver(
    _FLOAT, re.compile(rf"{_WHOLE}(\.[0-9]*)?([eE][-+]?[0-9]+)?\Z"), list("-+0123456789")
)


def _parse_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_PlainValues)


_PARSERS: Mapping[str, Callable[[str], Any]] = {"TOML": tomllib.loads, "JSON": _parse_json, "YAML": _parse_yaml}


def _is_of(value: object, kind: Any) -> bool:
    """Returns whether a value of a file is one of a type; a whole number is a number, a bool is none."""
    if kind is types.NoneType:
        return value is None
    if typing.get_origin(kind) is tuple:
        members = typing.get_args(kind)
        if not isinstance(value, list):
            return False
        members = members[:1] * len(value) if members[-1] is Ellipsis else members
        return len(members) == len(value) and all(map(_is_of, value, members))
    if isinstance(value, bool) or kind is bool:
        return type(value) is kind
    return isinstance(value, {float: int | float, pathlib.Path: str}.get(kind, kind))


def in_words(option: Option, *, quotes: str = "") -> str:
    """Returns the values that an option takes, in words.

    Args:
        option: the option.
        quotes: what follows the word for text and for paths, where these stand in quotes.
    """

    def words(kind: Any) -> str:
        if typing.get_origin(kind) is tuple:
            members = typing.get_args(kind)
            count = "" if members[-1] is Ellipsis else f"{len(members)} values, each "
            return f"a list of {count}{words(members[0])}"
        names = {int: "a whole number", float: "a number", bool: "true or false", str: f"text{quotes}"}
        return names.get(kind, f"a path{quotes}")

    return " or ".join(words(member) for member in option.members if member is not types.NoneType)


def _as_arguments(name: str, value: Any, option: Option) -> list[str]:
    match value:
        case bool() if option.is_flag:
            return [f"--{name}" if value else f"--no-{name}"]
        case list() if option.repeats:
            return [f"--{name}={each}" for each in value]
        case list():
            return [f"--{name}", *map(str, value)]
        case _:
            return [f"--{name}={value}"]
