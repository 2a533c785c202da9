"""Rows that cannot be read: counted by reason, a few shown, or the first of them an error."""

import collections
import dataclasses
from collections.abc import Iterable
from typing import Any

_SAMPLES_A_REASON = 5
_SAMPLE_WIDTH = 100


@dataclasses.dataclass(frozen=True)
class BadRows:
    """What was wrong with the rows of some files.

    Attributes:
        strict: whether the first bad row is an error.
        counts: reason → rows.
        samples: "file, line: reason: text" of the first few rows of each reason.
    """

    strict: bool = False
    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    samples: list[str] = dataclasses.field(default_factory=list)

    def add(self, file: str, reason: str, rows: Iterable[tuple[int, object]]) -> None:
        """Note bad rows.

        Args:
            file: what the file is called.
            reason: what is wrong, without the row's own values, so that reasons can be counted.
            rows: line number, from 1, and text of each.

        Raises:
            ValueError: there is a row and ``strict`` is set.
        """
        for line, text in rows:
            told = f"{file}, line {line}: {reason}: {str(text)[:_SAMPLE_WIDTH]!r}"
            if self.strict:
                raise ValueError(told)
            if self.counts[reason] < _SAMPLES_A_REASON:
                self.samples.append(told)
            self.counts[reason] += 1

    @property
    def report(self) -> dict[str, Any]:
        """Counts and samples as plain JSON values."""
        return {"total": self.counts.total(), "reasons": dict(self.counts), "samples": list(self.samples)}
