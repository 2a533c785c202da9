"""Rows of JSON lines by key, block by block; lines that are Python literals instead are read as such, never run."""

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alkd_jax.data.text import text_files
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.text_files import TextFile

_LONGEST_LITERAL = 1 << 20
_UNREADABLE = (ValueError, SyntaxError, RecursionError, MemoryError, TypeError)


def read_objects(file: TextFile, bad_rows: BadRows) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read one object a line.

    Args:
        file: what to read.
        bad_rows: told of lines that are no object.

    Yields:
        Line number, from 1, and object.
    """
    for first, block in text_files.blocks(file):
        bad: list[tuple[int, str]] = []
        for number, line in enumerate(block.split(b"\n")[:-1], first):
            if not line.strip():
                continue
            found = _object(line)
            if found is None:
                bad.append((number, line[:200].decode("utf-8", "replace")))
                if bad_rows.strict:
                    break
            else:
                yield number, found
        bad_rows.add(str(file), "not a JSON object", bad)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except _UNREADABLE:
        if len(line) > _LONGEST_LITERAL or not line.startswith(b"{"):
            return None
        try:
            found = ast.literal_eval(line.decode())
        except _UNREADABLE:
            return None
    return found if isinstance(found, dict) else None


def read_json_lines(
    file: TextFile, bad_rows: BadRows, columns: Mapping[str, Sequence[str]], *, rows: int = 100_000
) -> Iterator[Any]:
    """Read some keys as text.

    Args:
        file: what to read.
        bad_rows: told of lines that are no object.
        columns: what a key is for → the names it may have, the first that is there wins.
        rows: of a frame.

    Yields:
        Polars frames with a string column for each key of ``columns`` (null where it is missing) and ``line``.
    """
    import polars as pl

    def frame(lines: list[int], values: dict[str, list[str | None]]) -> Any:
        return pl.DataFrame({"line": lines, **values}, schema={"line": pl.Int64} | dict.fromkeys(columns, pl.String))

    lines: list[int] = []
    values: dict[str, list[str | None]] = {key: [] for key in columns}
    for line, found in read_objects(file, bad_rows):
        lines.append(line)
        for key, accepted in columns.items():
            value = next((found[name] for name in accepted if found.get(name) is not None), None)
            values[key].append(value if isinstance(value, str) else _plain(value))
        if len(lines) == rows:
            yield frame(lines, values)
            lines, values = [], {key: [] for key in columns}
    yield frame(lines, values)


def _plain(value: object) -> str | None:
    """A number as text; anything with parts counts as missing."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
