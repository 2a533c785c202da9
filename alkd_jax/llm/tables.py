"""Reads tables: those of Markdown, and separated values under a header."""

import csv
import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence

from alkd_jax.llm.entries import LABEL, Catalogue, Reading, UnclearError, fold, read_entry
from alkd_jax.llm.orders import LIKELIHOOD, TextList, in_order, settle
from alkd_jax.llm.ordinals import grade_of, ordinal_word

_LABEL = re.compile(LABEL)
_RANK_HEADER = re.compile(
    r"#|rank(?:ing)?|pos(?:ition)?|place|no\.?|order|nr\.?|rang|platz|排名|名次|順位|순위", re.IGNORECASE
)
_LABEL_HEADER = re.compile(
    r"(?:candidate|item|movie|game|product)?[ _-]*(?:ids?|labels?|codes?|candidates?)", re.IGNORECASE
)
_SCORE_HEADER = re.compile(
    r"(?!.*(?:rank|order|position)).*(?:score|prob|likel|relevan|confiden|rating|weight|points|chance|match).*",
    re.IGNORECASE,
)


def find_tables(lines: Sequence[str], catalogue: Catalogue) -> Iterator[TextList]:
    """Yields the tables of Markdown, and those of separated values that have a header."""
    heading, rows = "", list[list[str]]()
    numbers = row_numbers(lines, catalogue)
    for number, line in enumerate([*lines, ""]):
        if number in numbers:
            rows.append([cell.strip(" *_`\"'") for cell in line.strip().strip("|").split("|")])
            continue
        if rows:
            if (order := _read_table(rows, catalogue)) is not None:
                yield TextList(order, heading)
            rows = []
        heading = line if line.strip() else heading
    if (header := _separated_header(lines)) is not None:
        index, separator, cells = header
        body = [row for row in lines[index + 1 :] if row.count(separator) >= 1]
        rows = [cells] + [[cell.strip() for cell in row] for row in csv.reader(body, delimiter=separator)]
        if (order := _read_table(rows, catalogue)) is not None:
            yield TextList(order, lines[index - 1] if index else "")


def _separated_header(lines: Sequence[str]) -> tuple[int, str, list[str]] | None:
    """Returns place, separator and cells of the first line that is the header of separated values."""
    for index, line in enumerate(lines):
        separator = next((mark for mark in "\t;," if mark in line), "")
        cells = [cell.strip(" \"'").lower() for cell in line.split(separator)] if separator else []
        if len(cells) > 1 and any(map(_LABEL_HEADER.fullmatch, cells)) and not _LABEL.search(line):
            return index, separator, cells
    return None


def _read_table(rows: Sequence[Sequence[str]], catalogue: Catalogue) -> list[int | None] | None:
    """Reads the rows of a table: the column of labels, in the order of the column of ranks where there is one."""
    rows = [row for row in rows if any(cell.strip("-: ") for cell in row)]
    header: Sequence[str] = ()
    if rows and not any(read_entry(cell, catalogue).is_pure for cell in rows[0]):
        header, rows = rows[0], rows[1:]
    if not rows:
        return None
    width = max(map(len, rows))
    readings = [[read_entry(cell, catalogue) if cell else Reading() for cell in row] for row in rows]
    pure = [n for n in range(width) if all(n < len(row) and row[n].is_pure for row in readings)]
    if len(pure) > 1:
        named = [n for n in pure if n < len(header) and _LABEL_HEADER.fullmatch(header[n])]
        pure = named if len(named) == 1 else pure
    if len(pure) > 1:
        if len(rows) == 1:
            return None
        raise UnclearError("ambiguous entry")
    if pure:
        entries = [row[pure[0]] for row in readings]
    else:
        entries = [_only_label(row, cells, catalogue) for row, cells in zip(readings, rows, strict=True)]
        if not any(entry.options for entry in entries):
            return None
    ranks, is_called, scores = _rank_column(header, rows, entries, catalogue)
    scored = [name for name in header if _SCORE_HEADER.fullmatch(name)]
    is_likelihood = len(scored) == 1 and bool(LIKELIHOOD.fullmatch(scored[0]))
    entries = [
        dataclasses.replace(
            entry,
            rank=None,
            rank_after=rank,
            is_rank=is_called,
            score=score,
            is_likelihood=is_likelihood,
            several=(),
            numbers=_numbers(header, row),
        )
        for entry, rank, score, row in zip(entries, ranks, scores, rows, strict=True)
    ]
    return in_order(settle(entries))


