"""Which events and sessions stay when sessions are made: kinds of events, rare items, and the most recent sessions."""

import numpy as np
from jaxtyping import Bool, Int32, Int64

from alkd_jax.data.interactions import Interactions
from alkd_jax.errors import shown


def kinds_to_keep(log: Interactions, events: tuple[str, ...]) -> Bool[np.ndarray, " K"]:
    """Returns which kinds of events stay.

    Args:
        log: E interactions with K kinds of events.
        events: names of the kinds that stay.

    Raises:
        ValueError: the source has no kinds of events, or none of one of these names.
    """
    for name in events:
        if name not in log.event_names:
            known = ", ".join(log.event_names) or "no kinds of events in this source"
            raise ValueError(f"events contain {shown(name)}, but {log.name} has {shown(known)}; expected some of these")
    return np.isin(np.array(log.event_names, dtype=object), events)


def frequent_items(
    length: Int64[np.ndarray, " N"],
    item: Int32[np.ndarray, " T"],
    *,
    min_count: int,
    min_length: int,
    repeat: bool,
) -> Bool[np.ndarray, " T"]:
    """Returns which events stay when rare items are dropped, and then sessions that have become too short.

    Args:
        length: ``[N]`` numbers of events of the sessions.
        item: ``[T]`` items of the sessions, concatenated.
        min_count: smallest number of events of an item.
        min_length: smallest number of events of a session.
        repeat: whether both are repeated until nothing changes, which leaves the largest set of events in which every
            item and every session has enough; its items and sessions do not depend on the order of dropping.

    Returns:
        ``[T]`` whether each event stays.
    """
    session = np.repeat(np.arange(len(length)), length)
    keep = np.ones(len(item), bool)
    while True:
        frequent = keep & (np.bincount(item[keep], minlength=int(item.max(initial=0)) + 1)[item] >= min_count)
        left = np.bincount(session[frequent], minlength=len(length))
        kept = frequent & (left >= min_length)[session]
        is_stable = bool(np.array_equal(kept, keep))
        keep = kept
        if is_stable or not repeat:
            return keep


def most_recent(start: Int64[np.ndarray, " N"], share: float | int) -> Bool[np.ndarray, " N"]:
    """Returns which sessions are among a share of the most recent ones; of equal times the later rows are.

    Args:
        start: ``[N]`` times of the sessions' first events.
        share: in (0, 1]; the number of sessions is rounded down, to at least one.
    """
    count = max(int(len(start) * share), min(1, len(start)))
    keep = np.zeros(len(start), bool)
    keep[np.argsort(start, kind="stable")[len(start) - count :]] = True
    return keep
