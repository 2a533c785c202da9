"""The catalogue: numbers the items of sessions from 1 in the order of the titles and drops or keeps untitled items."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64

from alkd_jax.checks import check_one_of
from alkd_jax.data.interactions import Interactions
from alkd_jax.data.sessionize import SessionLog

UNTITLED_OPTIONS = ("drop", "keep")


@dataclasses.dataclass(frozen=True)
class NumberedSessions:
    """N sessions with T items in total, over a catalogue of V items.

    Attributes:
        items: ``[T]`` item numbers in ``1..V``.
        time: ``[T]`` milliseconds since 1970 in UTC.
        offsets: ``[N + 1]`` position of each session's first item.
        user: ``[N]`` position in the source's ``user_ids``.
        split: ``[N]`` 0 training, 1 validation, 2 test; None where the source is not split.
        item_ids: V + 1 identifiers of the source, the first empty.
        titles: V + 1 titles, the first empty.
        report: counts of what was dropped; plain JSON values.
        session: ``[N]`` position in the source's ``session_ids``; None where the source has no sessions.
    """

    items: Int32[np.ndarray, " T"]
    time: Int64[np.ndarray, " T"]
    offsets: Int64[np.ndarray, " N1"]
    user: Int32[np.ndarray, " N"]
    split: Int32[np.ndarray, " N"] | None
    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    report: dict[str, Any]
    session: Int32[np.ndarray, " N"] | None = None


def number_items(
    log: Interactions, sessions: SessionLog, *, untitled: str = "drop", min_length: int = 2
) -> NumberedSessions:
    """Numbers the items that occur in sessions.

    Items are in the order of the file of titles, or of first appearance where the source has no titles. With
    ``untitled="drop"``, as in the released data, inputs that are not in the file of titles are dropped, then sessions
    whose target is not in it or that have no input left; the catalogue keeps items that occur only in dropped sessions.
    An item whose title is empty is in the file and stays.

    Args:
        log: the interactions that the sessions were made from.
        sessions: N sessions; their items are positions in ``log.item_ids``.
        untitled: "drop" drops untitled items; "keep" gives them an empty title, at the end of the catalogue.
        min_length: number of items that a session must have left, its target included; 1 or 2.

    Returns:
        The remaining sessions and the catalogue.

    Raises:
        ValueError: ``untitled`` is unknown, or no session is left.
    """
    check_one_of("untitled", untitled, UNTITLED_OPTIONS)
    used = np.zeros(len(log.item_ids), bool)
    used[sessions.item] = True
    if log.titles is None:
        order = np.flatnonzero(used).tolist()
        titles = [""] * len(order)
        num_untitled = 0
    else:
        code_of = {name: code for code, name in enumerate(log.item_ids) if used[code]}
        order = [code_of.pop(name) for name in log.titles if name in code_of]
        titles = [log.titles[log.item_ids[code]] for code in order]
        num_untitled = len(code_of)
        if untitled == "keep":
            order += code_of.values()
            titles += [""] * num_untitled
    number = np.zeros(len(log.item_ids), np.int32)
    number[order] = np.arange(1, len(order) + 1, dtype=np.int32)
    return _drop_untitled(
        sessions,
        number[sessions.item],
        ("", *(log.item_ids[code] for code in order)),
        ("", *titles),
        {"untitled": untitled, "items_without_title_row": num_untitled},
        min_length,
    )


def _drop_untitled(
    sessions: SessionLog,
    items: Int32[np.ndarray, " T"],
    item_ids: tuple[str, ...],
    titles: tuple[str, ...],
    report: dict[str, Any],
    min_length: int,
) -> NumberedSessions:
    offsets, length = sessions.offsets, np.diff(sessions.offsets)
    titled = items > 0
    num_titled = np.concatenate([[0], np.cumsum(titled)])
    length_left = num_titled[offsets[1:]] - num_titled[offsets[:-1]]
    titled_target = titled[offsets[1:] - 1]
    keep_session = titled_target & (length_left >= min_length)
    if not keep_session.any():
        raise ValueError("titles match the items of no session; expected the item ids of the interactions")
    keep_item = titled & np.repeat(keep_session, length)
    report |= {
        "inputs_untitled": int(np.sum(~titled)) - int(np.sum(~titled_target)),
        "targets_untitled": int(np.sum(~titled_target)),
        "no_input_left": int(np.sum(titled_target & (length_left < min_length))),
    }
    return NumberedSessions(
        items=items[keep_item],
        time=sessions.time[keep_item],
        offsets=np.concatenate([[0], np.cumsum(length_left[keep_session], dtype=np.int64)]),
        user=sessions.user[keep_session],
        split=None if sessions.split is None else sessions.split[keep_session],
        item_ids=item_ids,
        titles=titles,
        report=report,
        session=None if sessions.session is None else sessions.session[keep_session],
    )
