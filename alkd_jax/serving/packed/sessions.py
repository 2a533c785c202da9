"""The items of the sessions that are scored."""

import numpy as np
from jaxtyping import Int


def known_items(
    items: Int[np.ndarray, "B N"],
) -> tuple[Int[np.ndarray, " T"], Int[np.ndarray, " T"], Int[np.ndarray, " T"]]:
    """Returns row, item, and number of steps to the session's end, of every item of some sessions.

    Args:
        items: ``[B, N]``, in time order, 0 where there is no item.
    """
    is_item = items > 0
    steps_to_end = is_item.sum(1, keepdims=True) - np.cumsum(is_item, axis=1)
    row, column = np.nonzero(is_item)
    return row, items[row, column].astype(np.int64), steps_to_end[row, column]
