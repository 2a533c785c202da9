"""Progress of long work: bars on a terminal and in a notebook, elsewhere a line a minute; both with the time left."""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from alkd_jax.errors import printable

SECONDS_BETWEEN_LINES = 60
"""Seconds between two lines where no bar is shown, as in a log file."""

_SECONDS_BETWEEN_LOOKS = 5.0
_MAX_LINE = 2_000


@dataclasses.dataclass
class Task:
    """Work in progress.

    Attributes:
        title: names the work.
        total: number of its parts; None where it is not known.
        may_end_early: whether there may be fewer parts, so that the time left is an upper bound.
        done: number of parts that are done.
        status: what else is known, in words.
        began: time at which the work began, of the monotonic clock.
        first: time and number of parts of the first report; what came before, such as compilation, tells no speed.
    """

    title: str
    total: int | None = None
    may_end_early: bool = False
    done: int = 0
    status: str = ""
    began: float = dataclasses.field(default_factory=time.monotonic)
    first: tuple[float, int] | None = None

    def seconds_left(self, now: float) -> float | None:
        """Returns the time until all parts are done at the speed so far; None until it is known."""
        if self.total is None or self.first is None or self.done <= self.first[1]:
            return None
        began, done = self.first
        return max(0.0, (self.total - self.done) * (now - began) / (self.done - done))

    def time_left(self, now: float) -> str:
        """Returns :meth:`seconds_left` in words, empty until it is known."""
        left = self.seconds_left(now)
        return "" if left is None else f"{'at most ' * self.may_end_early}{in_words(left)} left"

    def line(self, now: float) -> str:
        """Returns a line that says how far the work is."""
        step = f"step {self.done:,}" if self.total is None else f"{self.done:,} of {self.total:,}"
        parts = [step if self.first is not None else "", self.status]
        parts.append(self.time_left(now) or f"{in_words(now - self.began)} so far")
        return printable(f"{self.title}: {'  '.join(filter(None, parts))}", width=_MAX_LINE)


def in_words(seconds: float | int) -> str:
    """Returns a duration in the two largest units that matter.

    Example:
        >>> in_words(5000)
        '1 h 23 min'
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class Bar:
    """What shows a task: a row of the bars of its console, or a line now and then."""

    def __init__(self, task: Task, console: Console) -> None:
        self.task, self.console = task, console
        self._last_line = task.began
        self._row = None if _shown is None else _shown.add_task(printable(task.title), total=task.total, status="")

    def update(self, done: int | None = None, *, total: int | None = None, status: str | None = None) -> None:
        """Reports how far the work is.

        Args:
            done: number of parts that are done.
            total: number of all parts.
            status: what else is known, in words.
        """
        task, now = self.task, time.monotonic()
        task.total = task.total if total is None else total
        task.status = task.status if status is None else status
        if done is not None:
            task.done = done
            task.first = task.first or (now, done)
        if _shown is not None and self._row is not None:
            text = printable("  ".join(filter(None, (task.status, task.time_left(now)))), width=_MAX_LINE)
            _shown.update(self._row, completed=task.done, total=task.total, status=text)
        self.print_if_due()

    def print_if_due(self) -> None:
        """Prints a line if there is no bar, the last line was long ago, and no part of this work shows its own."""
        now = time.monotonic()
        if self._row is None and _bars[-1:] == [self] and now - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = now
            self.console.print(self.task.line(now), markup=False, highlight=False, soft_wrap=True)

    def remove(self) -> None:
        """Takes the row away."""
        if _shown is not None and self._row is not None:
            _shown.remove_task(self._row)


_bars: list[Bar] = []
"""The bars of work in progress, that of a part after that of the whole."""

_shown: Progress | None = None
"""The rows of all bars, while they are shown."""


@contextlib.contextmanager
def progress_bar(
    title: str, *, total: int | None = None, may_end_early: bool = False, console: Console | None = None
) -> Iterator[Bar]:
    """Shows how far some work is while a block runs. The bar of a part of it is shown below that of the whole.

    Args:
        title: names the work.
        total: number of its parts; the bar only shows that time passes where it is not known.
        may_end_early: whether there may be fewer parts.
        console: where to show it; by default the standard output.

    Yields:
        The bar, whose ``update`` reports progress. It need not be called: lines are printed by another thread, too.
    """
    global _shown
    console = console or Console(markup=False, highlight=False, emoji=False)
    is_outermost, ended = not _bars, threading.Event()
    if is_outermost and console.is_terminal:
        _shown = _rows(console)
        _shown.start()
    bar = Bar(Task(title, total, may_end_early), console)
    _bars.append(bar)
    if _shown is None:
        threading.Thread(target=_print_lines, args=(bar, ended), daemon=True).start()
    try:
        yield bar
    finally:
        ended.set()
        _bars.remove(bar)
        if is_outermost and _shown is not None:
            _shown.stop()
            _shown = None
        bar.remove()


def _rows(console: Console) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}", markup=False),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console, transient=True)


def _print_lines(bar: Bar, ended: threading.Event) -> None:
    """Prints lines while a task makes no reports."""
    while not ended.wait(_SECONDS_BETWEEN_LOOKS):
        bar.print_if_due()
