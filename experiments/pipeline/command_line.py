"""The command line of every command: usage by the command's name, options with their choices, files of options."""

import contextlib
import functools
import io
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import tyro

from alkd_jax.checks import check_one_of

from . import argument_errors, calls, config_files

Parsed = TypeVar("Parsed")

_STYLE = (tyro.conf.DisallowNone,)
"""An option that is None by default takes no word for it: it shows only its type in help, and a bool is a flag."""

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
        ValueError: an option is unknown, has a value of another type or is missing, or `--config` names a file that is
            none, or that has such an option.
        SystemExit: the arguments ask for help, which has been printed.
    """
    arguments = _with_config(kind, list(sys.argv[1:] if arguments is None else arguments))
    with _faults_of(kind, arguments, calls.call_of(module)):
        make: Callable[[], Parsed] = tyro.cli(
            _command(kind),
            prog=calls.call_of(module),
            description=calls.with_calls(description or ""),
            args=arguments,
            config=_STYLE,
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
    name, asks_for_help = next(iter(arguments), ""), arguments[:1] in (["-h"], ["--help"])
    call = calls.call_of(module)
    if asks_for_help:
        kind: Callable[..., Any] = dict
    else:
        check_one_of(f"the command after {call}", name, kinds)
        kind = kinds[name]
        arguments = [name, *_with_config(kind, arguments[1:])]
    with _faults_of(kind, arguments[1:], f"{call} {name}"):
        make = tyro.extras.subcommand_cli_from_dict(
            {name: _command(kind) for name, kind in kinds.items()},
            prog=call,
            description=calls.with_calls(description or ""),
            args=arguments,
            config=_STYLE,
        )
    return make()


@contextlib.contextmanager
def _faults_of(kind: Callable[..., Any], arguments: Sequence[str], call: str) -> Iterator[None]:
    """Turns what the parser prints about wrong arguments, a box of several lines, into an error of one line."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            yield
    except SystemExit as stop:
        if not stop.code:
            raise
        fault = argument_errors.fault_of(kind, arguments, call) or argument_errors.first_of_box(printed.getvalue())
        raise ValueError(fault) from None
    sys.stderr.write(printed.getvalue())


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
