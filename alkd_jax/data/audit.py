"""Audit of a dataset: ties, order artifacts, duplicates, overlap between splits, titles and popularity."""

import html
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64

from alkd_jax.checks import check_span
from alkd_jax.data.id_order import natural_order
from alkd_jax.data.sessions import take_sequences
from alkd_jax.types import Sequences

_SPLIT_NAMES = ("train", "validation", "test")
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_PLACEHOLDERS = frozenset({"nan", "none", "null", "\\n", "n/a", "unknown", "untitled"})
_LONG_TITLE_LENGTH = 200
_WINDOW_LENGTH = 10


def audit(
    sequences: Sequences,
    sizes: Sequence[int],
    titles: Sequence[str],
    item_ids: Sequence[str],
    *,
    time: Int64[np.ndarray, " T"] | None = None,
    user: Int32[np.ndarray, " N"] | None = None,
    cuts: tuple[Int[np.ndarray, " N"], Int[np.ndarray, " M"]] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Counts properties of a dataset that can make results wrong, too optimistic, or incomparable.

    Args:
        sequences: N complete sessions in the order training, validation, test; items in ``1..V``, the target last.
        sizes: numbers of sessions in the three splits.
        titles: V + 1 strings, the first empty.
        item_ids: V + 1 identifiers of the source, the first empty.
        time: ``[T]`` time of every item, milliseconds since 1970 in UTC; None if unknown.
        user: ``[N]`` number of each session's user; None if unknown.
        cuts: for a split that cuts sessions, the position of each session's first target ``[N]``, and the rows that
            together hold every session once ``[M]``: only these count, but in what is said about the parts. None where
            every session is whole and in one part.
        seed: random seed of the pairs of sessions with which adjacent sessions are compared.

    Returns:
        Plain JSON values by topic: ``counts``, ``lengths``, ``order``, ``ties``, ``duplicates``, ``overlap``,
        ``unseen_targets``, ``popularity``, ``titles``. ``ties`` is None without times; shares are in [0, 1], or None
        where there is nothing to count, as in an empty split.

    Raises:
        ValueError: there are no sessions, one has no input, an item is outside ``1..V``, or the sizes do not add up.
    """
    items, offsets = np.asarray(sequences.items), np.asarray(sequences.offsets, np.int64)
    length = np.diff(offsets)
    if len(length) == 0 or length.min() < 2:
        raise ValueError(f"least length of a session is {min(length, default=0)}; expected at least 2")
    check_span("items", items, 1, len(titles) - 1)
    if sum(sizes) != len(length):
        raise ValueError(f"sizes are {list(sizes)}; expected three that sum to {len(length)}, the number of sessions")
    split = np.repeat(np.arange(3), sizes)
    once, once_split, once_time = sequences, split, time
    if cuts is not None:
        once, once_split = take_sequences(sequences, cuts[1]), split[cuts[1]]
        once_time = None if time is None else np.asarray(take_sequences(Sequences(time, offsets), cuts[1]).items)
    items_once, offsets_once = np.asarray(once.items), np.asarray(once.offsets, np.int64)
    length_once = np.diff(offsets_once)
    id_rank = np.zeros(len(item_ids), np.int64)
    id_rank[1 + natural_order(item_ids[1:])] = np.arange(1, len(item_ids))
    within_session = np.ones(max(len(items_once) - 1, 0), bool)
    within_session[offsets_once[1:-1] - 1] = False
    duplicates = _duplicates(items_once, offsets_once, once_split, len(titles))
    if cuts is not None:
        across = _duplicates(items, offsets, split, len(titles))
        duplicates |= {name: count for name, count in across.items() if name.endswith("also_in_train")}
    return {
        "counts": _counts(once, sizes, titles, user),
        "lengths": np.bincount(length_once).tolist(),
        "longer_than_window": float(np.mean(length_once - 1 > _WINDOW_LENGTH)),
        "order": _order(id_rank[items_once], offsets_once, within_session),
        "ties": None if once_time is None else _ties(once_time, id_rank[items_once], within_session),
        "duplicates": duplicates,
        "overlap": _overlap(items, offsets, split, time, user, seed, None if cuts is None else cuts[0]),
        "unseen_targets": _unseen_targets(items, offsets, split),
        "popularity": _popularity(items_once, len(titles)),
        "titles": _titles(titles[1:]),
    }


def _mean(values: np.ndarray | list[bool]) -> float | None:
    """Returns the mean; None where there are no values."""
    return float(np.mean(values)) if len(values) else None


def _counts(
    sequences: Sequences, sizes: Sequence[int], titles: Sequence[str], user: Int[np.ndarray, " N"] | None
) -> dict[str, Any]:
    return {
        "sessions": len(sequences),
        "items": len(titles) - 1,
        "interactions": len(sequences.items),
        "users": None if user is None else len(np.unique(user)),
        **dict(zip(_SPLIT_NAMES, map(int, sizes), strict=True)),
    }


def _order(
    id_rank: Int64[np.ndarray, " T"], offsets: Int64[np.ndarray, " N1"], within_session: Bool[np.ndarray, " T1"]
) -> dict[str, Any]:
    """Returns how often the next item has the higher identifier: about half of the time if the order is by time."""
    rises = np.diff(id_rank) > 0
    to_target = np.zeros(len(within_session), bool)
    to_target[offsets[1:] - 2] = True
    first = np.searchsorted(np.flatnonzero(within_session & ~rises), offsets[:-1])
    last = np.searchsorted(np.flatnonzero(within_session & ~rises), offsets[1:] - 1)
    return {
        "pairs_rising": _mean(rises[within_session]),
        "pairs_to_target_rising": _mean(rises[to_target]),
        "sessions_all_rising": _mean(first == last),
    }


def _ties(
    time: Int64[np.ndarray, " T"], id_rank: Int64[np.ndarray, " T"], within_session: Bool[np.ndarray, " T1"]
) -> dict[str, Any]:
    tied = within_session & (np.diff(time) == 0)
    rises = np.diff(id_rank) > 0
    day_only = bool(np.all(time % 86_400_000 == 0))
    return {
        "pairs_tied": float(np.sum(tied) / np.sum(within_session)),
        "tied_pairs_rising": _mean(rises[tied]),
        "untied_pairs_rising": _mean(rises[within_session & ~tied]),
        "times_are_days": day_only,
        "first_time": int(time.min()),
        "last_time": int(time.max()),
    }


def _duplicates(
    items: Int[np.ndarray, " T"], offsets: Int64[np.ndarray, " N1"], split: Int64[np.ndarray, " N"], num_ids: int
) -> dict[str, Any]:
    rows = [row.tobytes() for row in np.split(items, offsets[1:-1])]
    seen: dict[bytes, set[int]] = {}
    for row, number in zip(rows, split.tolist(), strict=True):
        seen.setdefault(row, set()).add(number)
    number = np.repeat(np.arange(len(rows)), np.diff(offsets))
    pair = number * num_ids + items
    target = np.isin(pair, np.arange(len(rows)) * num_ids + items[offsets[1:] - 1])
    return {
        "sessions_identical_to_an_earlier": len(rows) - len(seen),
        "repeats_within_sessions": len(pair) - len(np.unique(pair)),
        "sessions_with_target_in_input": int(np.sum(np.bincount(number[target], minlength=len(rows)) > 1)),
        "validation_sessions_also_in_train": sum(
            n == 1 and 0 in seen[row] for row, n in zip(rows, split.tolist(), strict=True)
        ),
        "test_sessions_also_in_train": sum(
            n == 2 and 0 in seen[row] for row, n in zip(rows, split.tolist(), strict=True)
        ),
    }


def _overlap(
    items: Int[np.ndarray, " T"],
    offsets: Int64[np.ndarray, " N1"],
    split: Int64[np.ndarray, " N"],
    time: Int64[np.ndarray, " T"] | None,
    user: Int[np.ndarray, " N"] | None,
    seed: int,
    first_target: Int[np.ndarray, " N"] | None,
) -> dict[str, Any]:
    sets = [frozenset(row.tolist()) for row in np.split(items, offsets[1:-1])]
    adjacent = _mean([not a.isdisjoint(b) for a, b in itertools.pairwise(sets)])
    pairs = np.random.default_rng(seed).integers(0, len(sets), (20_000, 2)).tolist()
    random_pairs = _mean([not sets[a].isdisjoint(sets[b]) for a, b in pairs if a != b])
    overlap: dict[str, Any] = {
        "neighbors_sharing_an_item": adjacent,
        "random_sessions_sharing_an_item": random_pairs,
    }
    if user is not None:
        owners = [set(user[split == n].tolist()) for n in range(3)]
        overlap["users_in_train_and_test"] = len(owners[0] & owners[2])
        overlap["users_in_train_and_validation"] = len(owners[0] & owners[1])
        overlap["test_sessions_of_users_in_train"] = _mean(np.isin(user[split == 2], list(owners[0])))
    if time is not None:
        start = time[offsets[:-1] + (0 if first_target is None else first_target)]
        end = time[offsets[1:] - 1]
        has_test = bool(np.any(split == 2))
        overlap["train_sessions_ending_after_the_first_test_session"] = (
            _mean(end[split == 0] > start[split == 2].min()) if has_test else None
        )
    return overlap


def _unseen_targets(
    items: Int[np.ndarray, " T"], offsets: Int64[np.ndarray, " N1"], split: Int64[np.ndarray, " N"]
) -> dict[str, Any]:
    known = np.unique(items[: offsets[np.sum(split == 0)]])
    target = items[offsets[1:] - 1]
    return {
        name: {"sessions": int(np.sum(~np.isin(target[split == n], known))), "of": int(np.sum(split == n))}
        for n, name in enumerate(_SPLIT_NAMES)
        if n
    }


def _popularity(items: Int[np.ndarray, " T"], num_ids: int) -> dict[str, Any]:
    count = np.sort(np.bincount(items, minlength=num_ids)[1:])[::-1]
    rank = np.arange(1, len(count) + 1)
    points = np.unique(np.round(np.geomspace(1, len(count), 200)).astype(int))
    return {
        "rank": points.tolist(),
        "count": count[points - 1].tolist(),
        "gini": float(1 - 2 * np.sum(np.cumsum(count[::-1])) / (count.sum() * len(count)) + 1 / len(count)),
        "share_of_top_percent": float(count[rank <= max(len(count) // 100, 1)].sum() / count.sum()),
        "items_once": int(np.sum(count == 1)),
        "items_never": int(np.sum(count == 0)),
    }


def _titles(titles: Sequence[str]) -> dict[str, Any]:
    copies = Counter(filter(None, titles))
    problems = {
        "empty": [title for title in titles if not title.strip()],
        "shared with another item": [title for title in titles if copies[title] > 1],
        "not ASCII": [title for title in titles if not title.isascii()],
        "with HTML entities": [title for title in titles if html.unescape(title) != title],
        "with HTML tags": [title for title in titles if _TAG.search(title)],
        "with a line end or a tab": [title for title in titles if re.search(r"[\r\n\t]", title)],
        "with spaces around": [title for title in titles if title.strip() and title.strip() != title],
        f"longer than {_LONG_TITLE_LENGTH} letters": [title for title in titles if len(title) > _LONG_TITLE_LENGTH],
        "a stand-in such as nan": [title for title in titles if title.strip().lower() in _PLACEHOLDERS],
        "without a letter": [title for title in titles if title.strip() and not re.search(r"[^\W\d_]", title)],
    }
    lengths = [len(title) for title in titles]
    return {
        "faults": {
            name: {"items": len(matches), "such_as": _sample_titles(matches)} for name, matches in problems.items()
        },
        "longest": max(lengths, default=0),
        "median_length": float(np.median(lengths)) if lengths else 0.0,
    }


def _sample_titles(titles: Sequence[str]) -> list[str]:
    return [title[:120] for title in dict.fromkeys(titles) if title.strip()][:3]
