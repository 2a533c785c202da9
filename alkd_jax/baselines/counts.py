"""Counts of items, item pairs and transitions in the training sessions, as sparse matrices on the host."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from alkd_jax.checks import check_between, check_count, check_span
from alkd_jax.types import Sequences

_MIN_WEIGHT = 1e-3
"""Pairs of items so far apart that their decayed weight is below this are not counted."""


@dataclasses.dataclass(frozen=True, eq=False)
class Counts:
    """Exact counts over N training sessions of items ``1..V``, in float64.

    Attributes:
        num_items: V.
        popularity: ``[V + 1]``, occurrences of each item, as input or target.
        transitions: ``[V + 1, V + 1]``, how often the column's item directly follows the row's item.
        followers: ``[V + 1, V + 1]``, how often the column's item comes after the row's item in a session, with weight
            ``decayᵈ⁻¹`` at a distance of d positions.
        co_occurrence: ``[V + 1, V + 1]``, number of sessions with both items; on the diagonal, with the item.
        session_items: ``[N, V + 1]``, 1 where the session contains the item.
        item_sessions: ``[V + 1, N]``, the transpose of ``session_items``: the sessions that contain each item.
    """

    num_items: int
    popularity: Float[np.ndarray, " V1"]
    transitions: csr_array
    followers: csr_array
    co_occurrence: csr_array
    session_items: csr_array
    item_sessions: csr_array


def count(sequences: Sequences, num_items: int, *, decay: float = 0.9) -> Counts:
    """Counts items, transitions, followers and co-occurrences in the training sessions.

    Args:
        sequences: N training sessions at full length, inputs followed by the target.
        num_items: V.
        decay: in (0, 1), the factor by which each further position of distance reduces the weight of a follower; pairs
            with a weight below 0.001 are not counted.

    Returns:
        The counts from which all methods of this package compute scores.

    Raises:
        ValueError: there are no items, an id is outside ``1..V``, the offsets do not partition the items, or decay is
            out of range.
    """
    check_count(1, num_items=num_items)
    items, offsets = np.asarray(sequences.items), np.asarray(sequences.offsets)
    if not 0.0 < decay < 1.0:
        raise ValueError(f"decay is {decay}; expected a number in (0, 1)")
    if items.size == 0:
        raise ValueError("number of items in the training sequences is 0; expected at least 1")
    check_span("items of the training sequences", items, 1, num_items)
    lengths = np.diff(offsets)
    if offsets[0] != 0 or offsets[-1] != items.size or lengths.min() < 0:
        raise ValueError(
            f"offsets are from {offsets[0]} to {offsets[-1]}; expected ascending ones from 0 to {items.size}, the items"
        )
    session = np.repeat(np.arange(lengths.size), lengths)
    adjacent = session[1:] == session[:-1]
    session_items = _count_pairs(session, items, (lengths.size, num_items + 1))
    session_items.data[:] = 1.0
    item_sessions = session_items.T.tocsr()
    return Counts(
        num_items=num_items,
        popularity=np.bincount(items, minlength=num_items + 1).astype(np.float64),
        transitions=_count_pairs(items[:-1][adjacent], items[1:][adjacent], (num_items + 1, num_items + 1)),
        followers=_followers(session, items, num_items, decay),
        co_occurrence=(item_sessions @ session_items).tocsr(),
        session_items=session_items,
        item_sessions=item_sessions,
    )


def held_out_folds(
    sequences: Sequences, num_items: int, *, folds: int
) -> Iterator[tuple[Counts, Int[np.ndarray, " M"]]]:
    """Splits the training sessions into folds and counts, for each fold, all sessions outside it.

    Session n belongs to fold ``n mod folds``. A method that scores the sessions of a fold by these counts has not seen
    their targets.

    Args:
        sequences: N training sessions at full length.
        num_items: V.
        folds: number of folds, in ``2..N``; N leaves out one session at a time.

    Yields:
        For each fold, the counts of the sessions outside it and the numbers of the sessions in it.

    Raises:
        ValueError: folds is outside ``2..N``, or as in :func:`count`.
    """
    num_sessions = len(sequences)
    check_count(2, folds=folds)
    check_between(2, num_sessions, folds=folds)
    items, lengths = np.asarray(sequences.items), np.diff(np.asarray(sequences.offsets))
    for fold in range(folds):
        is_counted = np.arange(num_sessions) % folds != fold
        offsets = np.concatenate([[0], np.cumsum(lengths[is_counted])])
        others = Sequences(items=items[np.repeat(is_counted, lengths)], offsets=offsets)
        yield count(others, num_items), np.flatnonzero(~is_counted)


def _followers(session: Int[np.ndarray, " T"], items: Int[np.ndarray, " T"], num_items: int, decay: float) -> csr_array:
    """Sums the decayed weights of item pairs over all distances within a session."""
    total = csr_array((num_items + 1, num_items + 1))
    max_distance = 1 + int(np.log(_MIN_WEIGHT) / np.log(decay))
    for distance in range(1, min(max_distance, len(items) - 1) + 1):
        same_session = session[distance:] == session[:-distance]
        if not same_session.any():
            break
        pairs = _count_pairs(items[:-distance][same_session], items[distance:][same_session], total.shape)
        total = total + decay ** (distance - 1) * pairs
    return total.tocsr()


def _count_pairs(row: Int[np.ndarray, " T"], column: Int[np.ndarray, " T"], shape: tuple[int, int]) -> csr_array:
    """Counts how often each pair (row, column) occurs."""
    return csr_array((np.ones(row.size), (row, column)), shape=shape)
