"""Queries: the single predictions that an evaluation asks for, made from held-out sessions on the host in NumPy."""

import dataclasses
from collections.abc import Iterator
from typing import TypeAlias

import jax
import numpy as np
from jaxtyping import Bool, Int, Int32, Int64

from alkd_jax import sharding
from alkd_jax.checks import check_count, check_held_out, check_one_of, check_sessions
from alkd_jax.types import PAD, HeldOutSequences, Sequences, Sessions

TARGETS = {
    "last": "each session's last item",
    "first": "the first item to predict of each session",
    "all": "every item to predict of each session",
}
"""Which items of a session are targets."""

MAX_LENGTH = 10
"""L where the sessions do not fix it, as in the paper."""

_WIDTH_FACTOR = 4
"""Histories are padded to L times a power of this: a few widths, each of which is compiled once."""


Rows: TypeAlias = Int[np.ndarray, " B"] | slice
"""Row numbers of some queries, or a slice of them."""


@dataclasses.dataclass(frozen=True)
class QueryBatch:
    """Queries of one batch; the rows after the first ``valid`` repeat one of them.

    Attributes:
        rows: ``[B]`` rows of the queries.
        valid: number of rows that count.
        sessions: the most recent known items and the target of each.
        history: ``[B, H]`` all known items in any order, 0 in free places.
    """

    rows: Int64[np.ndarray, " B"]
    valid: int
    sessions: Sessions
    history: Int[np.ndarray, "B H"]


@dataclasses.dataclass(frozen=True)
class Queries:
    """P predictions, each of one item of a session from the items before it, in the order of sessions and positions.

    Inputs are gathered for a few rows at a time, so that P queries of L items are never in memory together.

    Attributes:
        sequences: N complete sessions.
        row: ``[P]`` row of each query's session in ``sequences``.
        position: ``[P]`` index within its session of the last known item; the target is the item after it.
        session_id: ``[P]`` id of each query's session.
        max_length: L, number of most recent known items in the input.
        windows: the sessions as given, where each of them is one query; its input is then their row as it is.
    """

    sequences: Sequences
    row: Int64[np.ndarray, " P"]
    position: Int32[np.ndarray, " P"]
    session_id: Int32[np.ndarray, " P"]
    max_length: int
    windows: Sessions | None = None

    def __len__(self) -> int:
        """Returns the number of queries P."""
        return len(self.row)

    @property
    def target(self) -> Int32[np.ndarray, " P"]:
        """The items to predict."""
        return self._targets(slice(None))

    @property
    def session_length(self) -> Int32[np.ndarray, " P"]:
        """The number of items of each query's session, targets included."""
        return np.diff(np.asarray(self.sequences.offsets))[self.row].astype(np.int32)

    def sessions(self, rows: Rows = slice(None)) -> Sessions:
        """Returns queries as sessions of L inputs and a target; several may have the same ``session_id``.

        Args:
            rows: rows of the queries; all by default, which takes ``P · L`` numbers.
        """
        if self.windows is not None:
            return self.windows.take(rows)
        items = self._most_recent(rows, self.max_length)
        return Sessions(items, items != PAD, self._targets(rows), self.session_id[rows], self._seconds(rows))

    def _seconds(self, rows: Rows) -> Int32[np.ndarray, "B L"] | None:
        """Returns the times of the most recent known items; None where the sessions have no times."""
        return self.sequences.seconds_at(*self._known_places(rows, self.max_length))

    def last_time(self, rows: Rows) -> Int64[np.ndarray, " B"] | None:
        """Returns the time of the last known item of queries; None where the sessions have no times."""
        if self.sequences.time is None:
            return None
        return np.asarray(self.sequences.time)[self._target_places(rows)[0] - 1]

    def history(self, rows: Rows, width: int) -> Int32[np.ndarray, "B H"]:
        """Returns the known items of queries, 0 after the last.

        Args:
            rows: rows of the queries.
            width: H, at least the number of known items of each.
        """
        if self.windows is not None:
            return np.asarray(self.windows.items)[rows].astype(np.int32)
        return self._most_recent(rows, width)

    def batches(self, batch_size: int) -> Iterator[QueryBatch]:
        """Yields all queries in batches of few shapes.

        Queries are batched with others of a history of similar length, so that one long session does not widen all
        histories. Batches of one width have equal sizes; the last of them repeats its first row.

        Args:
            batch_size: B, at most.
        """
        check_count(1, batch_size=batch_size)
        for width, rows in self._rows_by_width():
            size = sharding.even_batch_size(len(rows), batch_size)
            for start in range(0, len(rows), size):
                batch = rows[start : start + size]
                valid = len(batch)
                batch = np.concatenate([batch, np.full(size - valid, batch[0])])
                yield QueryBatch(batch, valid, self.sessions(batch), self.history(batch, width))

    def _rows_by_width(self) -> list[tuple[int, Int64[np.ndarray, " M"]]]:
        """Returns each width of a history and the queries that are padded to it."""
        if self.windows is not None:
            return [(self.max_length, np.arange(len(self)))]
        widths, longest = [self.max_length], int(self.position.max()) + 1
        while widths[-1] < longest:
            widths.append(widths[-1] * _WIDTH_FACTOR)
        number = np.searchsorted(widths, self.position + 1)
        groups = [(width, np.flatnonzero(number == n)) for n, width in enumerate(widths)]
        return [(width, rows) for width, rows in groups if len(rows)]

    def _targets(self, rows: Rows) -> Int32[np.ndarray, " B"]:
        return np.asarray(self.sequences.items)[self._target_places(rows)[0]].astype(np.int32)

    def _most_recent(self, rows: Rows, width: int) -> Int32[np.ndarray, "B H"]:
        source, is_known = self._known_places(rows, width)
        return np.where(is_known, np.asarray(self.sequences.items)[source], PAD).astype(np.int32)

    def _known_places(self, rows: Rows, width: int) -> tuple[Int64[np.ndarray, "B H"], Bool[np.ndarray, "B H"]]:
        """Returns where the most recent known items are among the items of all sessions, and which there are."""
        end, num_known = self._target_places(rows)
        length = np.minimum(num_known, width)[:, None]
        place = np.arange(width)[None]
        return np.where(place < length, end[:, None] - length + place, 0), place < length

    def _target_places(self, rows: Rows) -> tuple[Int64[np.ndarray, " B"], Int64[np.ndarray, " B"]]:
        """Returns where each query's target is among the items of all sessions, and the number of known items."""
        num_known = self.position[rows].astype(np.int64) + 1
        return np.asarray(self.sequences.offsets, np.int64)[self.row[rows]] + num_known, num_known