def _numbers(header: Sequence[str], row: Sequence[str]) -> dict[str, int | float]:
    """Returns the numbers and grades of a row under headers that are neither those of ranks nor of scores."""
    numbers: dict[str, int | float] = {}
    for name, cell in zip(header, row, strict=False):
        grade, word = grade_of(cell), ordinal_word(cell)
        if grade is not None:
            numbers[name] = grade
        elif word is not None:
            numbers[name] = word
        elif re.fullmatch(r"-?[0-9]+(?:\.[0-9]+)?", cell) and not _RANK_HEADER.fullmatch(name):
            if not _SCORE_HEADER.fullmatch(name):
                numbers[name] = float(cell)
    return numbers


def _only_label(row: Sequence[Reading], cells: Sequence[str], catalogue: Catalogue) -> Reading:
    """Returns the cell of a row that names a candidate; where there are several, that which its title confirms."""
    pure = [reading for reading in row if reading.is_pure]
    if len(pure) > 1:
        folded = {fold(cell) for cell in cells}
        pure = [r for r in pure if (n := r.options["label"]) < catalogue.size and catalogue.titles[n] in folded]
        if len(pure) != 1:
            raise UnclearError("ambiguous entry")
    if pure:
        return pure[0]
    return next((reading for reading in row if reading.options), Reading())


def _rank_column(
    header: Sequence[str], rows: Sequence[Sequence[str]], entries: Sequence[Reading], catalogue: Catalogue
) -> tuple[list[int | None], bool, list[float | None]]:
    """Returns the ranks of a table's rows, whether its header calls them so, and their scores."""
    columns: list[tuple[int, list[int]]] = []
    nothing = [None] * len(rows)
    scores: list[float | None] = list(nothing)
    for n in range(max(map(len, rows))):
        cells = [row[n] if n < len(row) else "" for row in rows]
        name = header[n].strip(" *_`.") if n < len(header) else ""
        if _SCORE_HEADER.fullmatch(name):
            scores = [
                float(cell.rstrip("%")) if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?%?", cell) else None for cell in cells
            ]
        elif name and _RANK_HEADER.fullmatch(name) and not all(re.search(r"[0-9]", cell) for cell in cells):
            raise UnclearError("ranks")
        elif all(re.fullmatch(r"#?[0-9]{1,3}(?:st|nd|rd|th)?[.)]?", cell) for cell in cells):
            values = [int(re.sub(r"\D", "", cell)) for cell in cells]
            if name and _RANK_HEADER.fullmatch(name):
                return list(values), True, list(nothing)
            own = [next(iter(entry.options.values()), catalogue.size) for entry in entries]
            if all(
                m < catalogue.size and catalogue.titles[m] == fold(cell) for m, cell in zip(own, cells, strict=True)
            ):
                continue
            if sorted(values) == list(range(1, len(values) + 1)) or (not name and n == 0):
                columns.append((n, values))
    if len({tuple(values) for _, values in columns}) > 1:
        raise UnclearError("ranks")
    return (list(columns[0][1]) if columns else list(nothing)), bool(columns), scores


def row_numbers(lines: Sequence[str], catalogue: Catalogue) -> set[int]:
    """Returns which lines are rows of a table."""
    columns = [0 if catalogue.is_title(line) else line.count("|") for line in lines]
    return {
        n
        for n, (line, count) in enumerate(zip(lines, columns, strict=True))
        if (count > 1 and line.strip()[0] == "|") or (count > 1 and columns.count(count) > 2)
    }


def separated_rows(lines: Sequence[str]) -> set[int]:
    """Returns which lines are separated values under a header that has a column of ranks."""
    header = _separated_header(lines)
    if header is None or not any(map(_RANK_HEADER.fullmatch, header[2])):
        return set()
    index, separator, _ = header
    return set(itertools.takewhile(lambda n: separator in lines[n], range(index + 1, len(lines))))
