"""Rows of delimited text by column name, block by block: literal (no quoting) or with csv's double quotes."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alkd_jax.data.text import text_files
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.text_files import TextFile

if TYPE_CHECKING:
    import polars as pl

_NOT_TEXT = "\ufffd"


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
    """Read some columns as text.

    Args:
        file: what to read.
        bad_rows: told of rows with too few or too many fields, or with bytes that are not in the encoding.
        columns: what a column is for → the names it may have; in any order, among any others.
        optional: keys of ``columns`` that may be missing.
        separator: between fields.
        header: names of the columns where the file's first line does not say them.
        quoted: whether a double quote begins a quoted field, as in csv; otherwise it is a letter like any other.
        encoding: of the file.

    Yields:
        Polars frames with a string column for each key and ``line``, the row's line number from 1.

    Raises:
        ValueError: a column is missing, a column is there twice, or the file is damaged.
    """
    names = list(header) if header is not None else None
    for first, block in text_files.blocks(file, encoding=encoding):
        if names is None:
            line, _, block = block.partition(b"\n")
            names, first = _names(line.decode(), separator, quoted), first + 1
        place = _places(file, names, columns, optional)
        frame = None if quoted and b'"' in block else _parse(block, first, len(names), place, separator)
        if frame is None:
            rows = _good_rows(_split(file, block, first, separator, quoted), len(names), bad_rows, str(file))
            frame = _chosen(rows, place)
        yield frame
    if names is None:
        raise ValueError(f"{file}: empty, expected a line of column names")


def _names(line: str, separator: str, quoted: bool) -> list[str]:
    line = line.removesuffix("\r")
    names = next(csv.reader([line], delimiter=separator), []) if quoted else line.split(separator)
    return [name.strip() for name in names]


def _parse(block: bytes, first: int, width: int, place: Mapping[str, int], separator: str) -> "pl.DataFrame | None":
    """The quick way, for a block in which every row has every field; None where one may not."""
    import polars as pl

    if len(separator) != 1 or not block or _NOT_TEXT.encode() in block:
        return None
    # polars drops a carriage return at the end of any field, which is right at the end of a row only
    if block.count(b"\r") != block.count(b"\r\n"):
        return None
    names = [str(number) for number in range(width)]
    try:
        rows = pl.read_csv(
            block,
            has_header=False,
            separator=separator,
            quote_char=None,
            infer_schema=False,
            schema=dict.fromkeys(names, pl.String),
            columns=sorted({*place.values(), width - 1}),
        )
    except pl.exceptions.PolarsError:
        return None
    # a row that is cut short lacks its last field, an empty row all of them
    if rows[names[-1]].null_count() or len(rows) != block.count(b"\n"):
        return None
    line = pl.int_range(first, first + len(rows), dtype=pl.Int64).alias("line")
    return rows.select(line, *(pl.col(names[at]).fill_null("").alias(key) for key, at in place.items()))


def _split(file: TextFile, block: bytes, first: int, separator: str, quoted: bool) -> "pl.DataFrame":
    """The sure way: line number, text and fields of every row."""
    import polars as pl

    if quoted and b'"' in block:
        try:
            return _split_quoted(block, first, separator)
        except csv.Error as error:
            raise ValueError(f"{file}, lines from {first}: a quote is not closed: {error}") from error
    lines = pl.read_lines(block).select(text=pl.first().str.strip_suffix("\r"))
    numbered = lines.with_columns(line=pl.int_range(first, first + len(lines), dtype=pl.Int64))
    return numbered.with_columns(fields=pl.col("text").str.split(separator))


def _chosen(rows: "pl.DataFrame", place: Mapping[str, int]) -> "pl.DataFrame":
    import polars as pl

    return rows.select("line", *(pl.col("fields").list.get(at).alias(key) for key, at in place.items()))


def _places(
    file: TextFile, names: Sequence[str], columns: Mapping[str, Sequence[str]], optional: Sequence[str]
) -> dict[str, int]:
    place = {}
    for key, accepted in columns.items():
        found = [name for name in accepted if name in names]
        if not found and key in optional:
            continue
        if not found:
            raise ValueError(f"{file}, line 1: columns {', '.join(names)[:200]!r}, expected {' or '.join(accepted)}")
        if list(names).count(found[0]) > 1:
            raise ValueError(f"{file}, line 1: column {found[0]!r} is there twice")
        place[key] = list(names).index(found[0])
    return place


def _good_rows(frame: "pl.DataFrame", width: int, bad_rows: BadRows, file: str) -> "pl.DataFrame":
    import polars as pl

    frame = frame.filter(pl.col("text").is_not_null() & (pl.col("text") != ""))
    fields = pl.col("fields").list.len()
    garbled = pl.col("text").str.contains(_NOT_TEXT, literal=True)
    for reason, bad in (
        ("too few fields", fields < width),
        ("too many fields", fields > width),
        ("not in the file's encoding", (fields == width) & garbled),
    ):
        bad_rows.add(file, reason, frame.filter(bad).select("line", "text").iter_rows())
    return frame.filter((fields == width) & ~garbled)


def _split_quoted(block: bytes, first: int, separator: str) -> "pl.DataFrame":
    """Rows of a block that has quotes; a quoted field does not run over the end of a block."""
    import polars as pl

    reader = csv.reader(io.StringIO(block.decode(), newline=""), delimiter=separator)
    rows, line = [], first
    for fields in reader:
        rows.append((line, separator.join(fields), fields))
        line = first + reader.line_num
    return pl.DataFrame(rows, schema={"line": pl.Int64, "text": pl.String, "fields": pl.List(pl.String)}, orient="row")
