"""Popularity: every session gets the most frequent items of the training sessions."""

import numpy as np
from jaxtyping import Bool, Float, Int

from alkd_jax.baselines.counts import Counts
from alkd_jax.baselines.queries import check_query_items


def popularity(
    counts: Counts, items: Int[np.ndarray, "B L"], mask: Bool[np.ndarray, "B L"]
) -> Float[np.ndarray, "B V1"]:
    """``score(v | s) = pop(v)``, the number of occurrences of v in the training sessions.

    Arguments, result and errors are those of all scoring functions, see :mod:`alkd_jax.baselines.queries`.
    """
    check_query_items(counts, items, mask)
    return np.repeat(counts.popularity[None], items.shape[0], axis=0)
