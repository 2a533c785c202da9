"""Reads columns of delimited text by name, block by block, with or without the quotes of csv."""

import codecs
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alkd_jax.data.text import text_files
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.columns import check_columns
from alkd_jax.data.text.quoted_rows import NOT_CLOSED, TEXT_AFTER_QUOTE, Row, split_rows
from alkd_jax.data.text.source_files import TextFile
from alkd_jax.errors import shown

if TYPE_CHECKING:
    import polars as pl

_NUM_SAMPLES = 5


def read_delimited(
    file: TextFile,
    bad_rows: BadRows,
    columns: Mapping[str, Sequence[str]],
    *,
    optional: Sequence[str] = (),
    one_of: Sequence[str] = (),
    separator: str = "\t",
    header: Sequence[str] | None = None,
    quote: str = "",
    encoding: str = "utf-8",
) -> Iterator[Any]:
    """Reads some columns as text. A line without any character is no row.

    Args:
        file: what to read.
        bad_rows: counts the rows, and those with too few or too many fields, with a quote that is not closed, or with
            bytes that are invalid in the encoding.
        columns: purpose of a column → the names it may have. The columns may stand in any order, among others.
        optional: keys of ``columns`` that may be missing.
        one_of: some of them, of which at least one may not be missing.
        separator: separator between fields.
        header: names of the columns; None where the first line of the file holds them.
        quote: the character that quotes a field at whose start it stands; empty if there is none.
        encoding: encoding of the file.

    Yields:
        Polars frames with a string column for each key and ``line``, the row's line number from 1.

    Raises:
        ValueError: a column is missing or occurs twice, or the file is damaged.
    """
    names = None if header is None else list(header)
    position = {} if names is None else _column_positions(f"{file}", names, columns, optional, one_of)
    pending, pending_line = b"", 0
    for first, block, is_end in _with_end(text_files.read_blocks(file, encoding=encoding)):
        if names is None:
            num_blank = len(block) - len(block.lstrip(b"\r\n"))
            first += block.count(b"\n", 0, num_blank)
            line, _, block = block[num_blank:].partition(b"\n")
            if not line:
                continue
            names = _parse_header(f"{file}, line {first}", line.decode(), separator, quote)
            position = _column_positions(f"{file}, line {first}", names, columns, optional, one_of, separator)
            first += 1
        if pending:
            block, first, pending = pending + block, pending_line, b""
        frame = _parse_fast(block, first, len(names), position, separator, quote)
        if frame is not None:
            bad_rows.found[str(file)] += block.count(b"\n")
        elif quote and quote.encode() in block:
            rows, pending_line, end = split_rows(block.decode(), first, separator, quote, len(names), is_end=is_end)
            pending = block.decode()[end:].encode()
            frame = _good_rows(rows, len(names), position, bad_rows, str(file))
        else:
            frame = _parse_lines(block, first, len(names), position, separator, bad_rows, str(file))
        yield frame
    if names is None:
        raise ValueError(f"{file} is empty; expected a line of column names")


def check_format(separator: str, quote: str) -> None:
    """Refuses a separator and a quote that cannot be told apart or are no characters of a line.

    Args:
        separator: separator between fields.
        quote: the character that quotes a field; empty if there is none.

    Raises:
        ValueError: the separator is empty, either one holds a line end, the quote has more than one character or is in
            the separator.
    """
    if not separator or {"\n", "\r", text_files.UNDECODABLE} & {*separator}:
        raise ValueError(f"separator is {shown(separator)}; expected a character such as ',' or ';'")
    if len(quote) > 1 or quote in ("\n", "\r", text_files.UNDECODABLE) or (quote and quote in separator):
        raise ValueError(f"quote is {shown(quote)}; expected one character other than the separator, or none")


def _with_end(blocks: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes, bool]]:
    """Yields each block with whether it is the last one."""
    previous = next(blocks, None)
    for block in blocks:
        if previous is not None:
            yield *previous, False
        previous = block
    if previous is not None:
        yield *previous, True


def _parse_header(place: str, line: str, separator: str, quote: str) -> list[str]:
    line = line.removesuffix("\r")
    names: list[str] | None = line.split(separator)
    if quote and quote in line:
        rows, _, _ = split_rows(line + "\n", 1, separator, quote, None, is_end=True)
        names = rows[0].fields
    if names is None:
        raise ValueError(f"{place}: column names are {shown(line)}; expected every quote to be closed")
    return [name.strip() for name in names]


def _column_positions(
    place: str,
    names: Sequence[str],
    columns: Mapping[str, Sequence[str]],
    optional: Sequence[str],
    one_of: Sequence[str],
    separator: str = "",
) -> dict[str, int]:
    position = {}
    for key, accepted in columns.items():
        matches = [name for name in accepted if name in names]
        if not matches:
            continue
        if list(names).count(matches[0]) > 1:
            raise ValueError(f"{place}: column {shown(matches[0])} occurs twice; expected distinct names")
        position[key] = list(names).index(matches[0])
    check_columns(place, names, position, columns, optional=optional, one_of=one_of, hint=_hint(names, separator))
    return position


def _hint(names: Sequence[str], separator: str) -> str:
    """Returns what may be wrong where a column is missing."""
    line = separator.join(names)
    if "\0" in line:
        return "; the file looks like UTF-16: name its encoding (--encoding utf-16)"
    counts = {other: line.count(other) for other in ",;\t|" if other != separator}
    likely = max(counts, key=lambda other: counts[other])
    if len(names) == 1 and counts[likely]:
        return f"; if {likely!r} separates the columns, say so (--separator {likely!r})"
    return ""


