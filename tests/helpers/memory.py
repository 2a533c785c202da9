"""The memory that a piece of code takes, counted and not timed."""

import contextlib
import tracemalloc


@contextlib.contextmanager
def peak_below(size):
    """Checks the most memory that a block had allocated at one time, in bytes."""
    tracemalloc.start()
    try:
        yield
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < size
