"""The histories that are scored, the type of scorers, and what they share.

A scorer is called as ``(histories) -> scores``; :func:`alkd_jax.baselines.fit` makes one by name, and a method of
counts becomes one by ``functools.partial(baselines.markov, counts)``. It runs on the host in float64, so that rounding
does not hide the tie-break of 1e-6. All scoring functions of counts have in common:

Args:
    counts: the counts of the training sessions.
    histories: B histories of any length, ids in ``1..V``.

Returns:
    ``[B, V + 1]`` scores of all items, those in the history included; column 0 is padding.

Raises:
    ValueError: a history contains an id outside ``1..V``, or an option is out of range.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int, Int64
from scipy.sparse import csr_array

from alkd_jax.baselines.counts import Counts
from alkd_jax.checks import check_finite, check_span
from alkd_jax.types import PAD

# Scores are compared after rounding to this many decimals: sums of the same cosines in another order differ by 1e-16,
# one occurrence in the tie-break by 1e-6 / (largest popularity).
_DECIMALS = 12

BATCH_SIZE = 64
"""Queries scored at a time by default: few enough that the scores of a large catalogue stay in the cache."""


@dataclasses.dataclass(frozen=True, eq=False)
class Histories:
    """The known items of B sessions, on the host.

    Attributes:
        items: ``[B, L]``, in time order, ids in ``1..V`` on real items; a method reads all of them.
        mask: ``[B, L]``, True on real items.
        time: ``[B]``, time of the last known item in milliseconds since 1970; None where it is not known.
    """

    items: Int[np.ndarray, "B L"]
    mask: Bool[np.ndarray, "B L"]
    time: Int64[np.ndarray, " B"] | None = None

    def __len__(self) -> int:
        """Returns the number of histories B."""
        return self.items.shape[0]

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[int]], time: Sequence[int] | np.ndarray | None = None) -> "Histories":
        """Returns lists of items as histories, left-aligned.

        Args:
            rows: the known items of each session in time order, ids from 1.
            time: as of the class.
        """
        length = max((len(row) for row in rows), default=0)
        items = np.full((len(rows), max(length, 1)), PAD, np.int32)
        for row, known in zip(items, rows, strict=True):
            row[: len(known)] = known
        return cls(items, items != PAD, None if time is None else np.asarray(time, np.int64))


Scorer: TypeAlias = Callable[[Histories], Float[np.ndarray, "B V1"]]
"""Function of histories that returns the scores of all items."""

Method: TypeAlias = Callable[[Counts], Scorer]
"""Function of the training sessions' counts that returns a scorer."""


def call_scorer(scorer: Scorer, counts: Counts, histories: Histories) -> Float[np.ndarray, "B V1"]:
    """Returns the scores of a scorer.

    Raises:
        ValueError: they are not finite ``[B, V + 1]``.
    """
    scores = scorer(histories)
    expected = (len(histories), counts.num_items + 1)
    if scores.shape != expected:
        raise ValueError(f"shape of scores is {scores.shape}; expected finite scores of shape {expected}")
    check_finite("scores", scores)
    return scores


def break_ties(counts: Counts, scores: Float[np.ndarray, "B V1"]) -> Float[np.ndarray, "B V1"]:
    """Returns ``score(v) + 10⁻⁶ pop(v) / max pop``, rounded so that equal scores are equal floats; −inf for padding.

    The more popular of two items with equal scores comes first: this is a part of every method's definition, and not a
    rule for ties.
    """
    broken = np.round(scores + 1e-6 * counts.popularity / counts.popularity.max(), _DECIMALS)
    broken[:, PAD] = -np.inf
    return broken


def query_matrix(counts: Counts, histories: Histories, weights: Float[np.ndarray, "B L"]) -> csr_array:
    """Returns the histories as a sparse ``[B, V + 1]`` matrix of item weights, summed over repeated items."""
    check_query_items(counts.num_items, histories)
    row, position = np.nonzero(histories.mask & (weights != 0))
    shape = (len(histories), counts.num_items + 1)
    return csr_array((weights[row, position], (row, histories.items[row, position])), shape=shape)


def steps_to_end(mask: Bool[np.ndarray, "B L"]) -> Int[np.ndarray, "B L"]:
    """Returns the number of real items after each position."""
    return mask.sum(axis=1, keepdims=True) - np.cumsum(mask, axis=1)


def check_query_items(num_items: int, histories: Histories) -> None:
    """Refuses histories with an id outside ``1..V``.

    Raises:
        ValueError: an id is outside.
    """
    check_span("items of the queries", histories.items[histories.mask], 1, num_items)
