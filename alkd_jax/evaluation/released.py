"""The rules of the authors' code: its item 0 is padding too, and its NDCG takes positions from a Python set."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from alkd_jax.types import PAD, Sessions

_PADDING_ITEM = 1
"""The id here of the release's item 0, which the released code also uses as padding."""


def released_view(sessions: Sessions) -> Sessions:
    """Returns the sessions as the released code reads them: its item 0, here item 1, is padding in the input."""
    mask = np.asarray(sessions.mask) & (np.asarray(sessions.items) != _PADDING_ITEM)
    return sessions.replace(items=np.where(mask, sessions.items, PAD).astype(np.int32), mask=mask)  # type: ignore[attr-defined]


def released_input(
    items: Int[Array, "B L"], mask: Bool[Array, "B L"]
) -> tuple[Int[Array, "B L"], Bool[Array, "B L"], Int[Array, "B M"]]:
    """Returns items and mask as the released code reads them, and the items that it does not rank.

    It does not rank its item 0 for a session shorter than L either.
    """
    real = mask & (items != _PADDING_ITEM)
    padding_item = jnp.where(real.all(1), PAD, _PADDING_ITEM)
    return jnp.where(real, items, PAD), real, jnp.concatenate([items, padding_item[:, None]], axis=1)


def hash_order_ndcg(lists: Int[np.ndarray, "N K"], target: Int[np.ndarray, " N"]) -> float:
    """NDCG with the position taken from the iteration order of ``set(list)``, as the released code does.

    It does not measure the ranking and serves comparison with the published numbers only. It depends on the memory
    layout of a set of integers in CPython.

    Args:
        lists: the top K items, best first, numbered from 0 as in the release.
        target: the targets, numbered from 0.
    """
    total = 0.0
    for list_, item in zip(lists.tolist(), target.tolist(), strict=True):
        order = list(set(list_))
        if item in order:
            total += 1.0 / np.log2(order.index(item) + 2.0)
    return float(total / len(target))
