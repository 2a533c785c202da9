"""Items of sessions numbered from 1 in the order of the titles, and what happens to those without a title."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64

from alkd_jax.data.interactions import Interactions
from alkd_jax.data.sessionize import SessionLog

UNTITLED = ("drop", "keep")


@dataclasses.dataclass(frozen=True)
class NumberedSessions:
    """N sessions of T items over a catalogue of V.

    Attributes:
        items: ``[T]`` in ``1..V``.
        time: ``[T]`` milliseconds since 1970 in UTC.
        offsets: ``[N + 1]`` where each session starts.
        user: ``[N]`` position in the source's ``user_ids``.
        split: ``[N]`` 0, 1 or 2 where the source is split already, or None.
        item_ids: V + 1 identifiers of the source, the first empty.
        titles: V + 1, the first empty.
        report: what was dropped; plain JSON values.
    """

    items: Int32[np.ndarray, " T"]
    time: Int64[np.ndarray, " T"]
    offsets: Int64[np.ndarray, " N1"]
    user: Int32[np.ndarray, " N"]
    split: Int32[np.ndarray, " N"] | None
    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    report: dict[str, Any]


def number_items(log: Interactions, sessions: SessionLog, *, untitled: str = "drop") -> NumberedSessions:
    """Number the items that occur in sessions.

    Items stand in the order of the titles' file, or of first appearance where the source has no titles. With
    ``untitled="drop"``, as for the released data, inputs that the titles' file does not have are left out, then
    sessions whose target it does not have or that have no input left; the catalogue keeps items that only such
    sessions had. An item whose title is there but empty has a row and stays.

    Args:
        log: the interactions that the sessions were made of.
        sessions: N sessions in the source's item positions.
        untitled: "drop", or "keep" to give such items an empty title, at the end of the catalogue.

    Returns:
        The kept sessions and the catalogue.

    Raises:
        ValueError: ``untitled`` is neither, or no session is left.
    """
    if untitled not in UNTITLED:
        raise ValueError(f"untitled: {untitled!r}, expected one of {', '.join(UNTITLED)}")
    used = np.zeros(len(log.item_ids), bool)
    used[sessions.item] = True
    if log.titles is None:
        order = np.flatnonzero(used).tolist()
        titles = [""] * len(order)
        without = 0
    else:
        place = {name: code for code, name in enumerate(log.item_ids) if used[code]}
        order = [place.pop(name) for name in log.titles if name in place]
        titles = [log.titles[log.item_ids[code]] for code in order]
        without = len(place)
        if untitled == "keep":
            order += place.values()
            titles += [""] * without
    number = np.zeros(len(log.item_ids), np.int32)
    number[order] = np.arange(1, len(order) + 1, dtype=np.int32)
    return _without_unnumbered(
        sessions,
        number[sessions.item],
        ("", *(log.item_ids[code] for code in order)),
        ("", *titles),
        {"untitled": untitled, "items_without_title_row": without},
    )


def _without_unnumbered(
    sessions: SessionLog,
    items: Int32[np.ndarray, " T"],
    item_ids: tuple[str, ...],
    titles: tuple[str, ...],
    report: dict[str, Any],
) -> NumberedSessions:
    offsets, length = sessions.offsets, np.diff(sessions.offsets)
    known = items > 0
    total = np.concatenate([[0], np.cumsum(known)])
    left = total[offsets[1:]] - total[offsets[:-1]]
    titled_target = known[offsets[1:] - 1]
    kept = titled_target & (left > 1)
    if not kept.any():
        raise ValueError("titles: no session is left, expected the titles' item ids to be those of the interactions")
    keep = known & np.repeat(kept, length)
    report |= {
        "inputs_untitled": int(np.sum(~known)) - int(np.sum(~titled_target)),
        "targets_untitled": int(np.sum(~titled_target)),
        "no_input_left": int(np.sum(titled_target & (left < 2))),
    }
    return NumberedSessions(
        items=items[keep],
        time=sessions.time[keep],
        offsets=np.concatenate([[0], np.cumsum(left[kept], dtype=np.int64)]),
        user=sessions.user[kept],
        split=None if sessions.split is None else sessions.split[kept],
        item_ids=item_ids,
        titles=titles,
        report=report,
    )
