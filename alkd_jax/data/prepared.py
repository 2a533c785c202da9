"""Prepared datasets: sessions that were made from raw interactions, numbered and split."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64

from alkd_jax.data.catalogue import NumberedSessions, number_items
from alkd_jax.data.interactions import Interactions
from alkd_jax.data.sessionize import SessionRules, sessionize
from alkd_jax.data.sessions import build_dataset
from alkd_jax.data.splits import SPLITS, split_rows
from alkd_jax.types import Dataset, Sequences


@dataclasses.dataclass(frozen=True)
class Prepared:
    """N complete sessions in the order training, validation, test.

    Attributes:
        name: name of the dataset in reports.
        sequences: complete sessions with items in ``1..V``.
        time: ``[T]`` time of every item, milliseconds since 1970 in UTC.
        user: ``[N]`` number of each session's user.
        sizes: numbers of sessions in training, validation and test.
        titles: V + 1 titles, the first empty.
        item_ids: V + 1 identifiers of the source, the first empty.
        options: options of session making and splitting; plain JSON values.
        report: counts of what was read and dropped; plain JSON values.
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

    def dataset(self, *, max_length: int = 10) -> Dataset:
        """Returns the three splits with the last item of each session held out."""
        return build_dataset(
            self.name,
            self.sequences,
            self.titles,
            self.item_ids,
            max_length=max_length,
            sizes=self.sizes,
            rule=SPLITS[self.options["split"]["rule"]],
            report={**self.report, "options": dict(self.options)},
        )


def prepare(
    log: Interactions,
    rules: SessionRules | None = None,
    *,
    split: str = "block",
    fractions: Sequence[float] = (0.6, 0.2, 0.2),
    days: int = 1,
    seed: int = 0,
    untitled: str = "drop",
) -> Prepared:
    """Makes sessions from interactions, numbers their items, and splits them.

    Args:
        log: E interactions.
        rules: how sessions are made; None for the recipe of the released data.
        split: a key of :data:`alkd_jax.data.splits.SPLITS`.
        fractions: shares of training, validation and test.
        days: number of days of the test split for "last-days".
        seed: random seed of the split.
        untitled: "drop" or "keep" items that are not in the file of titles.

    Returns:
        The sessions in the order of the splits, with all options and counts.

    Raises:
        ValueError: an option is unknown, no session is left, or a split is empty.
    """
    rules = rules or SessionRules()
    sessions = sessionize(log, rules)
    numbered = number_items(log, sessions, untitled=untitled)
    start = numbered.time[numbered.offsets[:-1]]
    split_row_numbers = split_rows(
        split,
        numbered.user,
        start,
        fractions=fractions,
        days=days,
        time_zone=rules.time_zone,
        source_split=numbered.split,
        seed=seed,
    )
    options = {
        "sessions": dataclasses.asdict(rules),
        "split": {"rule": split, "fractions": list(fractions), "days": days, "seed": seed},
        "untitled": untitled,
    }
    report = {**log.report, "sessionise": sessions.report, "catalogue": numbered.report}
    prepared = _reorder(log.name, numbered, np.concatenate(split_row_numbers), options, report)
    sizes = (len(split_row_numbers[0]), len(split_row_numbers[1]), len(split_row_numbers[2]))
    for name, size in zip(("training", "validation", "test"), sizes, strict=True):
        if not size:
            raise ValueError(
                f"split is {split!r} and leaves the {name} split of {len(start)} sessions empty; expected another rule"
            )
    return dataclasses.replace(prepared, sizes=sizes)


def _reorder(
    name: str,
    numbered: NumberedSessions,
    order: Int64[np.ndarray, " N"],
    options: dict[str, Any],
    report: dict[str, Any],
) -> Prepared:
    length = np.diff(numbered.offsets)[order]
    offsets = np.concatenate([[0], np.cumsum(length, dtype=np.int64)])
    source = np.arange(offsets[-1]) + np.repeat(numbered.offsets[:-1][order] - offsets[:-1], length)
    return Prepared(
        name=name,
        sequences=Sequences(items=numbered.items[source], offsets=offsets),
        time=numbered.time[source],
        user=numbered.user[order],
        sizes=(len(order), 0, 0),
        titles=numbered.titles,
        item_ids=numbered.item_ids,
        options=options,
        report=report,
    )
