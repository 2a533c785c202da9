"""What travels between the rooms: sessions, rankings, datasets.

Items are ``1..num_items`` everywhere; 0 is padding and is never recommended. ``mask`` is True where an item is real.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

PAD = 0

IntArray = Int[Array, "..."] | Int[np.ndarray, "..."]
BoolArray = Bool[Array, "..."] | Bool[np.ndarray, "..."]


@flax.struct.dataclass
class Sessions:
    """Sessions with the next item held out.

    Attributes:
        items: ``[N, L]`` int32, the most recent L items in time order, left-aligned, 0 after the last.
        mask: ``[N, L]`` bool, True on real items.
        target: ``[N]`` int32, the held-out next item, in ``1..num_items``.
        session_id: ``[N]`` int32, the row of the session in its dataset; unique across the three splits.
    """

    items: IntArray
    mask: BoolArray
    target: IntArray
    session_id: IntArray

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
            session_id: ``[M]`` ids; an id may stand there more than once.

        Raises:
            ValueError: an id belongs to none of the sessions.
        """
        own, wanted = np.asarray(self.session_id), np.asarray(session_id)
        if not wanted.size:
            return np.zeros(0, np.int64)
        order = np.argsort(own, kind="stable")
        place = np.searchsorted(own, wanted, sorter=order)
        rows = order[np.minimum(place, len(order) - 1)] if len(order) else np.zeros(len(wanted), np.int64)
        unknown = own[rows] != wanted if len(order) else np.ones(len(wanted), bool)
        if unknown.any():
            raise ValueError(
                f"session_id has {unknown.sum()} ids, the first {wanted[unknown][0]}, of no session in the split; "
                f"expected ids of its {len(own)} sessions"
            )
        return rows


@flax.struct.dataclass
class Sequences:
    """Whole sessions of any length, back to back: session n is ``items[offsets[n]:offsets[n + 1]]``.

    Attributes:
        items: ``[T]`` int32, inputs followed by the target, in time order, never cut.
        offsets: ``[N + 1]`` int32 or int64, where each session starts; the last is T.
    """

    items: IntArray
    offsets: IntArray

    def __len__(self) -> int:
        """Returns the number of sessions N."""
        return self.offsets.shape[0] - 1


@flax.struct.dataclass
class Rankings:
    """What a teacher (LLM, recommender, neighbour method) says of some sessions, best item first.

    Attributes:
        session_id: ``[M]`` int32, as in :class:`Sessions`.
        items: ``[M, K]`` int32, best first, left-aligned, 0 after the last.
        mask: ``[M, K]`` bool, True on real items.
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
        """Makes rankings of what a top-k search returns; its fill value −1 becomes padding.

        Args:
            session_id: ``[M]`` the sessions.
            ids: ``[M, K]`` items, best first; −1 or 0 fills a short list.
        """
        items = np.maximum(np.asarray(ids, np.int32), PAD)
        return cls(np.asarray(session_id, np.int32), items, items != PAD)


@flax.struct.dataclass
class Batch:
    """One step's examples with their sessions gathered, and what else a loss may look at.

    Attributes:
        items: ``[B, L]`` the input, left-aligned.
        mask: ``[B, L]`` True on real items.
        session: ``[B]`` row in the training sessions.
        target: ``[B]`` item to rank high.
        weight: ``[B]`` 0 takes a row out.
        row: ``[B]`` row among the examples.
        step: steps taken before this one.
        loss_inputs: whatever was given to ``fit(loss_inputs=…)``: a teacher's tables, lists, a sampler, a weight.
    """

    items: Int[Array, "B L"]
    mask: Bool[Array, "B L"]
    session: Int[Array, " B"]
    target: Int[Array, " B"]
    weight: Float[Array, " B"]
    row: Int[Array, " B"]
    step: Int[Array, ""] | int = 0
    loss_inputs: Any = None


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Three splits of one catalogue, on the host.

    Attributes:
        name: what reports call it.
        num_items: V; items are ``1..V``.
        titles: V + 1 strings; ``titles[0]`` is empty.
        item_ids: V + 1 strings, the identifiers of the source; ``item_ids[0]`` is empty.
        train: sessions the models learn from.
        validation: sessions that decide when to stop.
        test: sessions that are only reported on.
        train_sequences: the training sessions whole (``train`` holds their last L inputs).
        report: counts of what was read, repaired and dropped, and the split rule; plain JSON values.
    """

    name: str
    num_items: int
    titles: tuple[str, ...]
    item_ids: tuple[str, ...]
    train: Sessions
    validation: Sessions
    test: Sessions
    train_sequences: Sequences
    report: Mapping[str, Any]

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the arrays and titles: equal for equal data, whatever file it came from."""
        digest = hashlib.sha256(f"{self.num_items}".encode())
        for sessions in (self.train, self.validation, self.test):
            for array in (sessions.items, sessions.target, sessions.session_id):
                digest.update(np.ascontiguousarray(array, dtype=np.int64).tobytes())
        for array in (self.train_sequences.items, self.train_sequences.offsets):
            digest.update(np.ascontiguousarray(array, dtype=np.int64).tobytes())
        digest.update("\0".join(self.titles).encode())
        return digest.hexdigest()
