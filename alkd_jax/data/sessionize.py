"""Cuts interactions into sessions: boundaries, the order of equal times, duplicates and lengths.

Users are processed in groups of a few million interactions, so that temporary arrays do not grow with the number of
interactions.
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, UInt64

from alkd_jax.data.id_order import natural_order
from alkd_jax.data.interactions import Interactions
from alkd_jax.data.session_filters import frequent_items, kinds_to_keep, most_recent
from alkd_jax.data.session_rules import SessionRules
from alkd_jax.data.times import local_day

_MINUTE = 60_000
_INTERACTIONS_PER_GROUP = 1 << 22


@dataclasses.dataclass(frozen=True)
class SessionLog:
    """N sessions with T interactions in total, concatenated, ordered by user and then by time.

    Attributes:
        item: ``[T]`` position in the source's ``item_ids``.
        time: ``[T]`` milliseconds since 1970 in UTC.
        offsets: ``[N + 1]`` position of each session's first interaction.
        user: ``[N]`` position in the source's ``user_ids``.
        split: ``[N]`` 0 training, 1 validation, 2 test; None where the source is not split.
        report: counts of what was dropped; plain JSON values.
        session: ``[N]`` position in the source's ``session_ids`` of the first interaction; None without sessions there.
    """

    item: Int32[np.ndarray, " T"]
    time: Int64[np.ndarray, " T"]
    offsets: Int64[np.ndarray, " N1"]
    user: Int32[np.ndarray, " N"]
    split: Int32[np.ndarray, " N"] | None
    report: dict[str, Any]
    session: Int32[np.ndarray, " N"] | None = None

    def __len__(self) -> int:
        """Returns the number of sessions N."""
        return len(self.user)


def sessionize(log: Interactions, rules: SessionRules | None = None, *, keep_single: bool = False) -> SessionLog:
    """Cuts every user's interactions into sessions.

    Args:
        log: E interactions in any order.
        rules: how sessions are made; None for the recipe of the released data.
        keep_single: whether sessions of one interaction stay. They have no target, but a recommender can answer them.

    Returns:
        The remaining sessions and the counts of what was dropped.

    Raises:
        ValueError: ``boundary`` is "given" and the source has no sessions, the source does not have the kinds of
            events, or no session is left.
    """
    rules = rules or SessionRules()
    if rules.boundary == "given" and log.session is None:
        raise ValueError(f"boundary is 'given', but {log.name} has no session column; expected day or gap")
    if rules.events:
        kinds_to_keep(log, rules.events)
    if rules.resolution > 1:
        log = dataclasses.replace(log, time=log.time // rules.resolution * rules.resolution, nanosecond=None)
    tie_keys = _make_tie_keys(log, rules)
    names = ("sessions", "too_short", "too_long", "repeats", "single", "tied", "mixed_split", "other_kinds", "rare")
    counts = dict.fromkeys((*names, "short_of_items", "not_recent"), 0)
    groups = [
        _sessionize_rows(log, rows, rank, tie_keys, rules, counts, keep_single)
        for rows, rank in _user_groups(log, rules)
    ]
    columns = tuple(np.concatenate(column) for column in zip(*groups, strict=True))
    length, user, item, time, split, given = _filter_sessions(columns, rules, counts)
    if not len(length):
        lengths = f"{rules.min_length} to {rules.max_length or 'any number of'}"
        raise ValueError(
            f"{log.name} has no session of {lengths} interactions among {counts['sessions']:,}; expected at least one"
        )
    report = {
        "rules": rules.options,
        "sessions_found": counts["sessions"],
        "sessions_dropped": {"too_short": counts["too_short"], "too_long": counts["too_long"]},
        "sessions_without_input": counts["single"],
        "repeats_dropped": counts["repeats"],
        "tied_interactions": counts["tied"],
        "sessions_over_two_given_splits": counts["mixed_split"],
        "interactions_of_other_kinds": counts["other_kinds"],
        "interactions_with_rare_items": counts["rare"],
        "sessions_short_of_items": counts["short_of_items"],
        "sessions_not_recent": counts["not_recent"],
    }
    offsets = np.concatenate([[0], np.cumsum(length, dtype=np.int64)])
    return SessionLog(
        item,
        time,
        offsets,
        user,
        split if log.split is not None else None,
        report,
        given if log.session is not None else None,
    )


def _filter_sessions(
    columns: tuple[np.ndarray, ...], rules: SessionRules, counts: dict[str, int]
) -> tuple[np.ndarray, ...]:
    """Drops rare items, sessions that are too short without them, and sessions that are not recent."""
    length, user, item, time, split, given = columns
    if rules.min_item_count > 1:
        minimum = max(rules.min_length, 2)
        keep = frequent_items(
            length, item, min_count=rules.min_item_count, min_length=minimum, repeat=rules.repeat_filter
        )
        counts["rare"] += int(np.sum(~keep))
        length = np.bincount(np.repeat(np.arange(len(length)), length)[keep], minlength=len(length))
        item, time, left = item[keep], time[keep], length > 0
        counts["short_of_items"] += int(np.sum(~left))
        length, user, split, given = (column[left] for column in (length, user, split, given))
    if rules.recent < 1:
        left = most_recent(time[_exclusive_cumsum(length)], rules.recent)
        counts["not_recent"] += int(np.sum(~left))
        keep = np.repeat(left, length)
        item, time = item[keep], time[keep]
        length, user, split, given = (column[left] for column in (length, user, split, given))
    return length, user, item, time, split, given


def _user_groups(
    log: Interactions, rules: SessionRules
) -> Iterator[tuple[Int64[np.ndarray, " R"], Int32[np.ndarray, " U"]]]:
    """Yields groups of users: the rows of their interactions, in file order, and the rank of every user."""
    num_users = len(log.user_ids)
    rank = np.arange(num_users, dtype=np.int32)
    if rules.users == "id":
        rank[natural_order(log.user_ids)] = np.arange(num_users, dtype=np.int32)
    per_user = np.zeros(num_users, np.int64)
    per_user[rank] = np.bincount(log.user, minlength=num_users)
    group = ((np.cumsum(per_user) - per_user) // _INTERACTIONS_PER_GROUP).astype(np.int32)
    in_order = rules.users == "file" and bool(np.all(log.user[1:] >= log.user[:-1]))
    if in_order:
        bounds = np.searchsorted(group[log.user], np.arange(group[-1] + 2)) if group[-1] else [0, len(log)]
        for first, last in itertools.pairwise(bounds):
            yield np.arange(first, last), rank
        return
    group_of_row = group[rank][log.user]
    for number in range(group[-1] + 1):
        yield np.flatnonzero(group_of_row == number), rank


def _make_tie_keys(log: Interactions, rules: SessionRules) -> Any:
    """Returns the sort keys of ties: per item for "id", per user and per item for "hash", per row for "random"."""
    if rules.ties == "id":
        rank = np.empty(len(log.item_ids), np.int64)
        rank[natural_order(log.item_ids)] = np.arange(len(log.item_ids))
        return rank
    if rules.ties == "hash":
        return _hash_ids(log.user_ids, rules.seed), _hash_ids(log.item_ids, rules.seed)
    if rules.ties == "random":
        return np.random.default_rng(rules.seed).permutation(len(log))
    return None


def _hash_ids(ids: tuple[str, ...], seed: int) -> UInt64[np.ndarray, " U"]:
    key = seed.to_bytes(16, "little", signed=True)
    digests = b"".join(
        hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8, key=key).digest() for name in ids
    )
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def _mix_bits(value: UInt64[np.ndarray, " R"]) -> UInt64[np.ndarray, " R"]:
    """Applies the finalizer of SplitMix64, in which every bit of the input affects every bit of the output."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _tie_keys_of_rows(
    log: Interactions, rows: Int64[np.ndarray, " R"], tie_keys: Any, rules: SessionRules
) -> Int64[np.ndarray, " R"] | UInt64[np.ndarray, " R"]:
    if rules.ties == "id":
        return tie_keys[log.item[rows]]
    if rules.ties == "random":
        return tie_keys[rows]
    users, items = tie_keys
    return _mix_bits(_mix_bits(users[log.user[rows]] + items[log.item[rows]]) + log.time[rows].astype(np.uint64))


