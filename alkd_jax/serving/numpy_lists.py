"""Sessions as rows of an array, and the best items of each, in NumPy. This module loads without JAX."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Int32

_BLOCK_ITEMS = 64


def left_aligned(sessions: Sequence[Sequence[int]]) -> Int32[np.ndarray, "B N"]:
    """Returns sessions as rows of one array, 0 after the last item; at least one column."""
    rows = np.zeros((len(sessions), max(1, *map(len, sessions), 1)), np.int32)
    for row, items in zip(rows, sessions, strict=True):
        row[: len(items)] = items
    return rows


def top_k_positions(scores: Float[np.ndarray, " V"], k: int) -> Int[np.ndarray, " K"]:
    """Returns the positions of the k largest scores above −inf, ties to the lower position; a NaN counts as −inf."""
    if np.isnan(scores.max()):
        scores = np.where(np.isnan(scores), np.float32(-np.inf), scores)
    # The k-th largest of the blocks' maxima is at most the k-th largest score, and is found faster.
    starts = np.arange(0, len(scores), _BLOCK_ITEMS)
    values = np.maximum.reduceat(scores, starts) if k < len(starts) else scores
    if k < len(values):
        # All scores equal to the k-th largest are candidates; a partition alone would choose among them arbitrarily.
        least = np.partition(values, len(values) - k)[len(values) - k]
        candidates = np.flatnonzero((scores >= least) & (scores > -np.inf))
    else:
        candidates = np.flatnonzero(scores > -np.inf)
    return candidates[np.argsort(-scores[candidates], kind="stable")][:k]
