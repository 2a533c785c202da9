"""Small sessions for the recommenders that count."""

import numpy as np

from alkd_jax.types import Sequences, Sessions


def sequences_of(*rows: list[int], time: list[int] | None = None) -> Sequences:
    items = np.array([item for row in rows for item in row], np.int32)
    return Sequences(items, np.cumsum([0, *map(len, rows)]), None if time is None else np.array(time, np.int64))


def sessions_of(*rows: list[int], length: int = 4, targets: list[int] | None = None) -> Sessions:
    items = np.array([row + [0] * (length - len(row)) for row in rows], np.int32).reshape(-1, length)
    target = np.ones(len(rows), np.int32) if targets is None else np.array(targets, np.int32)
    return Sessions(items=items, mask=items > 0, target=target, session_id=np.arange(100, 100 + len(rows)))


def constant(counts, *, value: float | int = 1.0):
    """A method of a user's own."""
    return lambda histories: np.full((len(histories), counts.num_items + 1), float(value))
