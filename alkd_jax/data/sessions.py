"""Whole sessions to splits: the last item held out, the most recent inputs kept, blocks cut in file order.

Host side, numpy only. A session is its items in time order; the last one is the target.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from alkd_jax.types import PAD, Dataset, Sequences, Sessions


def pack(sessions: Iterable[Sequence[int]]) -> Sequences:
    """Lay lists of items back to back.

    Args:
        sessions: the items of each session in time order, the target last; ``1..num_items``.

    Returns:
        The same sessions as one array of T items and N + 1 offsets.
    """
    rows = [np.asarray(session, dtype=np.int32) for session in sessions]
    offsets = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)
    return Sequences(items=np.concatenate([np.empty(0, np.int32), *rows]), offsets=offsets)


def unpack(sequences: Sequences) -> list[list[int]]:
    """Give the N sessions as lists of items, the inverse of :func:`pack`."""
    items, offsets = np.asarray(sequences.items), np.asarray(sequences.offsets)
    return [row.tolist() for row in np.split(items, offsets[1:-1])] if len(sequences) else []


def block(sequences: Sequences, rows: slice) -> Sequences:
    """Take neighbouring sessions.

    Args:
        sequences: N whole sessions.
        rows: which sessions, a slice with step 1, as from :func:`block_split`.

    Returns:
        The sessions of the slice, with offsets from 0.
    """
    start, stop, step = rows.indices(len(sequences))
    if step != 1:
        raise ValueError(f"rows: step {step}, expected a block (step 1)")
    offsets = np.asarray(sequences.offsets)[start : max(start, stop) + 1]
    return Sequences(items=np.asarray(sequences.items)[offsets[0] : offsets[-1]], offsets=offsets - offsets[0])


def leave_one_out(
    sequences: Sequences, *, max_length: int = 10, session_id: Int[np.ndarray, " N"] | None = None
) -> Sessions:
    """Hold the last item of each session out and keeps the most recent inputs, left-aligned.

    itemsₙ = (xₙ,ₜ₋ₗ, …, xₙ,ₜ₋₁, 0, …, 0), targetₙ = xₙ,ₜ with t the last position and l = min(t, L).

    Args:
        sequences: N whole sessions of at least two items each.
        max_length: L, how many of the most recent inputs are kept.
        session_id: ``[N]`` the row of each session in its dataset; 0..N-1 where not given.

    Returns:
        N sessions of L inputs, int32.

    Raises:
        ValueError: a session has no input, an item is not positive, or the ids do not match the sessions.
    """
    if max_length < 1:
        raise ValueError(f"max_length: {max_length}, expected at least 1")
    items, offsets = _checked(sequences)
    session_id = np.arange(len(sequences)) if session_id is None else session_id
    if len(session_id) != len(sequences):
        raise ValueError(f"session_id: {len(session_id)} ids for {len(sequences)} sessions")
    last = offsets[1:] - 1
    kept = np.minimum(last - offsets[:-1], max_length)
    position = np.arange(max_length)[None, :]
    mask = position < kept[:, None]
    source = np.where(mask, (last - kept)[:, None] + position, 0)
    return Sessions(
        items=np.where(mask, items[source] if items.size else PAD, PAD).astype(np.int32),
        mask=mask,
        target=items[last].astype(np.int32),
        session_id=np.asarray(session_id).astype(np.int32),
    )


def _checked(sequences: Sequences) -> tuple[Int[np.ndarray, " T"], Int[np.ndarray, " N1"]]:
    items, offsets = np.asarray(sequences.items), np.asarray(sequences.offsets, dtype=np.int64)
    if offsets[0] != 0 or offsets[-1] != len(items):
        raise ValueError(f"offsets: run from {offsets[0]} to {offsets[-1]}, expected from 0 to {len(items)}")
    short = np.flatnonzero(np.diff(offsets) < 2)
    if short.size:
        length = np.diff(offsets)[short[0]]
        raise ValueError(f"session {short[0]} has length {length}, expected at least one input and a target")
    if items.size and items.min() <= PAD:
        raise ValueError(f"items: found {items.min()}, expected ids from 1 (0 is padding)")
    return items, offsets


def block_split(num_sessions: int, fractions: Sequence[float] = (0.6, 0.2, 0.2)) -> tuple[slice, slice, slice]:
    """Cut the rows into training, validation and test blocks in the order they stand in.

    The cuts are ⌊N f₁⌋ and ⌊N (f₁ + f₂)⌋; no row is shuffled.

    Args:
        num_sessions: N.
        fractions: shares of training, validation and test; they sum to 1.

    Returns:
        Three slices that cover 0..N-1.

    Raises:
        ValueError: the shares are not three, are negative or do not sum to 1.
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions: {tuple(fractions)}, expected three shares that sum to 1")
    # 0.7 + 0.1 is 0.7999…: the small term keeps a whole number of sessions whole.
    first, second = (int(num_sessions * share + 1e-6) for share in itertools.accumulate(fractions[:2]))
    second = min(second, num_sessions)
    return slice(0, first), slice(first, second), slice(second, num_sessions)


