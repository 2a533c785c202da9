"""The sessions on which the steppers of training are compared with each other."""

import numpy as np

from alkd_jax.types import Sessions

NUM_ITEMS = 40


def sessions_of_some_items():
    """Ninety sessions; the last items are in none of them, and some of these are no target either."""
    rng = np.random.default_rng(0)
    mask = np.arange(6) < rng.integers(1, 7, 90)[:, None]
    items = np.where(mask, rng.integers(1, NUM_ITEMS - 10, (90, 6)), 0).astype(np.int32)
    return Sessions(items, mask, rng.integers(1, NUM_ITEMS - 5, 90).astype(np.int32), np.arange(90, dtype=np.int32))
