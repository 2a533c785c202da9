"""The account of the rows of files: how many were found, and those that cannot be read, by reason, with samples."""

import collections
import dataclasses
from collections.abc import Iterable
from typing import Any, NamedTuple

from alkd_jax.errors import printable, shown

_SAMPLES_PER_REASON = 5


class Account(NamedTuple):
    """Numbers of rows of all files read so far: found, bad, that repeat the beginning of another, and not asked for."""

    found: int
    bad: int
    prefixes: int
    others: int


@dataclasses.dataclass(frozen=True)
class BadRows:
    """The rows of one or more files, and those among them that could not be read.

    Attributes:
        strict: whether the first bad row raises an error.
        counts: reason → number of rows.
        samples: ``FILE, line N: REASON: TEXT`` for the first few rows of each reason.
        found: file → number of its rows, good or bad, as the reader of the file counted them.
        prefixes: file → number of good rows that only repeat the beginning of another row.
        others: file → number of good rows that are not asked for, such as those of another country.
    """

    strict: bool = False
    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    samples: list[str] = dataclasses.field(default_factory=list)
    found: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    prefixes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    others: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def add(self, file: str, reason: str, rows: Iterable[tuple[int, object]], *, total: int | None = None) -> None:
        """Counts bad rows.

        Args:
            file: name of the file.
            reason: what is wrong, without the row's own values, so that equal reasons are counted together.
            rows: line number, from 1, and text of each bad row, or of the first few.
            total: number of bad rows; None where ``rows`` has them all.

        Raises:
            ValueError: ``strict`` is set and there is a bad row.
        """
        num_rows = 0
        for num_rows, (line, text) in enumerate(rows, 1):
            if not self.strict and self.counts[reason] + num_rows > _SAMPLES_PER_REASON:
                continue
            message = f"{printable(file)}, line {line}: {reason}: {shown(str(text))}"
            if self.strict:
                raise ValueError(message)
            self.samples.append(message)
        if total or num_rows:
            self.counts[reason] += num_rows if total is None else total

    @property
    def account(self) -> Account:
        """The numbers of rows that readers have counted so far."""
        return Account(self.found.total(), self.counts.total(), self.prefixes.total(), self.others.total())

    def check(self, name: str, before: Account, num_used: int) -> dict[str, int]:
        """Checks that every row was used or counted.

        Args:
            name: of what was read.
            before: the account before it was read.
            num_used: number of its rows in use.

        Returns:
            Numbers of rows for a report.

        Raises:
            RuntimeError: a row is neither used nor counted.
        """
        found, bad, prefixes, others = (new - old for new, old in zip(self.account, before, strict=True))
        known = num_used + bad + prefixes + others
        # A reader of one's own may leave it to this class to count the rows.
        num_rows = found or known
        if num_rows != known:
            raise RuntimeError(
                f"{name}: {num_rows:,} rows, of which {num_used:,} are used, {bad:,} are bad, {prefixes:,} are the "
                f"beginning of another and {others:,} are not asked for; expected the reader to count every row that "
                "it drops with BadRows.add"
            )
        optional = {"rows_of_prefixes": prefixes, "rows_not_asked_for": others}
        return {"rows_read": num_rows, "rows_used": num_used, **{key: n for key, n in optional.items() if n}}

    @property
    def report(self) -> dict[str, Any]:
        """Counts and samples as plain JSON values."""
        return {"total": self.counts.total(), "reasons": dict(self.counts), "samples": list(self.samples)}
