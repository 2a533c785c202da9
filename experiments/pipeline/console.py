"""Terminal output of the commands that train: progress bars, lines of text, and errors of one line."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.text import Text

from alkd_jax.errors import printable
from alkd_jax.llm.ledger import Ledger
from alkd_jax.llm.pricing import dollars
from alkd_jax.llm.usage import UsageReport
from alkd_jax.progress_bars import Bar, progress_bar

from . import exits

_MAX_LINE = 2_000


class _PlainConsole(Console):
    """A console on which no text acts as markup or as a control sequence, also in the cells of a table."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str("\n".join(printable(line, width=_MAX_LINE) for line in text.split("\n")), **options)


console = _PlainConsole(emoji=False, markup=False, highlight=False, width=None if sys.stdout.isatty() else 120)


def print_line(text: str, *, style: str = "") -> None:
    """Prints a text on one line, as it is; what a terminal would interpret is shown as an escape sequence.

    Args:
        text: may hold names out of files.
        style: a color, where the output is a terminal.
    """
    console.print(printable(text, width=_MAX_LINE), style=style, soft_wrap=True)


def print_lines(text: str) -> None:
    """Prints a text of several lines, such as a table, as :func:`print_line` prints each; names in it have one line."""
    for line in text.split("\n"):
        print_line(line)


def stage_bar(title: str, *, total: int | None = None) -> contextlib.AbstractContextManager[Bar]:
    """Returns a context manager that shows how far some work is, see :func:`alkd_jax.progress_bars.progress_bar`."""
    return progress_bar(title, total=total, console=console)


def training_bar(title: str) -> contextlib.AbstractContextManager[Callable[[Any], None]]:
    """Returns a context manager that shows a training run, see :func:`alkd_jax.training.training_bar`."""
    # It loads JAX, and some commands use this module without it.
    from alkd_jax import training

    return training.training_bar(title, console=console)


@contextlib.contextmanager
def llm_progress_bar(total: int) -> Iterator[Callable[[UsageReport, Ledger], None]]:
    """Shows how many answers of a language model have arrived and what they cost; without a terminal, as lines.

    Args:
        total: number of questions.

    Yields:
        The function that :func:`alkd_jax.llm.collection.collect` takes as ``on_progress``.
    """
    with stage_bar("LLM answers", total=total) as bar:

        def show(usage: UsageReport, ledger: Ledger) -> None:
            cost = f"{dollars(ledger.confirmed)} paid, at most {dollars(ledger.possible + ledger.reserved)} more"
            status = f"{cost}  {usage.valid_rate:.0%} usable  {usage.refusals} requests refused"
            bar.update(usage.done + len(usage.failed), status=status)

        yield show


@contextlib.contextmanager
def cli_errors() -> Iterator[None]:
    """Runs a command as :func:`experiments.pipeline.exits.one_line_errors` does, with the compilation cache enabled."""
    with exits.one_line_errors(continues=True):
        from . import compile_cache

        compile_cache.enable()
        yield