def make_queries(
    sessions: Sessions | HeldOutSequences, num_items: int, *, targets: str = "last", max_length: int | None = None
) -> Queries:
    """Makes the queries of held-out sessions.

    Args:
        sessions: N sessions; :class:`alkd_jax.types.Sessions` are taken as complete sessions of at most L inputs and
            the target, in which every item but the first may be predicted.
        num_items: V, the number of items.
        targets: a key of :data:`TARGETS`.
        max_length: L, number of most recent known items in the input; None for the width of ``Sessions``, else 10.

    Returns:
        P queries: N for "last" and "first", and for "all" the number of items from each session's first target on.

    Raises:
        ValueError: ``targets`` is unknown, there are no sessions, one has no known item, or an array does not fit.

    Example:
        >>> sequences = Sequences(np.array([3, 1, 2, 5, 4]), np.array([0, 3, 5]))
        >>> held_out = HeldOutSequences(sequences, np.array([1, 1]), np.array([7, 8]))
        >>> queries = make_queries(held_out, 5, targets="all")
        >>> queries.target.tolist(), queries.session_id.tolist(), queries.position.tolist()
        ([1, 2, 4], [7, 7, 8], [0, 1, 0])
    """
    check_one_of("targets", targets, tuple(TARGETS))
    if max_length is not None:
        check_count(1, max_length=max_length)
    if isinstance(sessions, Sessions):
        check_sessions("sessions", sessions, num_items)
        held_out, width = _complete(sessions), sessions.items.shape[1]
    else:
        check_held_out("sessions", sessions, num_items)
        held_out, width = sessions, MAX_LENGTH
    max_length = width if max_length is None else max_length
    offsets = np.asarray(held_out.sequences.offsets, np.int64)
    length, first = np.diff(offsets), np.asarray(held_out.first_target, np.int64)
    is_window = isinstance(sessions, Sessions) and targets == "last" and max_length == width
    windows = jax.tree.map(np.asarray, sessions) if is_window else None
    if windows is None and length.min() < 2:
        raise ValueError(f"session {int(length.argmin())} has no item before its target; expected at least one")
    if targets != "all":
        first = length - 1 if targets == "last" else first
        length = first + 1
    num_targets = length - first
    row = np.repeat(np.arange(len(length)), num_targets)
    place = np.arange(len(row)) - np.repeat(np.cumsum(num_targets) - num_targets, num_targets)
    return Queries(
        sequences=held_out.sequences,
        row=row,
        position=(first[row] + place - 1).astype(np.int32),
        session_id=np.asarray(held_out.session_id)[row].astype(np.int32),
        max_length=max_length,
        windows=windows,
    )


def _complete(sessions: Sessions) -> HeldOutSequences:
    """Returns sessions of their inputs followed by the target."""
    mask = np.column_stack([np.asarray(sessions.mask), np.ones(len(sessions), bool)])
    items = np.column_stack([np.asarray(sessions.items), np.asarray(sessions.target)])
    offsets = np.concatenate([[0], np.cumsum(mask.sum(1), dtype=np.int64)])
    first = np.ones(len(sessions), np.int32)
    return HeldOutSequences(Sequences(items[mask].astype(np.int32), offsets), first, np.asarray(sessions.session_id))
