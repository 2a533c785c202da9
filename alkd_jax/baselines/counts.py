"""Counts of items, item pairs and transitions in the training sessions, as sparse matrices on the host."""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int, Int64
from scipy.sparse import csr_array

from alkd_jax.checks import check_between, check_count, check_span, check_times
from alkd_jax.data.sessions import take_sequences
from alkd_jax.models.stored_sessions import farthest_follower
from alkd_jax.types import Sequences


@dataclasses.dataclass(frozen=True, eq=False)
class Counts:
    """Exact counts over N training sessions of items ``1..V``, in float64; each is made when it is first read.

    Attributes:
        sequences: the training sessions at full length, on the host.
        num_items: V.
        decay: factor by which each further position of distance reduces the weight of a follower.
    """

    sequences: Sequences
    num_items: int
    decay: float = 0.9

    def __len__(self) -> int:
        """Returns the number of training sessions N."""
        return len(self.sequences)

    @functools.cached_property
    def session(self) -> Int64[np.ndarray, " T"]:
        """``[T]``, the row of each item's session."""
        return np.repeat(np.arange(len(self)), np.diff(self.sequences.offsets))

    @functools.cached_property
    def popularity(self) -> Float[np.ndarray, " V1"]:
        """``[V + 1]``, occurrences of each item, as input or target."""
        return np.bincount(self.sequences.items, minlength=self.num_items + 1).astype(np.float64)

    @functools.cached_property
    def transitions(self) -> csr_array:
        """``[V + 1, V + 1]``, how often the column's item directly follows the row's item."""
        return self._pairs_at(1)

    @functools.cached_property
    def followers(self) -> csr_array:
        """``[V + 1, V + 1]``, how often the column's item comes after the row's, ``decayᵈ⁻¹`` at d positions."""
        total = csr_array((self.num_items + 1, self.num_items + 1))
        longest = int(np.diff(self.sequences.offsets).max())
        for distance in range(1, min(farthest_follower(self.decay), longest - 1) + 1):
            total = total + self.decay ** (distance - 1) * self._pairs_at(distance)
        return total.tocsr()

    @functools.cached_property
    def co_occurrence(self) -> csr_array:
        """``[V + 1, V + 1]``, number of sessions with both items; on the diagonal, with the item."""
        return (self.item_sessions @ self.session_items).tocsr()

    @functools.cached_property
    def session_items(self) -> csr_array:
        """``[N, V + 1]``, 1 where the session contains the item."""
        matrix = _count_pairs(self.session, np.asarray(self.sequences.items), (len(self), self.num_items + 1))
        matrix.data[:] = 1.0
        return matrix

    @functools.cached_property
    def item_sessions(self) -> csr_array:
        """``[V + 1, N]``, the transpose of ``session_items``: the sessions that contain each item."""
        return self.session_items.T.tocsr()

    def _pairs_at(self, distance: int) -> csr_array:
        """Counts the pairs of items at a distance within a session."""
        items = np.asarray(self.sequences.items)
        same = self.session[distance:] == self.session[:-distance]
        shape = (self.num_items + 1, self.num_items + 1)
        return _count_pairs(items[:-distance][same], items[distance:][same], shape)


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
        ValueError: there are no items, an id is outside ``1..V``, the offsets do not partition the items, times are not
            one for each item, or decay is out of range.
    """
    check_count(1, num_items=num_items)
    items, offsets = np.asarray(sequences.items), np.asarray(sequences.offsets)
    if not 0.0 < decay < 1.0:
        raise ValueError(f"decay is {decay}; expected a number in (0, 1)")
    if items.size == 0:
        raise ValueError("number of items in the training sequences is 0; expected at least 1")
    check_span("items of the training sequences", items, 1, num_items)
    if offsets[0] != 0 or offsets[-1] != items.size or np.diff(offsets).min() < 0:
        raise ValueError(
            f"offsets are from {offsets[0]} to {offsets[-1]}; expected ascending ones from 0 to {items.size}, the items"
        )
    check_times("training sequences", sequences)
    time = None if sequences.time is None else np.asarray(sequences.time)
    return Counts(Sequences(items, offsets, time), num_items, decay)


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
    for fold in range(folds):
        is_counted = np.arange(num_sessions) % folds != fold
        yield count(take_sequences(sequences, np.flatnonzero(is_counted)), num_items), np.flatnonzero(~is_counted)


def _count_pairs(row: Int[np.ndarray, " T"], column: Int[np.ndarray, " T"], shape: tuple[int, int]) -> csr_array:
    """Counts how often each pair (row, column) occurs."""
    return csr_array((np.ones(row.size), (row, column)), shape=shape)