def _sessionize_rows(
    log: Interactions,
    rows: Int64[np.ndarray, " R"],
    rank: Int32[np.ndarray, " U"],
    tie_keys: Any,
    rules: SessionRules,
    counts: dict[str, int],
    keep_single: bool,
) -> tuple[np.ndarray, ...]:
    """Returns length and user of the sessions that remain of some rows, their items, times, splits and given ids."""
    rows = _sort_rows(log, rows, rank, tie_keys, rules)
    user, item, time = log.user[rows], log.item[rows], log.time[rows]
    starts_session = np.ones(len(rows), bool)
    starts_session[1:] = (user[1:] != user[:-1]) | _session_ends(log, rows, time, rules)
    counts["tied"] += int(np.sum(_tied_rows([user, *_time_keys(log, rows)])))
    session = np.cumsum(starts_session) - 1
    if rules.events and log.event is not None:
        wanted = kinds_to_keep(log, rules.events)[log.event[rows]]
        counts["other_kinds"] += int(np.sum(~wanted))
        rows, session, user, item, time = (column[wanted] for column in (rows, session, user, item, time))
    if rules.count_duplicates:
        allowed = _select_by_length(session, rules, counts)
        keep = allowed[_drop_duplicates(session[allowed], item[allowed], log, rules, counts)]
    else:
        distinct = _drop_duplicates(session, item, log, rules, counts)
        keep = distinct[_select_by_length(session[distinct], rules, counts)]
    keep = keep if keep_single else keep[_select_with_input(session[keep], counts)]
    session = session[keep]
    first = np.flatnonzero(np.diff(session, prepend=-1))
    length = np.diff(np.append(first, len(session)))
    split = np.zeros(len(first), np.int32)
    if log.split is not None and len(first):
        split_of_row = log.split[rows[keep]]
        split = split_of_row[first + length - 1]
        counts["mixed_split"] += int(
            np.sum(np.minimum.reduceat(split_of_row, first) != np.maximum.reduceat(split_of_row, first))
        )
    order = np.lexsort([*_time_keys(log, rows[keep][first]), rank[user[keep][first]]])
    reordered = np.repeat(first[order], length[order]) + _concatenated_ranges(length[order])
    keep = keep[reordered]
    starts = keep[_exclusive_cumsum(length[order])]
    given = np.zeros(len(starts), np.int32) if log.session is None else log.session[rows[starts]]
    return length[order], user[starts], item[keep], time[keep], split[order], given


