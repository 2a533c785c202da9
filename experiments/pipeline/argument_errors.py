"""What is wrong with the arguments of a command, in one line: the option, its value, and what was expected."""

import difflib
import pathlib
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from alkd_jax.errors import printable, shown

from .config_files import Option, in_words, num_positional, options_of

_OF_OTHER_COMMANDS: Mapping[str, str] = {"data": "source", "source": "data"}
"""An option → that of other commands for the same purpose: prepared data, or raw data that a command prepares."""


def fault_of(kind: Callable[..., Any], arguments: Sequence[str], call: str) -> str | None:
    """Returns what is wrong with the arguments of a command.

    Args:
        kind: the options of the command, a dataclass or a function.
        arguments: those that the parser refused.
        call: how the command is called, such as "alkd prepare".

    Returns:
        One line about the first option that is unknown, else about the first value of another type, else about what
        is missing; None where nothing of this kind is wrong.
    """
    options = {**options_of(kind), "config": Option(pathlib.Path), "help": Option(bool)}
    strays, given = _by_option(arguments)
    names = [f"{sign}{name}" for name, option in options.items() for sign in ("", *(["no_"] if option.is_flag else []))]
    for word, values in given:
        if word.startswith("--") and _name(word) in names:
            continue
        value = f" is {shown(' '.join(values))}, and" if values else ""
        near = nearest(word, [_as_option(name) for name in names])
        if (other := _OF_OTHER_COMMANDS.get(_name(word))) in names:
            near = _as_option(other)
        advice = f"did you mean {near}?" if near else f"expected one of those that {call} --help lists"
        return f"{printable(word, width=100)}{value} is no option of {call}; {advice}"
    strays = strays[num_positional(kind) :]
    if strays:
        return f"{shown(strays[0])} follows no option; expected options of {call}, which begin with --"
    for word, values in given:
        name = _name(word)
        fault = _fault_of_values(options[name if name in options else name.removeprefix("no_")], values)
        if fault is not None:
            return f"{_as_option(name)} {fault}"
    seen = {_name(word) for word, _ in given}
    missing = {name: option for name, option in options.items() if option.is_required and name not in seen}
    if missing:
        return "; ".join(f"{_as_option(name)} is missing; expected {in_words(of)}" for name, of in missing.items())
    return None


def first_of_box(text: str) -> str:
    r"""Returns the first paragraph of a box that the parser printed, as one line.

    Example:
        >>> first_of_box("╭─ Value error ─╮\n│ It is     │\n│ wrong.    │\n│ ───────── │\n│ See help. │\n╰───────────╯")
        'It is wrong.'
    """
    rows = [line.strip("│ ") for line in text.splitlines()[1:]]
    end = next((at for at, row in enumerate(rows) if row.startswith(("─", "╰"))), len(rows))
    return " ".join(rows[:end])


def nearest(word: str, known: Collection[str]) -> str | None:
    """Returns the known name that a mistyped or shortened one may stand for, if there is one.

    Example:
        >>> nearest("--seds", ["--seeds", "--out"])
        '--seeds'
    """
    longer = [name for name in known if name.startswith(word) and len(word) > 3]
    return next(iter(longer or difflib.get_close_matches(word, known, 1, 0.7)), None)


def _by_option(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Returns the words before any option, and each option as it was written with its values."""
    strays: list[str] = []
    given: list[tuple[str, list[str]]] = []
    for argument in arguments:
        word, equals, value = argument.partition("=")
        if argument.startswith("--") or (argument.startswith("-") and argument[1:2].isalpha()):
            given.append((word, [value] if equals else []))
        elif given:
            given[-1][1].append(argument)
        else:
            strays.append(argument)
    return strays, given


def _name(word: str) -> str:
    return word.removeprefix("--").replace("-", "_")


def _as_option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _fault_of_values(option: Option, values: Sequence[str]) -> str | None:
    """Returns what is wrong with the values of an option; None where they are of one of its types."""
    value = f"is {shown(' '.join(values))}" if values else "has no value"
    if option.is_flag:
        return f"{value}; expected no value, as a name that begins with --no- means no" if values else None
    if any(_are_of(values, member) for member in option.members):
        return None
    is_single = not any(typing.get_origin(member) is tuple for member in option.members)
    return f"{value}; expected {'one value, ' if is_single and len(values) > 1 else ''}{in_words(option)}"


def _are_of(values: Sequence[str], kind: Any) -> bool:
    """Whether the words after an option can be read as a value of a type."""
    if typing.get_origin(kind) is tuple:
        members = typing.get_args(kind)
        members = members[:1] * len(values) if members[-1] is Ellipsis else members
        return len(members) == len(values) and all(map(_is_of, values, members))
    return len(values) == 1 and _is_of(values[0], kind)


_READERS: Mapping[Any, Callable[[str], Any]] = {int: int, float: float}


def _is_of(word: str, kind: Any) -> bool:
    if kind is types.NoneType:
        return False
    try:
        _READERS.get(kind, str)(word)
    except ValueError:
        return False
    return True
