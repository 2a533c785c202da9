"""The data types that the packages exchange: sessions, sequences, rankings, batches and datasets.

Items are ``1..num_items`` everywhere; 0 is padding and is never recommended. ``mask`` is True where there is an item
and False where there is padding.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32, Int64

PAD = 0

IntArray = Int[Array, "..."] | Int[np.ndarray, "..."]
BoolArray = Bool[Array, "..."] | Bool[np.ndarray, "..."]


@flax.struct.dataclass
class Sessions:
    """Sessions whose next item is held out as the target.

    Attributes:
        items: ``[N, L]`` int32, the most recent L items in time order, left-aligned, 0 after the last.
        mask: ``[N, L]`` bool, True where there is an item.
        target: ``[N]`` int32, the held-out next item, in ``1..num_items``.
        session_id: ``[N]`` int32, number of the session in its dataset; unique across the three splits.
        seconds: ``[N, L]`` int32, time of each item in seconds since the row's first one; None where the source has no
            times. Backbones that read times need it.
    """

    items: IntArray
    mask: BoolArray
    target: IntArray
    session_id: IntArray
    seconds: IntArray | None = None

    def __len__(self) -> int:
        """Returns the number of sessions N."""
        return self.items.shape[0]

    def take(self, rows: Any) -> "Sessions":
        """Returns some of the sessions.

        Args:
            rows: row numbers, a boolean mask ``[N]`` or a slice.
        """
        return jax.tree.map(lambda leaf: leaf[rows], self)

    def rows_of(self, session_id: IntArray) -> Int[np.ndarray, " M"]:
        """Returns the rows of the sessions with these ids, in the order of the ids.

        Args:
            session_id: ``[M]`` ids; an id may occur more than once.

        Raises:
            ValueError: an id belongs to none of the sessions.
        """
        own_ids, query_ids = np.asarray(self.session_id), np.asarray(session_id)
        unknown = ~np.isin(query_ids, own_ids)
        if unknown.any():
            raise ValueError(
                f"session_id has {unknown.sum()} ids, the first {query_ids[unknown][0]}, of no session in the split; "
                f"expected ids of its {len(own_ids)} sessions"
            )
        order = np.argsort(own_ids, kind="stable")
        return order[np.searchsorted(own_ids, query_ids, sorter=order)]


@flax.struct.dataclass
class Sequences:
    """Complete sessions of any length, concatenated: session n is ``items[offsets[n]:offsets[n + 1]]``.

    Attributes:
        items: ``[T]`` int32, each session's inputs followed by its target, in time order, never truncated.
        offsets: ``[N + 1]`` int32 or int64, where each session starts; the last entry is T.
        time: ``[T]`` int64, time of each item in milliseconds since 1970 in UTC; None where the source has no times. It
            is read on the host only, and is not part of a dataset's fingerprint.
        seconds: ``[T]`` int32, the same in seconds since the session's first item, in the training of a backbone that
            reads times; else None.
    """

    items: IntArray
    offsets: IntArray
    time: Int64[np.ndarray, " T"] | None = None
    seconds: IntArray | None = None

    def __len__(self) -> int:
        """Returns the number of sessions N."""
        return self.offsets.shape[0] - 1

    def seconds_at(
        self, places: Int[np.ndarray, "N L"], mask: Bool[np.ndarray, "N L"]
    ) -> Int32[np.ndarray, "N L"] | None:
        """Returns times in seconds since the first item of each row; None where the sessions have no times.

        Args:
            places: places among the items of all sessions, left-aligned rows of one session each.
            mask: True where there is an item; elsewhere the result is 0.
        """
        if self.time is None:
            return None
        time = np.asarray(self.time)[places]
        return np.where(mask, _whole_seconds(time - time[:, :1]), 0).astype(np.int32)

    def with_seconds(self) -> "Sequences":
        """Returns the sessions with :attr:`seconds` in place of :attr:`time`; None where they have no times."""
        if self.time is None:
            return self.replace(seconds=None)  # type: ignore[attr-defined]
        offsets, time = np.asarray(self.offsets), np.asarray(self.time)
        elapsed = time - np.repeat(time[offsets[:-1]], np.diff(offsets))
        return self.replace(time=None, seconds=_whole_seconds(elapsed))  # type: ignore[attr-defined]


def _whole_seconds(milliseconds: Int64[np.ndarray, "*shape"]) -> Int32[np.ndarray, "*shape"]:
    """Returns whole seconds; those of a session of more than 68 years are cut."""
    return np.clip(milliseconds // 1000, 0, 2**31 - 1).astype(np.int32)


@flax.struct.dataclass
class HeldOutSequences:
    """Complete sessions of a validation or test split, and where the items to predict begin in each.

    Attributes:
        sequences: N complete sessions of any length, at least two items each.
        first_target: ``[N]`` int32, index within its session of the first item to predict, in ``1..length - 1``; the
            items before it are known. 1 where every later item may be predicted, ``length - 1`` where only the last one
            may, and the first item after the cut where a session is cut by time.
        session_id: ``[N]`` int32, as in :class:`Sessions`.
    """

    sequences: Sequences
    first_target: IntArray
    session_id: IntArray

    def __len__(self) -> int:
        """Returns the number of sessions N."""
        return len(self.sequences)


@flax.struct.dataclass
class Rankings:
    """Ranked lists of items that a teacher (LLM, recommender or neighbor method) gives for some sessions.

    Attributes:
        session_id: ``[M]`` int32, as in :class:`Sessions`.
        items: ``[M, K]`` int32, best first, left-aligned, 0 after the last.
        mask: ``[M, K]`` bool, True where there is an item.
    """

    session_id: IntArray
    items: IntArray
    mask: BoolArray

    def __len__(self) -> int:
        """Returns the number of ranked sessions M."""
        return self.session_id.shape[0]

    def take(self, rows: Any) -> "Rankings":
        """Returns some of the lists.

        Args:
            rows: row numbers, a boolean mask ``[M]`` or a slice.
        """
        return jax.tree.map(lambda leaf: leaf[rows], self)

    @classmethod
    def from_top_k(cls, session_id: IntArray, ids: IntArray) -> "Rankings":
        """Converts the result of a top-k search; its fill value −1 becomes padding.

        Args:
            session_id: ``[M]`` the sessions' ids.
            ids: ``[M, K]`` items, best first; −1 or 0 fills a short list.
        """
        items = np.maximum(np.asarray(ids, np.int32), PAD)
        return cls(np.asarray(session_id, np.int32), items, items != PAD)


@flax.struct.dataclass
class Batch:
    """The examples of one training step with their sessions.

    Attributes:
        items: ``[B, L]`` the input, left-aligned.
        mask: ``[B, L]`` True where there is an item.
        session: ``[B]`` row of the session in the training sessions.
        target: ``[B]`` the item to rank high; ``[B, L]`` the item after each position, where a session is encoded once
            for all its positions.
        weight: ``[B]`` weight in the loss, 0 excludes a row; ``[B, L]`` of every position, with a sum of 1 over a batch
            with the mean number of positions.
        row: ``[B]`` row of the example among all examples.
        step: number of steps taken before this one.
        seconds: ``[B, L]`` time of each item since a first one, for backbones that read times; else None.
    """

    items: Int[Array, "B L"]
    mask: Bool[Array, "B L"]
    session: Int[Array, " B"]
    target: Int[Array, " B *L"]
    weight: Float[Array, " B *L"]
    row: Int[Array, " B"]
    step: Int[Array, ""] | int = 0
    seconds: Int[Array, "B L"] | None = None


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Training, validation and test sessions over one catalogue, on the host.

    Attributes:
        name: the name shown in reports.
        num_items: V; items are ``1..V``.
        titles: V + 1 strings; ``titles[0]`` is empty.
        item_ids: V + 1 strings, the raw identifiers of the source; ``item_ids[0]`` is empty.
        train: sessions to train on.
        validation: sessions for early stopping.
        test: sessions used for reported metrics only.
        train_sequences: the complete training sessions; ``train`` holds their last L inputs.
        validation_sequences: the complete validation sessions.
        test_sequences: the complete test sessions.
        report: counts of rows read, repaired and dropped, and the split rule, as plain JSON values.
        session_ids: the raw ids of all sessions, of that with ``session_id`` n at n; None where they are not known.
    """

    name: str
    num_items: int
    titles: tuple[str, ...]
    item_ids: tuple[str, ...]
    train: Sessions
    validation: Sessions
    test: Sessions
    train_sequences: Sequences
    validation_sequences: HeldOutSequences
    test_sequences: HeldOutSequences
    report: Mapping[str, Any]
    session_ids: tuple[str, ...] | None = None

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the arrays and titles; equal data has equal fingerprints, whatever file it was read from.

        Where every item but the first of a held-out session may be predicted, its complete sequence is not part of the
        digest, so that fingerprints stay what they were before datasets had these sequences.
        """
        digest = hashlib.sha256(f"{self.num_items}".encode())
        for sessions in (self.train, self.validation, self.test):
            for array in (sessions.items, sessions.target, sessions.session_id):
                digest.update(np.ascontiguousarray(array, dtype=np.int64).tobytes())
        for array in (self.train_sequences.items, self.train_sequences.offsets):
            digest.update(np.ascontiguousarray(array, dtype=np.int64).tobytes())
        for held_out in (self.validation_sequences, self.test_sequences):
            if np.any(np.asarray(held_out.first_target) != 1):
                sequences = held_out.sequences
                for array in (sequences.items, sequences.offsets, held_out.first_target, held_out.session_id):
                    digest.update(np.ascontiguousarray(array, dtype=np.int64).tobytes())
        digest.update("\0".join(self.titles).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()
