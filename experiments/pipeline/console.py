"""Terminal output of the commands that train: progress bars, lines of text, and errors of one line."""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.status import Status
from rich.text import Text

from alkd_jax import training
from alkd_jax.errors import printable
from alkd_jax.llm.ledger import Ledger
from alkd_jax.llm.pricing import dollars
from alkd_jax.llm.usage import UsageReport

from . import compile_cache, exits

SECONDS_BETWEEN_LINES = 60
"""Seconds between two progress lines of one training run where no bar is shown, as in a log file."""

SECONDS_BETWEEN_LLM_LINES = 30
"""The same for the requests to a language model."""

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


def status(text: str) -> Status:
    """Returns a context manager that shows what is being done while its block runs; nothing without a terminal."""
    return console.status(Text(printable(text)))


def status_bar() -> Progress:
    """Returns a progress bar that shows the task's field ``status`` beside its count; hidden without a terminal."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}", markup=False),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@contextlib.contextmanager
def training_bar(title: str) -> Iterator[Callable[[training.Progress], None]]:
    """Shows one training run as a bar of steps with loss, validation recall and speed; without a terminal, as lines.

    Args:
        title: names what is being trained.

    Yields:
        The function that :func:`alkd_jax.training.fit` takes as ``progress``.
    """
    last_line = time.monotonic()
    title = printable(title)
    with status_bar() as bar:
        task = bar.add_task(title, total=None, status="compiling")

        def show(now: training.Progress) -> None:
            nonlocal last_line
            speed = "" if math.isnan(now.speed) else f"  {now.speed:,.0f} sessions/s"
            recall = f"recall@{now.recall_at} {now.recall:.4f}"
            status = f"loss {now.loss:.4f}  {recall}{speed}  {now.active} seeds still training"
            bar.update(task, completed=now.step, total=now.max_steps, status=status)
            if not console.is_terminal and time.monotonic() - last_line > SECONDS_BETWEEN_LINES:
                last_line = time.monotonic()
                print_line(f"{title}: step {now.step:,}  {status}")

        yield show


@contextlib.contextmanager
def llm_progress_bar(total: int) -> Iterator[Callable[[UsageReport, Ledger], None]]:
    """Shows how many answers of a language model have arrived and what they cost; without a terminal, as lines.

    Args:
        total: number of questions.

    Yields:
        The function that :func:`alkd_jax.llm.collection.collect` takes as ``on_progress``.
    """
    last_line = time.monotonic()
    with status_bar() as bar:
        task = bar.add_task("LLM answers", total=total, status="")

        def show(usage: UsageReport, ledger: Ledger) -> None:
            nonlocal last_line
            cost = f"{dollars(ledger.confirmed)} paid, at most {dollars(ledger.possible + ledger.reserved)} more"
            status = f"{cost}  {usage.valid_rate:.0%} usable  {usage.refusals} requests refused"
            bar.update(task, completed=usage.done + len(usage.failed), status=status)
            if not console.is_terminal and time.monotonic() - last_line > SECONDS_BETWEEN_LLM_LINES:
                last_line = time.monotonic()
                print_line(f"{usage.done} of {total} questions answered  {status}")

        yield show


@contextlib.contextmanager
def cli_errors() -> Iterator[None]:
    """Runs a command as :func:`experiments.pipeline.exits.one_line_errors` does, with the compilation cache enabled."""
    with exits.one_line_errors():
        compile_cache.enable()
        yield
