"""Reads columns of delimited text by name, block by block, with or without the double quotes of csv."""

import codecs
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alkd_jax.data.text import text_files
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.source_files import TextFile

if TYPE_CHECKING:
    import polars as pl

_REPLACEMENT_CHARACTER = "\ufffd"


def read_delimited(
    file: TextFile,
    bad_rows: BadRows,
    columns: Mapping[str, Sequence[str]],
    *,
    optional: Sequence[str] = (),
    separator: str = "\t",
    header: Sequence[str] | None = None,
    quoted: bool = False,
    encoding: str = "utf-8",
) -> Iterator[Any]:
    """Reads some columns as text.

    Args:
        file: what to read.
        bad_rows: counts the rows with too few or too many fields, or with bytes that are invalid in the encoding.
        columns: purpose of a column → the names it may have. The columns may stand in any order, among others.
        optional: keys of ``columns`` that may be missing.
        separator: separator between fields.
        header: names of the columns; None where the first line of the file holds them.
        quoted: whether a double quote begins a quoted field, as in csv; otherwise it is an ordinary character.
        encoding: encoding of the file.

    Yields:
        Polars frames with a string column for each key and ``line``, the row's line number from 1.

    Raises:
        ValueError: a column is missing or occurs twice, or the file is damaged.
    """
    names = list(header) if header is not None else None
    for first, block in text_files.read_blocks(file, encoding=encoding):
        if names is None:
            line, _, block = block.partition(b"\n")
            names, first = _parse_header(line.decode(), separator, quoted), first + 1
        position = _column_positions(file, names, columns, optional)
        frame = None if quoted and b'"' in block else _parse_fast(block, first, len(names), position, separator)
        if frame is None:
            rows = _drop_bad_rows(_parse_by_row(file, block, first, separator, quoted), len(names), bad_rows, str(file))
            frame = _select_columns(rows, position)
        yield frame
    if names is None:
        raise ValueError(f"{file} is empty; expected a line of column names")


def _parse_header(line: str, separator: str, quoted: bool) -> list[str]:
    line = line.removesuffix("\r")
    names = next(csv.reader([line], delimiter=separator), []) if quoted else line.split(separator)
    return [name.strip() for name in names]


def _parse_fast(
    block: bytes, first: int, num_columns: int, position: Mapping[str, int], separator: str
) -> "pl.DataFrame | None":
    """Parses a block with polars; returns None if a row may lack a field, which has to be checked row by row."""
    import polars as pl

    if len(separator) != 1 or not block or _REPLACEMENT_CHARACTER.encode() in block:
        return None
    # Polars drops U+FEFF at the start of a block, where it belongs to a field.
    if block.startswith(codecs.BOM_UTF8):
        return None
    # Polars drops a carriage return at the end of every field, which is correct at the end of a row only.
    if block.count(b"\r") != block.count(b"\r\n"):
        return None
    names = [str(number) for number in range(num_columns)]
    try:
        rows = pl.read_csv(
            block,
            has_header=False,
            separator=separator,
            quote_char=None,
            infer_schema=False,
            schema=dict.fromkeys(names, pl.String),
            columns=sorted({*position.values(), num_columns - 1}),
        )
    except pl.exceptions.PolarsError:
        return None
    # The last field of a truncated or empty row is null.
    if rows[names[-1]].null_count() or len(rows) != block.count(b"\n"):
        return None
    line = pl.int_range(first, first + len(rows), dtype=pl.Int64).alias("line")
    return rows.select(line, *(pl.col(names[column]).fill_null("").alias(key) for key, column in position.items()))


def _parse_by_row(file: TextFile, block: bytes, first: int, separator: str, quoted: bool) -> "pl.DataFrame":
    """Returns the line number, text and list of fields of every row, whatever their number."""
    import polars as pl

    if quoted and b'"' in block:
        try:
            return _parse_quoted(block, first, separator)
        except csv.Error as error:
            raise ValueError(f"{file}, lines from {first}: a quote is not closed: {error}") from error
    lines = pl.read_lines(block).select(text=pl.first().str.strip_suffix("\r"))
    numbered = lines.with_columns(line=pl.int_range(first, first + len(lines), dtype=pl.Int64))
    return numbered.with_columns(fields=pl.col("text").str.split(separator))


def _select_columns(rows: "pl.DataFrame", position: Mapping[str, int]) -> "pl.DataFrame":
    import polars as pl

    return rows.select("line", *(pl.col("fields").list.get(column).alias(key) for key, column in position.items()))


def _column_positions(
    file: TextFile, names: Sequence[str], columns: Mapping[str, Sequence[str]], optional: Sequence[str]
) -> dict[str, int]:
    position = {}
    for key, accepted in columns.items():
        matches = [name for name in accepted if name in names]
        if not matches and key in optional:
            continue
        if not matches:
            raise ValueError(
                f"{file}, line 1: columns are {', '.join(names)[:200]!r}; expected {' or '.join(accepted)}"
            )
        if list(names).count(matches[0]) > 1:
            raise ValueError(f"{file}, line 1: column {matches[0]!r} occurs twice; expected distinct names")
        position[key] = list(names).index(matches[0])
    return position


def _drop_bad_rows(frame: "pl.DataFrame", num_columns: int, bad_rows: BadRows, file: str) -> "pl.DataFrame":
    import polars as pl

    frame = frame.filter(pl.col("text").is_not_null() & (pl.col("text") != ""))
    fields = pl.col("fields").list.len()
    undecodable = pl.col("text").str.contains(_REPLACEMENT_CHARACTER, literal=True)
    for reason, bad in (
        ("too few fields", fields < num_columns),
        ("too many fields", fields > num_columns),
        ("not in the file's encoding", (fields == num_columns) & undecodable),
    ):
        bad_rows.add(file, reason, frame.filter(bad).select("line", "text").iter_rows())
    return frame.filter((fields == num_columns) & ~undecodable)


def _parse_quoted(block: bytes, first: int, separator: str) -> "pl.DataFrame":
    """Parses the rows of a block that has quotes. A quoted field must not continue in the next block."""
    import polars as pl

    reader = csv.reader(io.StringIO(block.decode(), newline=""), delimiter=separator)
    rows, line = [], first
    for fields in reader:
        rows.append((line, separator.join(fields), fields))
        line = first + reader.line_num
    return pl.DataFrame(rows, schema={"line": pl.Int64, "text": pl.String, "fields": pl.List(pl.String)}, orient="row")
