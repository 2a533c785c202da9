"""The order of a source's identifiers, where an order by identifier is asked for."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64


def natural_order(ids: Sequence[str]) -> Int64[np.ndarray, " V"]:
    """Returns the order that sorts identifiers, numerically if all are numbers of any length, else as text.

    Equal numbers, such as "7" and "07", stay in the given order.

    Args:
        ids: V identifiers, without padding.

    Returns:
        ``[V]`` the positions of the identifiers, the first one first.

    Example:
        >>> natural_order(["10", "9", "100000000000000000000"]).tolist()
        [1, 0, 2]
    """
    positions = range(len(ids))
    if all(name.isascii() and name.isdigit() for name in ids):
        # Digits without leading zeros sort as numbers by length, then as text; Python makes no number of too many.
        digits = [name.lstrip("0") for name in ids]
        return np.array(sorted(positions, key=lambda number: (len(digits[number]), digits[number])), np.int64)
    return np.array(sorted(positions, key=ids.__getitem__), np.int64)
