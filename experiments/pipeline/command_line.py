"""The command line of every command: usage by the command's name, options with their choices, files of options."""

import functools
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import tyro

from . import calls, config_files

Parsed = TypeVar("Parsed")

_Config = Annotated[
    pathlib.Path | None,
    tyro.conf.arg(
        metavar="FILE",
        help="file with some of these options, by name: YAML, TOML or JSON, also the config.json of a run. Options on "
        "the command line win over those of the file.",
    ),
]


def parse(
    kind: Callable[..., Parsed], module: str, description: str | None, *, arguments: Sequence[str] | None = None
) -> Parsed:
    """Parses the arguments of a command and makes what they describe.

    Args:
        kind: a dataclass of options, or a function, which is called with the options.
        module: of the command, such as "reproduce", or "benchmarks.training".
        description: its docstring, of which examples are shown as the command is called in this process.
        arguments: of the command line; by default those of the process.

    Raises:
        ValueError: `--config` names a file that is none, or that has an unknown option or a value of another type.
        SystemExit: the arguments ask for help, or are wrong, which has been printed.
    """
    arguments = _with_config(kind, list(sys.argv[1:] if arguments is None else arguments))
    make: Callable[[], Parsed] = tyro.cli(
        _command(kind), prog=calls.call_of(module), description=calls.with_calls(description or ""), args=arguments
    )
    return make()


def parse_subcommand(
    kinds: Mapping[str, Callable[..., Any]],
    module: str,
    description: str | None,
    *,
    arguments: Sequence[str] | None = None,
) -> Any:
    """Parses the arguments of a command that has sub-commands, as :func:`parse`, and calls the one that is named.

    Args:
        kinds: sub-command → function, which is called with the options.
        module: as of :func:`parse`.
        description: as of :func:`parse`.
        arguments: as of :func:`parse`.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and arguments[0] in kinds:
        arguments = [arguments[0], *_with_config(kinds[arguments[0]], arguments[1:])]
    make = tyro.extras.subcommand_cli_from_dict(
        {name: _command(kind) for name, kind in kinds.items()},
        prog=calls.call_of(module),
        description=calls.with_calls(description or ""),
        args=arguments,
    )
    return make()


def _command(kind: Callable[..., Parsed]) -> Callable[..., Callable[[], Parsed]]:
    """Returns a function with the options of a command, and `--config`, which help lists with them.

    It returns a function without arguments, so that no command runs, and raises errors of its own, within the parser.
    """
    constructor: Callable[..., Any] = kind
    if not isinstance(kind, type):

        @functools.wraps(kind)
        def constructor(*args: Any, **options: Any) -> Callable[[], Parsed]:
            return functools.partial(kind, *args, **options)

    def command(
        *, options: Annotated[Any, tyro.conf.arg(name="", constructor=constructor)], config: _Config = None
    ) -> Any:
        return (lambda: options) if isinstance(kind, type) else options

    command.__doc__ = kind.__doc__
    return command


def _with_config(kind: Callable[..., Any], arguments: list[str]) -> list[str]:
    """Returns the arguments with those of the file that `--config` names before them."""
    rest: list[str] = []
    files: list[str] = []
    left = iter(arguments)
    for argument in left:
        name, equals, value = argument.partition("=")
        if name != "--config":
            rest.append(argument)
        elif equals:
            files.append(value)
        else:
            files.append(next(left, ""))
    if not files:
        return arguments
    if len(files) > 1 or not files[0]:
        raise ValueError(f"--config is {' '.join(files)!r}; expected one file")
    return [*config_files.read_arguments(pathlib.Path(files[0]), kind, rest), *rest]
