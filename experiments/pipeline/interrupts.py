"""Requests to end this process: Ctrl-C, and SIGTERM, which the schedulers of clusters send; without JAX."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def sigterm_as_ctrl_c() -> Iterator[Callable[[], bool]]:
    """Within the block SIGTERM ends the main thread as Ctrl-C does; a second SIGTERM does not disturb that.

    Yields:
        Returns whether SIGTERM has arrived.
    """
    has_arrived = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal has_arrived
        if has_arrived:
            return
        has_arrived = True
        # An event loop has a handler of its own. Where Ctrl-C is ignored, as in the background of a script, there is
        # none, and SIGTERM counts nevertheless.
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler):
            handler(signal.SIGINT, frame)
        else:
            raise KeyboardInterrupt

    with _handlers({signal.SIGTERM: interrupt}):
        yield lambda: has_arrived


@contextlib.contextmanager
def postponed() -> Iterator[Callable[[], bool]]:
    """Within the block Ctrl-C and SIGTERM wait for its end, where their former handlers run.

    Before the function that is yielded is called for the first time there is nothing to wait for, so that they do not
    wait, and neither does a second Ctrl-C.

    Yields:
        Returns whether a request to end is waiting.
    """
    waiting: list[int] = []
    has_asked = False

    def is_waiting() -> bool:
        nonlocal has_asked
        has_asked = True
        return bool(waiting)

    def postpone(number: int, frame: FrameType | None) -> None:
        is_first = not waiting
        waiting.append(number)
        if not has_asked if is_first else number == signal.SIGINT:
            raise KeyboardInterrupt

    try:
        with _handlers({signal.SIGINT: postpone, signal.SIGTERM: postpone}):
            yield is_waiting
    finally:
        if waiting:
            signal.raise_signal(waiting[0])


@contextlib.contextmanager
def _handlers(handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]]) -> Iterator[None]:
    """Installs signal handlers within the block, except for signals that this process ignores.

    Only the main thread can have handlers; in other threads nothing changes.
    """
    former = {}
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            if signal.getsignal(number) != signal.SIG_IGN:
                former[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler_before in former.items():
            # None stands for a handler that was not installed from Python, and cannot be installed again from it.
            signal.signal(number, signal.SIG_DFL if handler_before is None else handler_before)
