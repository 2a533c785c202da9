"""What a person at the terminal sees: a bar while something trains, lines between, and how errors end a command."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from alkd_jax import training
from alkd_jax.llm.ledger import Ledger
from alkd_jax.llm.pricing import dollars
from alkd_jax.llm.usage import UsageReport

from ..pipeline import compile_cache

SECONDS_BETWEEN_LINES = 60
"""Between two lines of one training run where no bar is shown, as in a log."""

console = Console(emoji=False, width=None if sys.stdout.isatty() else 120)


def told_bar() -> Progress:
    """A bar that says beside its count what the field `told` holds; nothing where there is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@contextlib.contextmanager
def training_bar(title: str) -> Iterator[Callable[[training.Progress], None]]:
    """Shows one training run as a bar of steps with loss, validation recall and speed; a line a minute elsewhere.

    Args:
        title: what is being trained.

    Yields:
        What :func:`alkd_jax.training.fit` takes as ``progress``.
    """
    told_at = time.monotonic()
    with told_bar() as bar:
        task = bar.add_task(title, total=None, told="compiling")

        def show(now: training.Progress) -> None:
            nonlocal told_at
            told = f"loss {now.loss:.4f}  recall {now.recall:.4f}  {now.speed:,.0f} sessions/s  {now.active} seeds on"
            bar.update(task, completed=now.step, total=now.max_steps, told=told)
            if not console.is_terminal and time.monotonic() - told_at > SECONDS_BETWEEN_LINES:
                told_at = time.monotonic()
                console.print(f"{title}: step {now.step:,}  {told}", highlight=False, markup=False)

        yield show


@contextlib.contextmanager
def asking_bar(total: int) -> Iterator[Callable[[UsageReport, Ledger], None]]:
    """Shows how many of a language model's answers are in and what they cost; a line every 30 s without a terminal.

    Args:
        total: questions.

    Yields:
        What :func:`alkd_jax.llm.collection.collect` takes as ``on_progress``.
    """
    told_at = time.monotonic()
    with told_bar() as bar:
        task = bar.add_task("asking", total=total, told="")

        def show(account: UsageReport, ledger: Ledger) -> None:
            nonlocal told_at
            usable = f"{account.valid_rate:.0%} usable"
            money = f"{dollars(ledger.confirmed)} paid, {dollars(ledger.possible + ledger.reserved)} more at most"
            told = f"{money}  {usable}  {account.refusals} refusals"
            bar.update(task, completed=account.done + len(account.failed), told=told)
            if not console.is_terminal and time.monotonic() - told_at > 30:
                told_at = time.monotonic()
                console.print(f"{account.done} of {total} answered  {told}", highlight=False)

        yield show


@contextlib.contextmanager
def cli_errors() -> Iterator[None]:
    """Ends the command with one line for what the user can mend, and says how to go on after Ctrl-C.

    Turns the compile cache on first, if this process is a command.
    """
    compile_cache.turn_on()
    try:
        yield
    except KeyboardInterrupt:
        console.print("interrupted; run the same command again to go on from the last finished hop")
        sys.exit(130)
    except (ValueError, FloatingPointError, OSError) as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
