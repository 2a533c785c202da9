"""Neighbors of a session among the most recent training sessions with an item of it, as in session-rec.

All of these methods read every item of the history. Where the training sessions have no times, a later row is more
recent. Among equally similar sessions, the more recent ones are neighbors.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int, Int64
from scipy.sparse import csr_array

from alkd_jax.baselines.counts import Counts
from alkd_jax.checks import check_count
from alkd_jax.types import Sequences


@dataclasses.dataclass(frozen=True, eq=False)
class Candidates:
    """The sampled training sessions that share an item with a history of L items, the most recent one first.

    Attributes:
        session: ``[C]``, row of each in :class:`SessionIndex`.
        overlap: ``[C]``, the summed weights of the shared items.
        last_match: ``[C]``, the last place in the history, from 1, of an item that the session contains.
        last_place: ``[C]``, the last place in the session, from 1, of an item of the history.
    """

    session: Int64[np.ndarray, " C"]
    overlap: Float[np.ndarray, " C"]
    last_match: Int64[np.ndarray, " C"]
    last_place: Int64[np.ndarray, " C"]

    def take(self, rows: Int64[np.ndarray, " K"]) -> "Candidates":
        """Returns some of the sessions."""
        return Candidates(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))


@dataclasses.dataclass(frozen=True, eq=False)
class SessionIndex:
    """The N training sessions in order of their last event, the most recent one first.

    Attributes:
        places: ``[N, V + 1]``, the last place of each item in each session, from 1; 0 where it is not in it.
        sessions: ``[V + 1, N]``, the transpose.
        size: ``[N]``, the number of different items of each session.
        age: ``[N]``, days from each session's last event to that of the most recent session; None without times.
        sample_size: number of most recent sessions with an item of the history that are compared; 0 for all.
    """

    places: csr_array
    sessions: csr_array
    size: Int64[np.ndarray, " N"]
    age: Float[np.ndarray, " N"] | None
    sample_size: int

    @property
    def num_items(self) -> int:
        """V."""
        return int(self.places.shape[1]) - 1

    def candidates(
        self, items: Int[np.ndarray, " I"], place: Int64[np.ndarray, " I"], weight: np.ndarray
    ) -> Candidates:
        """Returns the sessions that share an item with a history.

        Args:
            items: the different items of a history.
            place: the last place of each in the history, from 1.
            weight: the weight of each.
        """
        most = self.sample_size or len(self.size)
        pointer = self.sessions.indptr
        # The most recent of the sessions with any item are among the most recent with each.
        lists = [slice(pointer[item], min(pointer[item] + most, pointer[item + 1])) for item in items]
        length = [part.stop - part.start for part in lists]
        entries = np.concatenate([np.arange(part.start, part.stop) for part in lists] or [np.empty(0, np.int64)])
        session = self.sessions.indices[entries]
        order = np.argsort(session, kind="stable")
        starts = np.flatnonzero(np.diff(session[order], prepend=-1))
        if not len(starts):
            nothing = np.empty(0, np.int64)
            return Candidates(nothing, np.empty(0), nothing, nothing)
        found = Candidates(
            session=session[order][starts].astype(np.int64),
            overlap=np.add.reduceat(np.repeat(weight, length)[order], starts),
            last_match=np.maximum.reduceat(np.repeat(place, length)[order], starts),
            last_place=np.maximum.reduceat(self.sessions.data[entries][order], starts),
        )
        return found.take(np.arange(min(most, len(starts))))

    def entries(self, session: Int64[np.ndarray, " K"]) -> tuple[Int64[np.ndarray, " E"], Int64[np.ndarray, " E"]]:
        """Returns the number of the neighbor, and where in ``places`` it stands, of every item of some sessions."""
        start, length = self.places.indptr[session], self.size[session]
        neighbor = np.repeat(np.arange(len(session)), length)
        within = np.arange(len(neighbor)) - np.repeat(np.cumsum(length) - length, length)
        return neighbor, start[neighbor] + within


def index_sessions(counts: Counts, sample_size: int) -> SessionIndex:
    """Orders the training sessions by recency and lists the sessions of every item.

    Args:
        counts: the counts of the training sessions; empty sessions are left out.
        sample_size: as of :class:`SessionIndex`.

    Raises:
        ValueError: sample_size is negative.
    """
    check_count(0, sample_size=sample_size)
    sequences, shape = counts.sequences, (len(counts), counts.num_items + 1)
    offsets = np.asarray(sequences.offsets, np.int64)
    rows = np.flatnonzero(np.diff(offsets))
    time = _last_time(sequences)
    order = rows[::-1] if time is None else rows[::-1][np.argsort(-time[rows[::-1]], kind="stable")]
    place = 1 + np.arange(offsets[-1]) - np.repeat(offsets[:-1], np.diff(offsets))
    # Of equal items of a session the last one stays: their keys are unique from the end.
    key = counts.session[::-1] * shape[1] + np.asarray(sequences.items)[::-1]
    key, from_end = np.unique(key, return_index=True)
    last = csr_array((place[::-1][from_end], np.divmod(key, shape[1])), shape=shape)[order]
    return SessionIndex(
        places=last,
        sessions=last.T.tocsr(),
        size=np.diff(last.indptr).astype(np.int64),
        age=None if time is None else (time[order[0]] - time[order]) / 86_400_000,
        sample_size=sample_size,
    )


def _last_time(sequences: Sequences) -> Int64[np.ndarray, " N"] | None:
    """Returns the time of each session's last event; of empty ones a number without meaning."""
    if sequences.time is None:
        return None
    return np.asarray(sequences.time, np.int64)[np.asarray(sequences.offsets, np.int64)[1:] - 1]


def inverse_frequency(counts: Counts, *, rescaled: bool) -> Float[np.ndarray, " V1"]:
    """``idf(v) = ln(N / pop(v))``, N the number of training sessions; 0 for items without occurrences.

    Args:
        counts: the counts of the training sessions.
        rescaled: whether the least value of the items is moved to 0 and the largest to 1.
    """
    num_sessions, seen = len(np.unique(counts.session)), counts.popularity > 0
    idf = np.zeros(len(counts.popularity))
    idf[seen] = np.log(num_sessions / counts.popularity[seen])
    if rescaled:
        low, high = idf[seen].min(), idf[seen].max()
        idf[seen] = (idf[seen] - low) / (high - low) if high > low else 0.0
    return idf
