"""Products of session weights with counts of pairs, as if each session had not been counted."""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float, Int, Int64
from scipy.sparse import csr_array

from alkd_jax.baselines.counts import Counts
from alkd_jax.checks import check_span
from alkd_jax.models.stored_sessions import farthest_follower

_ROUNDING = 1e-9
"""A count below it is what rounding left of 0."""


@dataclasses.dataclass(frozen=True, eq=False)
class LeftOut:
    """B rows, each of which reads the counts of all training sessions, or of all but one.

    Attributes:
        counts: the counts of the training sessions, whose decay is not read.
        sessions: ``[B]``, the number of the training session that each row leaves out; −1 for none.
    """

    counts: Counts
    sessions: Int[np.ndarray, " B"]

    def __post_init__(self) -> None:
        check_span("sessions", self.sessions, -1, len(self.counts) - 1)

    @functools.cached_property
    def shape(self) -> tuple[int, int]:
        """``[B, V1]``."""
        return len(self.sessions), self.counts.num_items + 1

    @functools.cached_property
    def own_items(self) -> tuple[Int64[np.ndarray, " T"], Int64[np.ndarray, " T"]]:
        """The row and the item of every position of the sessions that are left out."""
        rows = np.flatnonzero(self.sessions >= 0)
        offsets = np.asarray(self.counts.sequences.offsets, np.int64)
        start = offsets[self.sessions[rows]]
        length = offsets[self.sessions[rows] + 1] - start
        within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        items = np.asarray(self.counts.sequences.items, np.int64)[np.repeat(start, length) + within]
        return np.repeat(rows, length), items

    @functools.cached_property
    def own_pairs(self) -> tuple[Int64[np.ndarray, " P"], ...]:
        """Row, first item, second item and distance, at least 1, of all pairs of positions of these sessions."""
        row, item = self.own_items
        longest = int(np.bincount(row, minlength=1).max(initial=0))
        parts = []
        for distance in range(1, longest):
            same = np.flatnonzero(row[:-distance] == row[distance:])
            parts.append((row[same], item[same], item[same + distance], np.full(len(same), distance)))
        nothing = np.empty(0, np.int64)
        return tuple(np.concatenate([nothing, *arrays]) for arrays in zip(*parts, strict=True)) or (nothing,) * 4

    @functools.cached_property
    def own_popularity(self) -> csr_array:
        """``[B, V1]``, occurrences of each item in the session that the row leaves out."""
        row, item = self.own_items
        return csr_array((np.ones(len(row)), (row, item)), shape=self.shape)

    def popularity(self, row: Int[np.ndarray, "*N"], item: Int[np.ndarray, "*N"]) -> Float[np.ndarray, "*N"]:
        """Returns the occurrences of items in the sessions that their rows count."""
        own = entries(self.own_popularity, row.ravel(), item.ravel()).reshape(item.shape)
        return self.counts.popularity[item] - own

    def per_occurrence(self, weights: csr_array) -> csr_array:
        """Returns ``w_bx / (1 + pop(x))``."""
        # A copy, because sorting the entries of one matrix would disorder another one that shares its indices.
        shares = weights.copy()
        row = np.repeat(np.arange(self.shape[0]), np.diff(shares.indptr))
        shares.data /= 1.0 + self.popularity(row, shares.indices)
        return shares

    def followers(
        self, weights: csr_array, counts: Counts, *, backward: bool = False, adjacent: bool = False
    ) -> csr_array:
        """Returns ``Σ_x w_bx F_xv``: v follows x in the sessions that row b counts.

        Args:
            weights: ``[B, V1]`` w.
            counts: counts of the same sessions, whose decay is that of F.
            backward: whether v precedes x.
            adjacent: whether v is next to x.
        """
        matrix = counts.transitions if adjacent else counts.followers
        row, first, second, distance = self.own_pairs
        known = distance <= (1 if adjacent else farthest_follower(counts.decay))
        row, first, second, distance = row[known], first[known], second[known], distance[known]
        if backward:
            matrix, first, second = matrix.T, second, first
        value = entries(weights, row, first) * counts.decay ** (distance - 1.0)
        return _difference(weights @ matrix, csr_array((value, (row, second)), shape=self.shape))

    def co_occurrence(self, weights: csr_array) -> csr_array:
        """Returns ``Σ_x w_bx C_xv``: the number of sessions that row b counts with both x and v."""
        own = self.own_popularity.copy()
        own.data[:] = 1.0
        total = np.asarray(own.multiply(weights).sum(axis=1)).ravel()
        own.data = np.repeat(total, np.diff(own.indptr))
        return _difference(weights @ self.counts.co_occurrence, own)

    def neighbor_sessions(self, weights: csr_array) -> csr_array:
        """Returns ``Σ_t (Σ_{x ∈ t} w_bx)² / |t|`` over the sessions t with v that row b counts, as sets of items."""
        similar = csr_array(weights @ self.counts.item_sessions)
        row = np.repeat(np.arange(self.shape[0]), np.diff(similar.indptr))
        size = np.diff(self.counts.session_items.indptr)[similar.indices]
        similar.data = np.where(similar.indices == self.sessions[row], 0.0, similar.data**2 / size)
        similar.eliminate_zeros()
        return csr_array(similar @ self.counts.session_items)


def entries(matrix: csr_array, row: Int[np.ndarray, " N"], column: Int[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Returns single entries of a sparse matrix, 0 where none is stored."""
    if not len(row) or not matrix.nnz:
        return np.zeros(len(row))
    matrix.sum_duplicates()
    return np.asarray(matrix[row, column], np.float64).ravel()


def _difference(total: csr_array, own: csr_array) -> csr_array:
    """Returns what is left without the rows' own part; a count is at least 0."""
    left = csr_array(total - own)
    left.data[left.data < _ROUNDING] = 0.0
    left.eliminate_zeros()
    return left
