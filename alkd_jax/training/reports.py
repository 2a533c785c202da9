"""What reports the progress of training: a bar, a function, and trackers."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console

from alkd_jax.progress_bars import progress_bar
from alkd_jax.training.results import Progress
from alkd_jax.training.trackers import Tracker, metrics_of


@contextlib.contextmanager
def training_bar(title: str, *, console: Console | None = None) -> Iterator[Callable[[Progress], None]]:
    """Shows one training run as a bar of steps with loss, validation recall, speed and time left, or as lines.

    Args:
        title: names what is being trained.
        console: where to show it; by default the standard output.

    Yields:
        A function that ``fit`` takes as ``progress``.
    """
    with progress_bar(title, may_end_early=True, console=console) as bar:
        bar.update(status="compiling")

        def show(now: Progress) -> None:
            speed = "" if math.isnan(now.speed) else f"  {now.speed:,.0f} sessions/s"
            losses = f"loss {now.loss:.4f}  recall@{now.recall_at} {now.recall:.4f}"
            status = f"{losses}{speed}  {now.active} seeds still training"
            bar.update(now.step, total=now.max_steps, status=status)

        yield show


@contextlib.contextmanager
def reporting(
    progress: bool | Callable[[Progress], None], trackers: Sequence[Tracker]
) -> Iterator[Callable[[Progress], None] | None]:
    """Combines the options ``progress`` and ``trackers`` of ``fit``; trackers are finished at the end of the block.

    Args:
        progress: True for a bar, or a function.
        trackers: of the training run.

    Yields:
        The function to call after each validation; None where nothing is reported.
    """
    with contextlib.ExitStack() as stack:
        show = stack.enter_context(training_bar("training")) if progress is True else progress or None
        for tracker in trackers:
            stack.callback(tracker.finish)

        def report(now: Progress) -> None:
            if show is not None:
                show(now)
            for tracker in trackers:
                tracker.log(now.step, metrics_of(now))

        yield None if show is None and not trackers else report
