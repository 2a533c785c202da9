"""Synthetic sessions whose items follow each other in the order of their ids, so that the next item can be learned."""

import numpy as np

from alkd_jax.types import Sessions

NUM_ITEMS = 40


def cyclic_sessions(num_sessions: int, first_id: int, seed: int, num_items: int = NUM_ITEMS) -> Sessions:
    """Sessions of two to five items that start at a random item; after the last item of the catalogue comes the first.

    Args:
      num_sessions: how many sessions.
      first_id: the id of the first session; the others count on from there.
      seed: of the lengths and the first items.
      num_items: size of the catalogue.
    """
    rng = np.random.default_rng(seed)
    length = rng.integers(2, 6, num_sessions)
    start = rng.integers(0, num_items, num_sessions)
    items = (start[:, None] + np.arange(5)) % num_items + 1
    mask = np.arange(5) < length[:, None]
    return Sessions(
        items=np.where(mask, items, 0).astype(np.int32),
        mask=mask,
        target=((start + length) % num_items + 1).astype(np.int32),
        session_id=np.arange(first_id, first_id + num_sessions, dtype=np.int32),
    )