def _blocks_of(num_sessions: int, sizes: Sequence[int]) -> tuple[slice, slice, slice]:
    if len(sizes) != 3 or min(sizes) < 0 or sum(sizes) != num_sessions:
        raise ValueError(f"sizes: {tuple(sizes)}, expected three that sum to {num_sessions}")
    return slice(0, sizes[0]), slice(sizes[0], sizes[0] + sizes[1]), slice(sizes[0] + sizes[1], num_sessions)


def build_dataset(
    name: str,
    sequences: Sequences,
    titles: Sequence[str],
    item_ids: Sequence[str],
    *,
    max_length: int = 10,
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    sizes: Sequence[int] | None = None,
    rule: str = "blocks in the order of the rows, not shuffled",
    report: Mapping[str, Any] | None = None,
) -> Dataset:
    """Make a dataset of whole sessions that are already in the order to be split.

    Args:
        name: what reports call it.
        sequences: N whole sessions; the row of a session becomes its ``session_id``.
        titles: V + 1 strings, the first empty.
        item_ids: V + 1 distinct strings, the first empty.
        max_length: L, how many of the most recent inputs a model sees.
        fractions: shares of the training, validation and test blocks.
        sizes: sessions of the three blocks, instead of their shares.
        rule: how the sessions came into that order, for the report.
        report: what the reader counted; the counts of this step are added to it.

    Returns:
        The dataset; ``train_sequences`` holds the training sessions whole.

    Raises:
        ValueError: an item lies outside ``1..V``, the titles or ids do not match, the sizes do not sum to N, or a split
            is empty.
    """
    num_items = len(titles) - 1
    _check_catalogue(sequences, titles, item_ids)
    blocks = block_split(len(sequences), fractions) if sizes is None else _blocks_of(len(sequences), sizes)
    fractions = fractions if sizes is None else [size / len(sequences) for size in sizes]
    splits = dict(zip(("train", "validation", "test"), blocks, strict=True))
    for (split, rows), fraction in zip(splits.items(), fractions, strict=True):
        if fraction > 0 and rows.start == rows.stop:
            raise ValueError(f"{name}: {len(sequences)} sessions leave the {split} split ({fraction:g}) empty")
    sessions = {
        split: leave_one_out(
            block(sequences, rows), max_length=max_length, session_id=np.arange(rows.start, rows.stop, dtype=np.int32)
        )
        for split, rows in splits.items()
    }
    inputs = np.diff(np.asarray(sequences.offsets)) - 1
    copies = Counter(titles[1:])
    counts = {
        "sessions": len(sequences),
        "items": num_items,
        "items_in_sessions": len(np.unique(np.asarray(sequences.items))),
        "interactions": len(sequences.items),
        "max_length": max_length,
        "sessions_truncated": int(np.sum(inputs > max_length)),
        "inputs_truncated": int(np.sum(np.maximum(inputs - max_length, 0))),
        "titles_empty": sum(not title for title in titles[1:]),
        "titles_duplicate": sum(copies.values()) - len(copies),
        "split": {
            "rule": rule,
            "fractions": list(fractions),
            **{split: len(rows) for split, rows in sessions.items()},
        },
    }
    return Dataset(
        name=name,
        num_items=num_items,
        titles=tuple(titles),
        item_ids=tuple(item_ids),
        train_sequences=block(sequences, splits["train"]),
        report={**(report or {}), **counts},
        **sessions,
    )


def _check_catalogue(sequences: Sequences, titles: Sequence[str], item_ids: Sequence[str]) -> None:
    if len(titles) != len(item_ids):
        raise ValueError(f"titles: {len(titles)} for {len(item_ids)} item ids, expected equal numbers")
    if not titles or titles[0] or item_ids[0]:
        raise ValueError("titles and item_ids: the first entry is padding and must be the empty string")
    if len(set(item_ids)) != len(item_ids):
        raise ValueError("item_ids: an id occurs twice, expected distinct ids")
    if len(sequences.items) and np.max(sequences.items) >= len(titles):
        raise ValueError(f"items: found {np.max(sequences.items)}, expected at most {len(titles) - 1} (num_items)")
