"""Rows that cannot be read: counted by reason, with a few samples, or an error at the first of them."""

import collections
import dataclasses
from collections.abc import Iterable
from typing import Any

_SAMPLES_PER_REASON = 5
_SAMPLE_WIDTH = 100


@dataclasses.dataclass(frozen=True)
class BadRows:
    """The rows of one or more files that could not be read.

    Attributes:
        strict: whether the first bad row raises an error.
        counts: reason → number of rows.
        samples: ``FILE, line N: REASON: TEXT`` for the first few rows of each reason.
    """

    strict: bool = False
    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    samples: list[str] = dataclasses.field(default_factory=list)

    def add(self, file: str, reason: str, rows: Iterable[tuple[int, object]]) -> None:
        """Counts bad rows.

        Args:
            file: name of the file.
            reason: what is wrong, without the row's own values, so that equal reasons are counted together.
            rows: line number, from 1, and text of each bad row.

        Raises:
            ValueError: ``strict`` is set and there is a bad row.
        """
        for line, text in rows:
            message = f"{file}, line {line}: {reason}: {str(text)[:_SAMPLE_WIDTH]!r}"
            if self.strict:
                raise ValueError(message)
            if self.counts[reason] < _SAMPLES_PER_REASON:
                self.samples.append(message)
            self.counts[reason] += 1

    @property
    def report(self) -> dict[str, Any]:
        """Counts and samples as plain JSON values."""
        return {"total": self.counts.total(), "reasons": dict(self.counts), "samples": list(self.samples)}
