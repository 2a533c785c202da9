"""How a command ends: errors that a user can correct become one line, and a bug keeps its traceback; without JAX."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

from alkd_jax.errors import explain, origin_of

from . import calls, interrupts

BAD_INPUT, INTERRUPTED, CLOSED_PIPE, TERMINATED = 2, 130, 141, 143
"""Exit codes: for what a user can correct, Ctrl-C, a reader of the output that has gone, and SIGTERM."""

_PACKAGES = ("alkd_jax", __name__.partition(".")[0], "benchmarks")


def say(line: str) -> None:
    """Prints a line on the error stream, if there still is one."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def one_line_errors(*, continues: bool = False, say: Callable[[str], None] = say) -> Iterator[None]:
    """Runs a command. An error that the user can correct ends it with one line, Ctrl-C and SIGTERM with advice.

    Any other exception is passed on with a note that asks to report it.

    Args:
        continues: whether the same command continues what a signal has interrupted.
        say: takes the line.
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a letter shows its escape sequence; the streams of tests cannot be reconfigured.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        with interrupts.sigterm_as_ctrl_c() as has_sigterm:
            yield
            sys.stdout.flush()
    except KeyboardInterrupt:
        advice = "; run the same command again to continue" if continues else ""
        say(f"{'ended by SIGTERM' if has_sigterm() else 'interrupted'}{advice}")
        sys.exit(TERMINATED if has_sigterm() else INTERRUPTED)
    except BrokenPipeError:
        # Python flushes the output once more when it ends, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(CLOSED_PIPE)
    except Exception as error:
        line = explain(error, packages=_PACKAGES)
        if line is None:
            note = _request_to_report(origin_of(error, packages=_PACKAGES))
            # A command that `alkd` runs is within two such blocks.
            if note not in getattr(error, "__notes__", ()):
                error.add_note(note)
            raise
        say(f"error: {calls.with_calls(line)}")
        sys.exit(BAD_INPUT)


def _request_to_report(module: str) -> str:
    if module and module.partition(".")[0] not in _PACKAGES:
        return f"The error arose in {module}, which is not a part of alkd_jax."
    return "This is a bug of alkd_jax. Please report it, with the command and all lines above."
