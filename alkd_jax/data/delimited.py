"""Rows of delimited text by column name, block by block: literal (no quoting) or with csv's double quotes."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alkd_jax.data import text_files
from alkd_jax.data.faults import Faults
from alkd_jax.data.text_files import TextFile

if TYPE_CHECKING:
    import polars as pl

_NOT_TEXT = "\ufffd"


def read_delimited(
    file: TextFile,
    faults: Faults,
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
        faults: told of rows with too few or too many fields, or with bytes that are not in the encoding.
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
    import polars as pl

    names = list(header) if header is not None else None
    for first, block in text_files.blocks(file, encoding=encoding):
        lines = pl.read_csv(
            block, has_header=False, separator="\x1f", quote_char=None, infer_schema=False, new_columns=["text"]
        )
        if lines.width != 1:
            raise ValueError(f"{file}, lines from {first}: control characters (unit separators), not a text file")
        frame = lines.with_columns(line=pl.int_range(first, first + len(lines), dtype=pl.Int64))
        if quoted and b'"' in block:
            try:
                frame = _split_quoted(block, first, separator)
            except csv.Error as error:
                raise ValueError(f"{file}, lines from {first}: a quote is not closed: {error}") from error
        else:
            frame = frame.select("line", "text", fields=pl.col("text").str.split(separator))
        if names is None:
            names = [name.strip() for name in frame["fields"].head(1).to_list()[0] or []]
            frame = frame[1:]
        place = _places(file, names, columns, optional)
        yield _good_rows(frame, len(names), faults, str(file)).select(
            "line", *(pl.col("fields").list.get(at).alias(key) for key, at in place.items())
        )
    if names is None:
        raise ValueError(f"{file}: empty, expected a line of column names")


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


def _good_rows(frame: "pl.DataFrame", width: int, faults: Faults, file: str) -> "pl.DataFrame":
    import polars as pl

    frame = frame.filter(pl.col("text").is_not_null() & (pl.col("text") != ""))
    fields = pl.col("fields").list.len()
    garbled = pl.col("text").str.contains(_NOT_TEXT, literal=True)
    for reason, bad in (
        ("too few fields", fields < width),
        ("too many fields", fields > width),
        ("not in the file's encoding", (fields == width) & garbled),
    ):
        faults.add(file, reason, frame.filter(bad).select("line", "text").iter_rows())
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
