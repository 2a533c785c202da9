"""Rows of csv whose fields may be quoted. A quote that its row does not close costs that row, and no row after it.

A quote at the start of a field opens it; elsewhere it is an ordinary character. A quoted field may hold separators,
line ends, and quotes that are doubled. Damaged files have quotes that open and never close, or close many rows later; a
field over several lines is therefore believed only if those lines are no rows themselves.
"""

from typing import NamedTuple

MAX_QUOTED_CHARACTERS = 1 << 20
NOT_CLOSED = "a quote opens and is not closed in its row"
TEXT_AFTER_QUOTE = "text after a closing quote"


class Row(NamedTuple):
    """A row of a file.

    Attributes:
        line: number of its first line.
        text: the row, or its first line if it cannot be read.
        fields: its fields; None if it cannot be read.
        reason: why it cannot be read; empty if it can.
    """

    line: int
    text: str
    fields: list[str] | None
    reason: str = ""


def split_rows(
    text: str, first: int, separator: str, quote: str, num_columns: int | None, *, is_end: bool
) -> tuple[list[Row], int, int]:
    """Splits complete lines into rows, without the blank lines between them.

    Args:
        text: lines, each with a line feed at its end.
        first: number of the first line.
        separator: separator between fields.
        quote: the character that quotes a field.
        num_columns: number of fields of a row; None where it is not known.
        is_end: whether the file ends after these lines; otherwise the last row may continue beyond them.

    Returns:
        The rows, and number and position of the first line that belongs to a row beyond the text.
    """
    rows: list[Row] = []
    start, line = 0, first
    while start < len(text):
        end = text.index("\n", start)
        content = text[start:end].removesuffix("\r")
        if not content:
            start, line = end + 1, line + 1
            continue
        if quote not in content:
            rows.append(Row(line, content, content.split(separator)))
            start, line = end + 1, line + 1
            continue
        fields, row_end, reason = _split_row(text, start, separator, quote)
        if row_end is None and not is_end and len(text) - start < MAX_QUOTED_CHARACTERS:
            break
        if row_end is not None and row_end > end:
            if (
                reason
                or len(fields) != (num_columns or len(fields))
                or _holds_rows(text[start:row_end], separator, quote, len(fields))
            ):
                row_end = None
        if row_end is None:
            rows.append(Row(line, content, None, NOT_CLOSED))
            start, line = end + 1, line + 1
            continue
        rows.append(Row(line, text[start:row_end].removesuffix("\r"), None if reason else fields, reason))
        line += text.count("\n", start, row_end + 1)
        start = row_end + 1
    return rows, line, start


def _split_row(text: str, start: int, separator: str, quote: str) -> tuple[list[str], int | None, str]:
    """Returns the fields of a row, the position of the line feed at its end, None if a quote is not closed, and why."""
    fields: list[str] = []
    while True:
        if text.startswith(quote, start):
            closing = _closing_quote(text, start + 1, quote)
            if closing < 0:
                return fields, None, NOT_CLOSED
            fields.append(text[start + 1 : closing].replace(quote * 2, quote))
            start = closing + 1
            if text.startswith(("\n", "\r\n"), start):
                return fields, text.index("\n", start), ""
            if not text.startswith(separator, start):
                return fields, text.index("\n", start), TEXT_AFTER_QUOTE
        else:
            line_end = text.index("\n", start)
            end = text.find(separator, start, line_end)
            if end < 0:
                fields.append(text[start:line_end].removesuffix("\r"))
                return fields, line_end, ""
            fields.append(text[start:end])
            start = end
        start += len(separator)


def _closing_quote(text: str, start: int, quote: str) -> int:
    """Returns the position of the first quote that is not doubled, or -1."""
    limit = start + MAX_QUOTED_CHARACTERS
    while (position := text.find(quote, start, limit)) >= 0 and text.startswith(quote, position + 1):
        start = position + 2
    return position


def _holds_rows(text: str, separator: str, quote: str, num_columns: int) -> bool:
    """Whether lines that would be one row if the quotes in them are believed are rows of their own.

    The first and the last line of a true quoted field lack fields of the row, unless it is the row's first or last. The
    separators of a sentence are followed by a space. A row whose first field is quoted is followed by such rows.
    """
    lines = text.split("\n")
    starts_quoted = text.startswith(quote) and 0 < _closing_quote(text, 1, quote) < len(lines[0])
    first, *inner, last = (
        _is_row(line, separator, num_columns) and (not starts_quoted or line.startswith(quote)) for line in lines
    )
    return 2 * sum(inner) >= len(inner) if inner else first and last


def _is_row(line: str, separator: str, num_columns: int) -> bool:
    fields = line.split(separator)
    return len(fields) == num_columns and not any(field.startswith(" ") for field in fields[1:])