def _parse_fast(
    block: bytes, first: int, num_columns: int, position: Mapping[str, int], separator: str, quote: str = ""
) -> "pl.DataFrame | None":
    """Parses a block with polars; returns None if a row may be damaged, which has to be checked row by row."""
    import polars as pl

    if len(separator.encode()) != 1 or not block or text_files.UNDECODABLE.encode() in block:
        return None
    # Polars drops U+FEFF at the start of a block, where it belongs to a field.
    if block.startswith(codecs.BOM_UTF8):
        return None
    # Polars drops a carriage return at the end of every field, which is correct at the end of a row only.
    if block.count(b"\r") != block.count(b"\r\n"):
        return None
    is_quoted = bool(quote) and quote.encode() in block
    # Polars takes gigabytes for a line of millions of fields.
    if not is_quoted and block.count(separator.encode()) != (num_columns - 1) * block.count(b"\n"):
        return None
    names = [str(number) for number in range(num_columns)]
    try:
        if is_quoted and not _has_well_formed_lines(block, num_columns, separator, quote):
            return None
        rows = pl.read_csv(
            block,
            has_header=False,
            separator=separator,
            quote_char=quote if is_quoted else None,
            infer_schema=False,
            schema=dict.fromkeys(names, pl.String),
            columns=sorted({*position.values(), num_columns - 1}),
        )
    except pl.exceptions.PolarsError:
        return None
    # The last field of a truncated or empty row is null.
    if (not is_quoted and rows[names[-1]].null_count()) or len(rows) != block.count(b"\n"):
        return None
    line = pl.int_range(first, first + len(rows), dtype=pl.Int64).alias("line")
    return rows.select(line, *(pl.col(names[column]).fill_null("").alias(key) for key, column in position.items()))


def _has_well_formed_lines(block: bytes, num_columns: int, separator: str, quote: str) -> bool:
    """Whether each line is a row of its own and has quotes around whole fields only."""
    import polars as pl

    if len(quote.encode()) != 1:
        return False
    mark, end = f"\\x{ord(quote):02x}", f"\\x{ord(separator):02x}"
    field = f"(?:{mark}(?:[^{mark}]|{mark}{mark})*{mark}|[^{mark}{end}]*)"
    pattern = f"^{field}(?:{end}{field}){{{num_columns - 1}}}\r?$"
    return bool(pl.read_lines(block).to_series().str.contains(pattern).all())


def _parse_lines(
    block: bytes,
    first: int,
    num_columns: int,
    position: Mapping[str, int],
    separator: str,
    bad_rows: BadRows,
    file: str,
) -> "pl.DataFrame":
    """Parses a block whose lines are rows, whatever the number of their fields."""
    import polars as pl

    lines = pl.read_lines(block).select(text=pl.first().fill_null("").str.strip_suffix("\r"))
    rows = lines.with_columns(line=pl.int_range(first, first + len(lines), dtype=pl.Int64)).filter(pl.col("text") != "")
    bad_rows.found[file] += len(rows)
    # The fields are counted before they are split, since a damaged line may have millions.
    num_fields = pl.col("text").str.count_matches(separator, literal=True) + 1
    rows = _drop_bad_rows(rows.with_columns(num_fields=num_fields), num_columns, bad_rows, file)
    fields = rows.select("line", fields=pl.col("text").str.split(separator))
    return fields.select("line", *(pl.col("fields").list.get(column).alias(key) for key, column in position.items()))


def _good_rows(
    rows: Sequence[Row], num_columns: int, position: Mapping[str, int], bad_rows: BadRows, file: str
) -> "pl.DataFrame":
    """Counts the rows that the scan of quotes could not read, and returns the wanted columns of the others."""
    import polars as pl

    bad_rows.found[file] += len(rows)
    for reason in (NOT_CLOSED, TEXT_AFTER_QUOTE):
        bad_rows.add(file, reason, ((row.line, row.text) for row in rows if row.reason == reason))
    read = [row for row in rows if row.fields is not None]
    frame = pl.DataFrame(
        {
            "line": [row.line for row in read],
            "text": [row.text for row in read],
            "num_fields": [len(row.fields or ()) for row in read],
            **{
                key: [(row.fields or ())[at] if at < len(row.fields or ()) else "" for row in read]
                for key, at in position.items()
            },
        },
        schema={"line": pl.Int64, "text": pl.String, "num_fields": pl.Int64} | dict.fromkeys(position, pl.String),
    )
    return _drop_bad_rows(frame, num_columns, bad_rows, file).select("line", *position)


def _drop_bad_rows(rows: "pl.DataFrame", num_columns: int, bad_rows: BadRows, file: str) -> "pl.DataFrame":
    """Counts rows with another number of fields or undecodable bytes, and returns the others."""
    import polars as pl

    num_fields = pl.col("num_fields")
    undecodable = pl.col("text").str.contains(text_files.UNDECODABLE, literal=True)
    for reason, bad in (
        ("too few fields", num_fields < num_columns),
        ("too many fields", num_fields > num_columns),
        ("not in the file's encoding", (num_fields == num_columns) & undecodable),
    ):
        matches = rows.filter(bad)
        samples = matches.head(_NUM_SAMPLES).select("line", "text").iter_rows()
        bad_rows.add(file, reason, samples, total=len(matches))
    return rows.filter((num_fields == num_columns) & ~undecodable)
