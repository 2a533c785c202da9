"""Counts the programs that JAX compiles, those that it reads from the compilation cache on disk included."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax

_EVENT = "/jax/core/compile/backend_compile_duration"


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """Returns a list that gets an entry for each compilation within the context.

    Example:
        >>> with compilations() as compiled:
        ...     pass
        >>> compiled
        []
    """
    compiled: list[str] = []

    def record(event: str, duration: float, **_: Any) -> None:
        if event == _EVENT:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(record)
    try:
        yield compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(record)
