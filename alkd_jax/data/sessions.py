"""Datasets from complete sessions: block split, last item held out as the target, most recent items as the input.

Everything here runs on the host in NumPy. A session is its items in time order; the last one is the target.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from alkd_jax.checks import check_count, check_first_targets, check_integers, check_span, check_times
from alkd_jax.errors import shown
from alkd_jax.types import PAD, Dataset, HeldOutSequences, Sequences, Sessions


def pack(sessions: Iterable[Sequence[int]]) -> Sequences:
    """Concatenates lists of items.

    Args:
        sessions: the items of each session in time order, the target last; ``1..num_items``.

    Returns:
        The same sessions as one array of T items and N + 1 offsets.

    Raises:
        ValueError: an item is no whole number of int32.
    """
    rows = [_item_row(number, session) for number, session in enumerate(sessions)]
    offsets = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)
    items = np.concatenate([np.empty(0, np.int32), *rows])
    check_span("items", items, np.iinfo(np.int32).min, np.iinfo(np.int32).max)
    return Sequences(items=items.astype(np.int32), offsets=offsets)


def _item_row(number: int, session: Sequence[int] | np.ndarray) -> Int[np.ndarray, " T"]:
    if len(session) == 0:
        return np.empty(0, np.int32)
    row = np.asarray(session)
    check_integers(f"items of session {number}", row)
    return row


def unpack(sequences: Sequences) -> list[list[int]]:
    """Returns the N sessions as lists of items; the inverse of :func:`pack`."""
    items, offsets = np.asarray(sequences.items), np.asarray(sequences.offsets)
    return [row.tolist() for row in np.split(items, offsets[1:-1])] if len(sequences) else []


def slice_sequences(sequences: Sequences, rows: slice) -> Sequences:
    """Returns a block of consecutive sessions.

    Args:
        sequences: N complete sessions.
        rows: rows of the block, a slice with step 1, as from :func:`block_split`.

    Returns:
        The sessions of the slice, with offsets from 0.

    Raises:
        ValueError: the step of the slice is not 1.
    """
    start, stop, step = rows.indices(len(sequences))
    if step != 1:
        raise ValueError(f"rows has step {step}; expected step 1")
    offsets = np.asarray(sequences.offsets)[start : max(start, stop) + 1]
    places = slice(offsets[0], offsets[-1])
    return _at(sequences, places, offsets - offsets[0])


def take_sequences(sequences: Sequences, rows: Int[np.ndarray, " M"]) -> Sequences:
    """Returns some of the sessions, in the order of ``rows``."""
    offsets = np.asarray(sequences.offsets, np.int64)
    length = np.diff(offsets)[rows]
    ends = np.concatenate([[0], np.cumsum(length, dtype=np.int64)])
    source = np.arange(ends[-1]) + np.repeat(offsets[:-1][rows] - ends[:-1], length)
    return _at(sequences, source, ends)


def _at(sequences: Sequences, places: slice | Int[np.ndarray, " T"], offsets: Int[np.ndarray, " M1"]) -> Sequences:
    """Returns the items at some places, with their times, as sessions with these offsets."""
    time = None if sequences.time is None else np.asarray(sequences.time)[places]
    return Sequences(items=np.asarray(sequences.items)[places], offsets=offsets, time=time)


def most_recent(held_out: HeldOutSequences, max_length: int) -> HeldOutSequences:
    """Returns the last item of each session and at most L items before it, so that nothing earlier is known.

    The queries for the last items are those of :func:`leave_one_out`, with the times of the items.

    Args:
        held_out: N complete sessions.
        max_length: L, at least 1.
    """
    check_count(1, max_length=max_length)
    offsets = np.asarray(held_out.sequences.offsets, np.int64)
    length = np.minimum(np.diff(offsets), max_length + 1)
    ends = np.concatenate([[0], np.cumsum(length)])
    source = np.arange(ends[-1]) + np.repeat(offsets[1:] - ends[1:], length)
    return HeldOutSequences(_at(held_out.sequences, source, ends), length - 1, held_out.session_id)


def leave_one_out(
    sequences: Sequences, *, max_length: int = 10, session_id: Int[np.ndarray, " N"] | None = None
) -> Sessions:
    """Holds out the last item of each session and returns the most recent inputs, left-aligned.

    itemsₙ = (xₙ,ₜ₋ₗ, …, xₙ,ₜ₋₁, 0, …, 0), targetₙ = xₙ,ₜ with t the last position and l = min(t, L).

    Args:
        sequences: N complete sessions of at least two items each.
        max_length: L, the number of most recent inputs to keep.
        session_id: ``[N]`` row of each session in its dataset; None for 0..N-1.

    Returns:
        N sessions of L inputs, int32.

    Raises:
        ValueError: a session has no input, an item is not positive, or the ids do not match the sessions.
    """
    check_count(1, max_length=max_length)
    items, offsets = _check_sequences(sequences)
    session_id = np.arange(len(sequences)) if session_id is None else session_id
    if len(session_id) != len(sequences):
        raise ValueError(f"session_id has {len(session_id)} ids; expected {len(sequences)}, one per session")
    last = offsets[1:] - 1
    length = np.minimum(last - offsets[:-1], max_length)
    position = np.arange(max_length)[None, :]
    mask = position < length[:, None]
    source = np.where(mask, (last - length)[:, None] + position, 0)
    return Sessions(
        items=np.where(mask, items[source] if items.size else PAD, PAD).astype(np.int32),
        mask=mask,
        target=items[last].astype(np.int32),
        session_id=np.asarray(session_id).astype(np.int32),
        seconds=sequences.seconds_at(source, mask),
    )


def _check_sequences(sequences: Sequences) -> tuple[Int[np.ndarray, " T"], Int[np.ndarray, " N1"]]:
    items, offsets = np.asarray(sequences.items), np.asarray(sequences.offsets, dtype=np.int64)
    if offsets[0] != 0 or offsets[-1] != len(items):
        raise ValueError(f"offsets run from {offsets[0]} to {offsets[-1]}; expected from 0 to {len(items)}")
    short = np.flatnonzero(np.diff(offsets) < 2)
    if short.size:
        length = np.diff(offsets)[short[0]]
        raise ValueError(f"session {short[0]} has length {length}; expected at least 2, an input and the target")
    if items.size:
        check_integers("items", items)
    if items.size and items.min() <= PAD:
        raise ValueError(f"items contain {items.min()}; expected ids from 1 (0 is padding)")
    return items, offsets


def block_split(num_sessions: int, fractions: Sequence[float] = (0.6, 0.2, 0.2)) -> tuple[slice, slice, slice]:
    """Splits the rows into consecutive blocks for training, validation and test.

    The blocks begin at 0, ⌊N f₁⌋ and ⌊N (f₁ + f₂)⌋; the rows are not shuffled.

    Args:
        num_sessions: N.
        fractions: shares of training, validation and test; they sum to 1.

    Returns:
        Three slices that cover 0..N-1.

    Raises:
        ValueError: ``fractions`` are not three non-negative numbers that sum to 1.
    """
    check_count(0, num_sessions=num_sessions)
    if len(fractions) != 3 or not min(fractions) >= 0 or not abs(sum(fractions) - 1) <= 1e-6:
        raise ValueError(f"fractions are {tuple(fractions)}; expected three shares that sum to 1")
    # In binary 0.7 + 0.1 is 0.7999…; the small term keeps an exact share from being rounded down by one session.
    first, second = (int(num_sessions * share + 1e-6) for share in itertools.accumulate(fractions[:2]))
    second = min(second, num_sessions)
    return slice(0, first), slice(first, second), slice(second, num_sessions)


def _blocks_of_sizes(num_sessions: int, sizes: Sequence[int]) -> tuple[slice, slice, slice]:
    check_count(0, **{f"sizes[{split}]": size for split, size in enumerate(sizes)})
    if len(sizes) != 3 or sum(sizes) != num_sessions:
        raise ValueError(f"sizes are {tuple(sizes)}; expected three that sum to {num_sessions}")
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
    first_target: Int[np.ndarray, " N"] | None = None,
    rule: str = "blocks in the order of the rows, not shuffled",
    report: Mapping[str, Any] | None = None,
) -> Dataset:
    """Makes a dataset from complete sessions, which are split into blocks in the order given.

    Args:
        name: name of the dataset in reports.
        sequences: N complete sessions; the row of a session becomes its ``session_id``.
        titles: V + 1 strings, the first empty.
        item_ids: V + 1 distinct strings, the first empty.
        max_length: L, the number of most recent inputs that a model sees.
        fractions: shares of the training, validation and test blocks.
        sizes: numbers of sessions in the three blocks, in place of ``fractions``.
        first_target: ``[N]`` index within its session of the first item to predict, in ``1..length - 1``; None for 1.
            It matters for validation and test sessions, see :class:`alkd_jax.types.HeldOutSequences`.
        rule: description of the split rule for the report.
        report: counts from the reader; the counts of this step are added to them.

    Returns:
        The dataset; ``train_sequences``, ``validation_sequences`` and ``test_sequences`` hold the complete sessions.

    Raises:
        ValueError: an item is outside ``1..V``, ``titles`` and ``item_ids`` do not match, ``sizes`` do not sum to N, a
            first target is not within its session, or a split is empty.
    """
    _check_catalogue(sequences, titles, item_ids)
    blocks = block_split(len(sequences), fractions) if sizes is None else _blocks_of_sizes(len(sequences), sizes)
    fractions = fractions if sizes is None else [size / len(sequences) for size in sizes]
    splits = dict(zip(("train", "validation", "test"), blocks, strict=True))
    for (split, rows), fraction in zip(splits.items(), fractions, strict=True):
        if fraction > 0 and rows.start == rows.stop:
            raise ValueError(
                f"{name}: {len(sequences)} sessions leave the {split} split ({fraction:g}) empty; expected more"
            )
    length = np.diff(np.asarray(sequences.offsets))
    first_target = np.ones(len(sequences), np.int32) if first_target is None else first_target
    held_out = {split: _held_out(sequences, first_target, rows) for split, rows in splits.items()}
    sessions = {
        split: leave_one_out(block.sequences, max_length=max_length, session_id=np.asarray(block.session_id))
        for split, block in held_out.items()
    }
    check_first_targets("first_target", first_target, length)
    inputs = length - 1
    copies = Counter(titles[1:])
    counts = {
        "sessions": len(sequences),
        "items": len(titles) - 1,
        "items_in_sessions": len(np.unique(np.asarray(sequences.items))),
        "interactions": len(sequences.items),
        "max_length": max_length,
        "sessions_truncated": int(np.sum(inputs > max_length)),
        "inputs_truncated": int(np.sum(np.maximum(inputs - max_length, 0))),
        "titles_empty": sum(not title for title in titles[1:]),
        "titles_duplicate": sum(copies.values()) - len(copies),
        "split": {
            **{"rule": rule, "fractions": list(fractions)},
            **{split: len(rows) for split, rows in sessions.items()},
        },
    }
    return Dataset(
        name=name,
        num_items=len(titles) - 1,
        titles=tuple(titles),
        item_ids=tuple(item_ids),
        train_sequences=held_out["train"].sequences,
        validation_sequences=held_out["validation"],
        test_sequences=held_out["test"],
        report={**(report or {}), **counts},
        train=sessions["train"],
        validation=sessions["validation"],
        test=sessions["test"],
    )


def _held_out(sequences: Sequences, first_target: Int[np.ndarray, " N"], rows: slice) -> HeldOutSequences:
    """Returns a block of consecutive sessions; the row of a session is its id."""
    return HeldOutSequences(
        sequences=slice_sequences(sequences, rows),
        first_target=np.asarray(first_target)[rows].astype(np.int32),
        session_id=np.arange(rows.start, rows.stop, dtype=np.int32),
    )


def _check_catalogue(sequences: Sequences, titles: Sequence[str], item_ids: Sequence[str]) -> None:
    check_times("sequences", sequences)
    for name, texts in (("titles", titles), ("item_ids", item_ids)):
        if texts is None or isinstance(texts, str):
            raise ValueError(f"{name} is {texts!r}; expected a sequence of strings, one per item and one for padding")
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValueError(f"{name}[{number}] is {shown(text)}; expected a string")
    if len(titles) != len(item_ids):
        raise ValueError(f"titles has {len(titles)} entries; expected {len(item_ids)}, one per item id")
    if not titles or titles[0] or item_ids[0]:
        raise ValueError(
            "the first entry of titles or item_ids is not empty; expected the empty string, since item 0 is padding"
        )
    if len(set(item_ids)) != len(item_ids):
        raise ValueError("item_ids contain an id twice; expected distinct ids")
    if len(sequences.items) and np.max(sequences.items) >= len(titles):
        raise ValueError(f"items contain {np.max(sequences.items)}; expected at most {len(titles) - 1} (num_items)")
