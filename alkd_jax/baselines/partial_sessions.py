"""The rows of the linear models: whole sessions, and sessions cut into a past and a future."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int64
from scipy.sparse import csr_array

from alkd_jax.baselines.counts import Counts
from alkd_jax.data.sessions import slice_sequences

_ENTRIES_AT_A_TIME = 2_000_000


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Weighted rows of a linear problem, made for a few sessions at a time.

    Attributes:
        counts: the counts of the training sessions.
        session_weight: ``[N]``, the weight w of each session's rows.
        decay: scale of the items' weights in places from the cut; None for 1.
        norm: "none", "l1" or "l2", the norm by which input rows are divided.
        is_cut: whether there is a row for each cut of a session; else one for each session, of its set of items.
    """

    counts: Counts
    session_weight: Float[np.ndarray, " N"]
    decay: float | int | None
    norm: str
    is_cut: bool

    def weighted(self, factor: float) -> "Examples":
        """Returns the same rows with weights that are multiplied by a factor."""
        return dataclasses.replace(self, session_weight=factor * self.session_weight)

    def blocks(self) -> Iterator[tuple[csr_array, csr_array, Float[np.ndarray, " R"]]]:
        """Yields inputs ``[R, V + 1]``, targets ``[R, V + 1]`` and weights ``[R]`` of consecutive sessions."""
        sequences = self.counts.sequences
        length: Int64[np.ndarray, " N"] = np.diff(np.asarray(sequences.offsets, np.int64))
        block = np.cumsum(length * length if self.is_cut else length) // _ENTRIES_AT_A_TIME
        starts = np.flatnonzero(np.diff(block, prepend=-1)).tolist()
        for start, stop in zip(starts, [*starts[1:], len(length)], strict=True):
            part = slice_sequences(sequences, slice(start, stop))
            items, weight = np.asarray(part.items, np.int64), self.session_weight[start:stop]
            offsets = np.asarray(part.offsets, np.int64)
            inputs, targets, row_weight = (self._cut if self.is_cut else self._whole)(items, offsets, weight)
            yield _normalized(inputs, self.norm), targets, row_weight

    def _whole(
        self, items: Int64[np.ndarray, " T"], offsets: Int64[np.ndarray, " M1"], weight: Float[np.ndarray, " M"]
    ) -> tuple[csr_array, csr_array, Float[np.ndarray, " M"]]:
        row = np.repeat(np.arange(len(weight)), np.diff(offsets))
        sets = csr_array((np.ones(len(items)), (row, items)), shape=(len(weight), self.counts.num_items + 1))
        sets.data[:] = 1.0
        return sets, sets, weight

    def _cut(
        self, items: Int64[np.ndarray, " T"], offsets: Int64[np.ndarray, " M1"], weight: Float[np.ndarray, " M"]
    ) -> tuple[csr_array, csr_array, Float[np.ndarray, " R"]]:
        length = np.diff(offsets)
        # The cut of row r lies behind item cut[r] of all items; its session is that of the item.
        is_last = np.zeros(len(items), bool)
        is_last[offsets[1:][length > 0] - 1] = True
        cut = np.flatnonzero(~is_last)
        session = np.repeat(np.arange(len(weight)), length)[cut]
        shape = (len(cut), self.counts.num_items + 1)
        sides = []
        for first, stop, nearest in (
            (offsets[:-1][session], cut + 1, cut),
            (cut + 1, offsets[1:][session], cut + 1),
        ):
            row = np.repeat(np.arange(len(cut)), stop - first)
            source = np.arange(len(row)) - np.repeat(np.cumsum(stop - first) - stop, stop - first)
            steps = np.abs(source - nearest[row])
            value = np.ones(len(row)) if self.decay is None else np.exp(-steps / self.decay)
            sides.append(csr_array((value, (row, items[source])), shape=shape))
        return sides[0], sides[1], weight[session]


def whole_sessions(counts: Counts, session_days: float | int | None = None, norm: str = "none") -> Examples:
    """Returns a row for each session, the set of its items, as input and as target."""
    return Examples(counts, _session_weights(counts, session_days), None, norm, is_cut=False)


def partial_sessions(
    counts: Counts, decay: float | int | None, session_days: float | int | None, norm: str
) -> Examples:
    """Returns a row for each cut of a session between two items: its past as input, its future as target."""
    return Examples(counts, _session_weights(counts, session_days), decay, norm, is_cut=True)


def gram(examples: Sequence[Examples], number: Int64[np.ndarray, " V1"]) -> tuple[csr_array, csr_array]:
    """Returns ``ZᵀWZ`` and ``ZᵀWY`` over all rows, ``[M, M]``, of the items with a number."""
    kept = np.flatnonzero(number >= 0)
    inner = cross = csr_array((len(kept), len(kept)))
    for part in examples:
        for inputs, targets, weight in part.blocks():
            past, future = inputs[:, kept], targets[:, kept]
            weighted = past.multiply(weight[:, None]).T.tocsr()
            inner, cross = inner + weighted @ past, cross + weighted @ future
    return inner.tocsr(), cross.tocsr()


def _session_weights(counts: Counts, days: float | int | None) -> Float[np.ndarray, " N"]:
    """Returns ``exp(−age / days)``, the age of a session's last event before the last event of all; 1 without days."""
    if days is None or counts.sequences.time is None:
        return np.ones(len(counts))
    time = np.asarray(counts.sequences.time, np.int64)
    last = time[np.asarray(counts.sequences.offsets, np.int64)[1:] - 1]
    return np.exp(-(time.max() - last) / (86_400_000 * days))


def _normalized(rows: csr_array, norm: str) -> csr_array:
    """Returns rows divided by their norm."""
    if norm == "none":
        return rows
    order = 1 if norm == "l1" else 2
    length = np.asarray(abs(rows).power(order).sum(axis=1)).ravel() ** (1 / order)
    return csr_array(rows.multiply(1.0 / np.where(length > 0, length, 1.0)[:, None]))
