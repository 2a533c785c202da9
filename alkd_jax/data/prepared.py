"""Prepared datasets: sessions that were made from raw interactions, numbered and split."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32, Int64

from alkd_jax.data.catalogue import NumberedSessions, number_items
from alkd_jax.data.event_splits import EventSplit, Prefixes, account, split_sessions
from alkd_jax.data.interactions import Interactions
from alkd_jax.data.leaks import leak_warning
from alkd_jax.data.session_names import name_sessions
from alkd_jax.data.session_rules import SessionRules
from alkd_jax.data.sessionize import SessionLog, sessionize
from alkd_jax.data.sessions import build_dataset
from alkd_jax.data.splits import EVENT_SPLITS, SPLITS, TIMED_SPLITS, SplitRules
from alkd_jax.types import PAD, Dataset, Sequences

PART_NAMES = ("train", "validation", "test")
"""Names of the parts of a split, in their order."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """N sessions in the order training, validation, test.

    Attributes:
        name: name of the dataset in reports.
        sequences: the sessions of each part with items in ``1..V``: whole, or the beginnings that the split gives the
            part, so that an event may occur in several parts.
        time: ``[T]`` time of every item, milliseconds since 1970 in UTC.
        user: ``[N]`` number of each session's user.
        sizes: numbers of sessions in training, validation and test.
        titles: V + 1 titles, the first empty.
        item_ids: V + 1 identifiers of the source, the first empty.
        options: options of session making and splitting; plain JSON values.
        report: counts of what was read and dropped; plain JSON values.
        first_target: ``[N]`` position of the first item to predict; None for 1 in every session.
        source_row: ``[N]`` number of the session that each is the beginning of; None where all are whole.
        session_ids: ``[N]`` raw ids, see :mod:`alkd_jax.data.session_names`, which are distinct within a part; None in
            folders of earlier versions.
    """

    name: str
    sequences: Sequences
    time: Int64[np.ndarray, " T"]
    user: Int32[np.ndarray, " N"]
    sizes: tuple[int, int, int]
    titles: tuple[str, ...]
    item_ids: tuple[str, ...]
    options: Mapping[str, Any]
    report: Mapping[str, Any]
    first_target: Int32[np.ndarray, " N"] | None = None
    source_row: Int32[np.ndarray, " N"] | None = None
    session_ids: tuple[str, ...] | None = None

    @property
    def has_times(self) -> bool:
        """Whether ``time`` is that of the source; otherwise it is the number of the row, which gives the order."""
        return bool(self.report.get("has_times", True))

    @property
    def has_whole_sessions(self) -> bool:
        """Whether every session is whole and in one part, so that no event occurs twice."""
        return self.source_row is None

    def check_whole_sessions(self, name: str) -> None:
        """Refuses cut sessions, for what can hold no history that is not to be predicted.

        Args:
            name: what can hold whole sessions only, in the error.

        Raises:
            ValueError: the split cuts sessions.
        """
        if not self.has_whole_sessions:
            raise ValueError(
                f"split is {self.options['split']['rule']!r}, which cuts sessions; expected a split of whole sessions "
                f"for {name}"
            )

    @property
    def distinct_rows(self) -> Int64[np.ndarray, " M"]:
        """``[M]`` rows that together hold every session once, the longest beginning of each, in ascending order."""
        length = np.diff(np.asarray(self.sequences.offsets))
        if self.source_row is None:
            return np.arange(len(length))
        order = np.lexsort((length, self.source_row))
        is_longest = np.append(np.diff(self.source_row[order]) != 0, True)
        return np.sort(order[is_longest])

    def dataset(self, *, max_length: int = 10) -> Dataset:
        """Returns the three parts; the last item of each session is the target of ``Sessions``."""
        dataset = build_dataset(
            self.name,
            self.sequences.replace(time=self.time if self.has_times else None),  # type: ignore[attr-defined]
            self.titles,
            self.item_ids,
            max_length=max_length,
            sizes=self.sizes,
            first_target=self.first_target,
            rule=SPLITS[self.options["split"]["rule"]],
            report={**self.report, "options": dict(self.options)},
        )
        dataset = dataclasses.replace(dataset, session_ids=self.session_ids)
        if self.has_whole_sessions:
            return dataset
        rows = self.distinct_rows
        length = np.diff(np.asarray(self.sequences.offsets))[rows]
        counts = {"sessions": len(rows), "interactions": int(length.sum())}
        return dataclasses.replace(dataset, report={**dataset.report, **counts})


def prepare(
    log: Interactions,
    rules: SessionRules | None = None,
    split: SplitRules | str = "block",
    *,
    untitled: str = "drop",
) -> Prepared:
    """Makes sessions from interactions, numbers their items, and splits them.

    Args:
        log: E interactions.
        rules: how sessions are made; None for the recipe of the released data.
        split: how they are split, or the name of a rule whose other options have their defaults.
        untitled: "drop" or "keep" items that are not in the file of titles.

    Returns:
        The sessions in the order of the parts, with all options and counts.

    Raises:
        ValueError: an option is unknown, no session is left, a part is empty, or the rule needs times and the source
            has none.
    """
    rules = rules or SessionRules()
    split = SplitRules(split) if isinstance(split, str) else split
    return prepare_sessions(log, sessionize(log, rules), rules, split, untitled=untitled)


def prepare_sessions(
    log: Interactions, sessions: SessionLog, rules: SessionRules, split: SplitRules, *, untitled: str = "drop"
) -> Prepared:
    """Numbers the items of sessions and splits them; arguments, result and errors are those of :func:`prepare`."""
    if split.rule in TIMED_SPLITS and not log.has_times:
        raise ValueError(f"split is {split.rule!r}, but {log.name} has no times; expected another rule")
    numbered = number_items(log, sessions, untitled=untitled)
    parts = split_sessions(numbered, split, time_zone=rules.time_zone)
    options = {
        "sessions": rules.options,
        "split": {**dataclasses.asdict(split), "fractions": list(split.fractions), **parts.cuts},
        "untitled": untitled,
    }
    report = {**log.report, "sessionise": sessions.report, "catalogue": numbered.report}
    report |= {"has_times": log.has_times, "account": account(np.diff(numbered.offsets), parts)}
    prepared = _take_parts(log.name, numbered, parts, split.rule in EVENT_SPLITS, options, report)
    names = name_sessions(log, rules, numbered.user, numbered.time[numbered.offsets[:-1]], numbered.session)
    rows = np.concatenate([part.row for part in parts.parts]).tolist()
    prepared = dataclasses.replace(prepared, session_ids=tuple(names[row] for row in rows))
    if split.unseen == "drop":
        prepared = drop_unseen(prepared)
    for name, size in zip(("training", "validation", "test"), prepared.sizes, strict=True):
        if not size:
            raise ValueError(
                f"split is {split.rule!r} and leaves the {name} split of {len(numbered.user)} sessions empty; expected "
                "another rule"
            )
    return dataclasses.replace(prepared, report={**prepared.report, **_across_parts(prepared, log.has_times)})


def _take_parts(
    name: str,
    numbered: NumberedSessions,
    split: EventSplit,
    is_cut: bool,
    options: dict[str, Any],
    report: dict[str, Any],
) -> Prepared:
    row, length, first_target = (
        np.concatenate([getattr(part, field.name) for part in split.parts]) for field in dataclasses.fields(Prefixes)
    )
    offsets = np.concatenate([[0], np.cumsum(length, dtype=np.int64)])
    source = np.arange(offsets[-1]) + np.repeat(numbered.offsets[:-1][row] - offsets[:-1], length)
    return Prepared(
        name=name,
        sequences=Sequences(items=numbered.items[source], offsets=offsets),
        time=numbered.time[source],
        user=numbered.user[row],
        sizes=(len(split.train), len(split.validation), len(split.test)),
        titles=numbered.titles,
        item_ids=numbered.item_ids,
        options=options,
        report=report,
        first_target=first_target.astype(np.int32) if is_cut else None,
        source_row=row.astype(np.int32) if is_cut else None,
    )


def _events(prepared: Prepared) -> tuple[Int64[np.ndarray, " T"], Int64[np.ndarray, " T"], Bool[np.ndarray, " T"]]:
    """Returns the session's row, the part, and whether it is to be predicted, of every event."""
    length = np.diff(np.asarray(prepared.sequences.offsets))
    row = np.repeat(np.arange(len(length)), length)
    part = np.repeat(np.arange(3), prepared.sizes)[row]
    position = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length)
    first_target = 1 if prepared.first_target is None else prepared.first_target[row]
    return row, part, (part > 0) & (position >= first_target)


