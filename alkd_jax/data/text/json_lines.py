"""Reads keys of JSON lines, block by block. Lines that are Python literals are parsed, never executed."""

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alkd_jax.data.text import text_files
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.source_files import TextFile

_MAX_LITERAL_BYTES = 1 << 20
_PARSE_ERRORS = (ValueError, SyntaxError, RecursionError, MemoryError, TypeError)


def read_objects(file: TextFile, bad_rows: BadRows) -> Iterator[tuple[int, dict[str, Any]]]:
    """Reads one object per line.

    Args:
        file: what to read.
        bad_rows: counts the lines that are not JSON objects.

    Yields:
        The line number, from 1, and the object.
    """
    for first, block in text_files.read_blocks(file):
        bad: list[tuple[int, str]] = []
        for number, line in enumerate(block.split(b"\n")[:-1], first):
            if not line.strip():
                continue
            row = _parse_object(line)
            if row is None:
                bad.append((number, line[:200].decode("utf-8", "replace")))
                if bad_rows.strict:
                    break
            else:
                yield number, row
        bad_rows.add(str(file), "not a JSON object", bad)


def _parse_object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except _PARSE_ERRORS:
        if len(line) > _MAX_LITERAL_BYTES or not line.startswith(b"{"):
            return None
        try:
            value = ast.literal_eval(line.decode())
        except _PARSE_ERRORS:
            return None
    return value if isinstance(value, dict) else None


def read_json_lines(
    file: TextFile, bad_rows: BadRows, columns: Mapping[str, Sequence[str]], *, rows: int = 100_000
) -> Iterator[Any]:
    """Reads some keys as text.

    Args:
        file: what to read.
        bad_rows: counts the lines that are not JSON objects.
        columns: purpose of a key → the names it may have; the first one that the object has is taken.
        rows: number of rows in a frame.

    Yields:
        Polars frames with a string column for each key of ``columns`` (null where it is missing) and ``line``.
    """
    import polars as pl

    def frame(lines: list[int], values: dict[str, list[str | None]]) -> Any:
        return pl.DataFrame({"line": lines, **values}, schema={"line": pl.Int64} | dict.fromkeys(columns, pl.String))

    lines: list[int] = []
    values: dict[str, list[str | None]] = {key: [] for key in columns}
    for line, row in read_objects(file, bad_rows):
        lines.append(line)
        for key, accepted in columns.items():
            value = next((row[name] for name in accepted if row.get(name) is not None), None)
            values[key].append(value if isinstance(value, str) else _number_as_text(value))
        if len(lines) == rows:
            yield frame(lines, values)
            lines, values = [], {key: [] for key in columns}
    yield frame(lines, values)


def _number_as_text(value: object) -> str | None:
    """Returns a number as text; a list, an object, a truth value and null count as missing."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