def _sort_rows(
    log: Interactions, rows: Int64[np.ndarray, " R"], rank: Int32[np.ndarray, " U"], tie_keys: Any, rules: SessionRules
) -> Int64[np.ndarray, " R"]:
    """Sorts rows by user, by session of the file if ``boundary`` is "given", by time, and by tie key."""
    # In lexsort the last key is the primary one. The sort is stable, so that ties in file order need no key.
    keys: list[np.ndarray] = [] if rules.ties == "file" else [_tie_keys_of_rows(log, rows, tie_keys, rules)]
    keys += _time_keys(log, rows)
    if rules.boundary == "given" and log.session is not None:
        keys.append(log.session[rows])
    return rows[np.lexsort([*keys, rank[log.user[rows]]])]


def _time_keys(log: Interactions, rows: Int64[np.ndarray, " R"]) -> list[np.ndarray]:
    """Returns the sort keys of times, the finer one first."""
    return [key[rows] for key in (log.nanosecond, log.time) if key is not None]


def _session_ends(
    log: Interactions, rows: Int64[np.ndarray, " R"], time: Int64[np.ndarray, " R"], rules: SessionRules
) -> Bool[np.ndarray, " R1"]:
    """Returns whether a session ends between a row and the next one of the same user."""
    if rules.boundary == "gap":
        return np.diff(time) > rules.gap_minutes * _MINUTE
    if rules.boundary == "given" and log.session is not None:
        return np.diff(log.session[rows]) != 0
    if rules.boundary == "user":
        return np.zeros(len(rows) - 1, bool)
    return np.diff(local_day(time, rules.time_zone)) != 0


def _tied_rows(keys: list[np.ndarray]) -> Bool[np.ndarray, " R"]:
    """Returns which rows share user and time with the row before or after."""
    same = np.logical_and.reduce([np.diff(key) == 0 for key in keys])
    tied = np.zeros(len(keys[0]), bool)
    tied[1:] |= same
    tied[:-1] |= same
    return tied


def _select_by_length(
    session: Int64[np.ndarray, " R"], rules: SessionRules, counts: dict[str, int]
) -> Int64[np.ndarray, " K"]:
    """Returns the positions of the rows in sessions of an allowed length."""
    length = np.bincount(session)
    exists = length > 0
    too_long = np.zeros(len(length), bool) if rules.max_length is None else length > rules.max_length
    counts["sessions"] += int(np.sum(exists))
    counts["too_short"] += int(np.sum(exists & (length < rules.min_length)))
    counts["too_long"] += int(np.sum(too_long))
    return np.flatnonzero(((length >= rules.min_length) & ~too_long)[session])


def _drop_duplicates(
    session: Int64[np.ndarray, " R"],
    item: Int32[np.ndarray, " R"],
    log: Interactions,
    rules: SessionRules,
    counts: dict[str, int],
) -> Int64[np.ndarray, " K"]:
    """Returns the positions of the rows that remain when duplicates within a session are dropped."""
    pair = session * len(log.item_ids) + item
    if rules.duplicates == "keep":
        return np.arange(len(pair))
    if rules.duplicates == "adjacent":
        remaining = np.flatnonzero(np.diff(pair, prepend=-1))
    elif rules.duplicates == "first":
        remaining = np.sort(np.unique(pair, return_index=True)[1])
    else:
        remaining = np.sort(len(pair) - 1 - np.unique(pair[::-1], return_index=True)[1])
    counts["repeats"] += len(pair) - len(remaining)
    return remaining


def _select_with_input(session: Int64[np.ndarray, " R"], counts: dict[str, int]) -> Int64[np.ndarray, " K"]:
    """Returns the positions of the rows in sessions of at least two interactions."""
    length = np.bincount(session)
    counts["single"] += int(np.sum(length == 1))
    return np.flatnonzero(length[session] > 1)


def _exclusive_cumsum(length: Int[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    return np.cumsum(length, dtype=np.int64) - length


def _concatenated_ranges(length: Int[np.ndarray, " N"]) -> Int64[np.ndarray, " T"]:
    """Returns the numbers 0..n-1 for each length n, concatenated."""
    return np.arange(int(np.sum(length))) - np.repeat(_exclusive_cumsum(length), length)