def drop_unseen(prepared: Prepared) -> Prepared:
    """Drops the items of validation and test that no training session contains, and takes them out of the catalogue.

    A held-out session without a target or without an input is dropped too. The first item left in a session whose
    history is dropped becomes its input.

    Args:
        prepared: N sessions.

    Returns:
        The remaining sessions over the items of training; ``report["unseen_dropped"]`` counts what was dropped.
    """
    items = np.asarray(prepared.sequences.items)
    row, part, is_target = _events(prepared)
    number = np.zeros(len(prepared.titles), np.int32)
    known = np.unique(items[part == 0])
    number[known] = np.arange(1, len(known) + 1)
    num_sessions = len(prepared.user)
    is_known = number[items] != PAD
    length = np.bincount(row[is_known], minlength=num_sessions)
    is_train = np.repeat(np.arange(3), prepared.sizes) == 0
    num_history = np.bincount(row[is_known & ~is_target], minlength=num_sessions)
    first_target = np.where(is_train, 1, np.maximum(num_history, 1))
    keep = is_train | (length > first_target)
    kept_event = is_known & keep[row]
    sizes = np.bincount(np.repeat(np.arange(3), prepared.sizes)[keep], minlength=3).tolist()
    dropped = {
        "items": len(number) - 1 - len(known),
        "events": {name: int(np.sum(~is_known & (part == n))) for n, name in enumerate(PART_NAMES) if n},
        "sessions": {name: prepared.sizes[n] - sizes[n] for n, name in enumerate(PART_NAMES) if n},
        "events_of_dropped_sessions": int(np.sum(is_known & ~keep[row])),
    }
    return dataclasses.replace(
        prepared,
        sequences=Sequences(
            items=number[items[kept_event]], offsets=np.concatenate([[0], np.cumsum(length[keep], dtype=np.int64)])
        ),
        time=prepared.time[kept_event],
        user=prepared.user[keep],
        sizes=(sizes[0], sizes[1], sizes[2]),
        titles=("", *(prepared.titles[item] for item in known)),
        item_ids=("", *(prepared.item_ids[item] for item in known)),
        report={**prepared.report, "unseen_dropped": dropped},
        first_target=None if prepared.first_target is None else first_target[keep].astype(np.int32),
        source_row=None if prepared.source_row is None else prepared.source_row[keep],
        session_ids=None if prepared.session_ids is None else tuple(itertools.compress(prepared.session_ids, keep)),
    )


def _across_parts(prepared: Prepared, has_times: bool) -> dict[str, Any]:
    """Returns the leak warning and the counts of items and targets that training does not contain."""
    items = np.asarray(prepared.sequences.items)
    _, part, is_target = _events(prepared)
    seen = np.zeros(len(prepared.titles), bool)
    seen[items[part == 0]] = True
    targets = [items[is_target & (part == n)] for n in (1, 2)]
    times = (prepared.time[part == 0], prepared.time[is_target & (part == 2)]) if has_times else (None, None)
    return {
        "leak_warning": leak_warning(prepared.options["split"]["rule"], *times),
        "unseen": {
            "items": int(np.sum(~seen[1:])),
            **{
                f"{name}_targets": {"unseen": int(np.sum(~seen[found])), "of": len(found)}
                for name, found in zip(PART_NAMES[1:], targets, strict=True)
            },
        },
    }
