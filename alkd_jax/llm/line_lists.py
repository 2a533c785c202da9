"""Finds the lists whose entries are lines: numbered, with bullets, or bare."""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence

from alkd_jax.llm.entries import Catalogue, Reading, UnclearError, fold, read_entry
from alkd_jax.llm.orders import TextList, in_order, settle
from alkd_jax.llm.tables import row_numbers, separated_rows

_TRAILING_WORDS = re.compile(r"\b(?:because|since|reason|note|rationale|explanation|why)\b", re.IGNORECASE)
_RULE = re.compile(r"[\s`~=*_-]*(?:```\w*|~~~\w*|[-=*_]{3,})\s*")
_RANK_LINE = re.compile(
    r"\s*(?P<bullet>-?)\s*[\"']?(?:rank|position|pos|place|order|number|rang|priority)[\"']?\s*[:=]\s*(?P<rank>[0-9]{1,3})\s*,?",
    re.IGNORECASE,
)


class _Collector:
    """Collects entries into lists, line by line.

    Attributes:
        groups: heading and entries of each list so far.
    """

    def __init__(self) -> None:
        self.groups: list[tuple[str, list[Reading]]] = []
        self._heading, self._is_open, self._indent = "", False, 0
        self._last: int | None = None
        self._next_rank: int | None = None

    def close(self) -> None:
        """Ends the list, so that the next entry begins another, unless it is numbered on."""
        self._is_open = False

    def add_rank(self, line: str) -> bool:
        """Adds a line that gives the rank of the entry before it or, with a bullet, behind it."""
        match = _RANK_LINE.fullmatch(line)
        if match is None:
            return False
        rank = int(match["rank"])
        if match["bullet"]:
            self._next_rank = rank
        elif self._is_open and self.groups[-1][1][-1].rank_after is None:
            self.groups[-1][1][-1] = dataclasses.replace(self.groups[-1][1][-1], rank_after=rank, is_rank=True)
        return bool(match["bullet"]) or self._is_open

    def add(self, line: str, reading: Reading) -> None:
        """Adds a line, as an entry, as an explanation of one, or as a heading."""
        depth, rank = len(line) - len(line.lstrip()), reading.rank
        names_one = bool(reading.options or reading.several)
        goes_on = rank is not None and self._last is not None and rank in (self._last + 1, self._last - 1)
        is_gap = self._is_open and (rank is None or self._last is None or rank == self._last + 1)
        if not reading.is_item or not (names_one or is_gap):
            is_detail = self._is_open and (depth > self._indent or _is_detail(line))
            self._is_open = is_detail
            self._heading = self._heading if is_detail else line
            return
        if self._next_rank is not None:
            reading = dataclasses.replace(reading, rank_after=self._next_rank, is_rank=True)
            self._next_rank = None
        if self.groups and (self._is_open or goes_on) and not self._restarts(rank):
            entries = self.groups[-1][1]
            is_detail = depth > self._indent and self._is_open and rank is None and entries[-1].rank is not None
            if is_detail:
                return
            entries.append(reading)
        else:
            self.groups.append((self._heading, [reading]))
            self._indent = depth
        self._is_open, self._last = True, self._last if rank is None else rank

    def _restarts(self, rank: int | None) -> bool:
        """Whether a number begins another list: the first again, behind a list that counts up from it."""
        if rank is None or self._last is None or not self._is_open or not rank <= 1 < self._last:
            return False
        ranks = [reading.rank for reading in self.groups[-1][1] if reading.rank is not None]
        return len(ranks) > 1 and ranks[0] <= 1 and all(b - a == 1 for a, b in itertools.pairwise(ranks))


def find_line_lists(lines: Sequence[str], catalogue: Catalogue) -> Iterator[TextList]:
    """Yields the lists whose entries are lines.

    Raises:
        UnclearError: what an entry or a rank means is not certain.
    """
    collector, rows, is_doubtful = _Collector(), row_numbers(lines, catalogue) | separated_rows(lines), False
    for number, line in enumerate(lines):
        is_rule = bool(_RULE.fullmatch(line))
        # A title of nothing but marks of Markdown may be an entry or not.
        is_doubtful = is_doubtful or (is_rule and bool(line.strip()) and fold(line) in catalogue.titles)
        if number in rows:
            collector.close()
        elif line.strip() and not is_rule and not collector.add_rank(line):
            collector.add(line, read_entry(line, catalogue))
    groups = collector.groups
    if len(groups) > 2 and all(len(readings) == 1 for _, readings in groups):
        groups = [(groups[0][0], [readings[0] for _, readings in groups])]
    for heading, readings in groups:
        is_by_title = any(reading.options.keys() & {"title", "numbered"} for reading in readings)
        if is_doubtful and is_by_title:
            raise UnclearError("ambiguous entry")
        if len(readings) > 1 or not readings[0].is_crowded:
            yield TextList(in_order(settle(readings)), heading, is_by_title, is_numbered=readings[0].rank is not None)


def _is_detail(line: str) -> bool:
    """Whether a line explains the entry before it and does not end the list."""
    plain = line.strip(" *_`\t>")
    return (
        not plain.endswith(":")
        and not line.lstrip().startswith("#")
        and bool(_TRAILING_WORDS.match(plain) or plain[:1].islower())
    )
