"""Reads keys of JSON lines, block by block. Lines that are Python literals are parsed, never executed."""

import ast
import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alkd_jax.data.text import text_files
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.columns import check_columns
from alkd_jax.data.text.source_files import TextFile

_MAX_LINE_BYTES = 1 << 22
_ROWS_PER_FRAME = 100_000
_PARSE_ERRORS = (ValueError, SyntaxError, RecursionError, MemoryError)
_NOT_AN_OBJECT, _NOT_ENCODED = "not a JSON object", "not in the file's encoding"
_TOO_LONG = f"longer than {_MAX_LINE_BYTES:,} bytes"
HALF_CHARACTER = "half of a character outside the basic plane"
_LITERAL = re.compile(r"""'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+"|\b(?:None|True|False)\b""")
_JSON_NAMES = {"None": "null", "True": "true", "False": "false"}


def read_objects(file: TextFile, bad_rows: BadRows, *, encoding: str = "utf-8") -> Iterator[tuple[int, dict[str, Any]]]:
    """Reads one object per line. A line of white space is no row.

    Args:
        file: what to read.
        bad_rows: counts the rows, and those that are not JSON objects, are too long, or have bytes that are invalid in
            the encoding.
        encoding: encoding of the file.

    Yields:
        The line number, from 1, and the object.
    """
    name = str(file)
    for first, block in text_files.read_blocks(file, encoding=encoding):
        for number, line in enumerate(block.split(b"\n")[:-1], first):
            if not line or line.isspace():
                continue
            bad_rows.found[name] += 1
            row, reason = _parse_object(line)
            if row is None:
                bad_rows.add(name, reason, [(number, line[:200].decode("utf-8", "replace"))])
            else:
                yield number, row


def _parse_object(line: bytes) -> tuple[dict[str, Any] | None, str]:
    """Returns the object in a line, or None and what is wrong with the line."""
    if len(line) > _MAX_LINE_BYTES:
        return None, _TOO_LONG
    text = line.decode()
    if text_files.UNDECODABLE in text:
        return None, _NOT_ENCODED
    try:
        value = json.loads(text)
    except _PARSE_ERRORS:
        try:
            value = json.loads(_LITERAL.sub(_as_json, text)) if text.startswith("{") else None
        except _PARSE_ERRORS:
            value = None
    return (value, "") if isinstance(value, dict) else (None, _NOT_AN_OBJECT)


def _as_json(match: re.Match[str]) -> str:
    """Returns a string, None or a truth value of a Python literal as JSON."""
    token = match[0]
    if token in _JSON_NAMES:
        return _JSON_NAMES[token]
    if "\\" not in token:
        return json.dumps(token[1:-1])
    with warnings.catch_warnings():
        # Python warns of a backslash before a letter without a meaning, which then stands for itself.
        warnings.simplefilter("ignore")
        return json.dumps(ast.literal_eval(token))


def read_json_lines(
    file: TextFile,
    bad_rows: BadRows,
    columns: Mapping[str, Sequence[str]],
    *,
    optional: Sequence[str] = (),
    one_of: Sequence[str] = (),
    encoding: str = "utf-8",
) -> Iterator[Any]:
    """Reads some keys as text.

    Args:
        file: what to read.
        bad_rows: counts the rows, those that are not JSON objects, and those with text that is not Unicode.
        columns: purpose of a key → the names it may have; the first one whose value is not null or NaN is taken.
        optional: keys of ``columns`` that are left out if no object of the file has them.
        one_of: some of them, of which at least one has to be there.
        encoding: encoding of the file.

    Yields:
        Polars frames with a string column for each key of ``columns`` (null where it is missing) and ``line``.

    Raises:
        ValueError: the file is damaged, or no object has a key that is not optional.
    """
    import polars as pl

    columns = _drop_absent(file, columns, optional, one_of, encoding)
    schema = {"line": pl.Int64} | dict.fromkeys(columns, pl.String)

    def frame(rows: list[tuple[Any, ...]]) -> Any:
        return pl.DataFrame(dict(zip(schema, zip(*rows, strict=True), strict=True)) if rows else None, schema=schema)

    rows: list[tuple[Any, ...]] = []
    for line, row in read_objects(file, bad_rows, encoding=encoding):
        values = [_first_text(row, accepted) for accepted in columns.values()]
        if not is_unicode("".join(filter(None, values))):
            bad_rows.add(str(file), HALF_CHARACTER, [(line, values)])
            continue
        rows.append((line, *values))
        if len(rows) == _ROWS_PER_FRAME:
            yield frame(rows)
            rows = []
    yield frame(rows)


def _drop_absent(
    file: TextFile,
    columns: Mapping[str, Sequence[str]],
    optional: Sequence[str],
    one_of: Sequence[str],
    encoding: str,
) -> dict[str, Sequence[str]]:
    """Returns the columns without the optional ones that no object of the whole file has."""
    absent, first = dict(columns), None
    for _, block in text_files.read_blocks(file, encoding=encoding):
        names = [json.dumps(name)[1:-1].encode() for accepted in absent.values() for name in accepted]
        if first is None:
            first = next((row for line in block.split(b"\n") if (row := _parse_object(line)[0]) is not None), None)
        # Most files show all their keys in the first line, so that only names that occur nowhere are looked for later.
        for line in block.split(b"\n") if any(name in block for name in names) else ():
            if any(name in line for name in names):
                row, _ = _parse_object(line)
                absent = {key: names for key, names in absent.items() if _first_text(row or {}, names) is None}
        if not absent:
            break
    present = {key: accepted for key, accepted in columns.items() if key not in absent}
    check_columns(f"{file}, first object", list(first or ()), present, columns, optional=optional, one_of=one_of)
    return present


def _first_text(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """Returns the first value that is a text or a number, as text; lists, objects, truth values and NaN are missing."""
    for name in names:
        if (text := as_text(row.get(name))) is not None:
            return text
    return None


def as_text(value: object) -> str | None:
    """Returns a text or a finite number as text; None for any other value."""
    if isinstance(value, str):
        return value
    is_number = isinstance(value, float) and math.isfinite(value)
    return str(value) if is_number or (isinstance(value, int) and not isinstance(value, bool)) else None


def is_unicode(text: str) -> bool:
    r"""Whether a text can be written; half of a character outside the basic plane, such as ``"\ud83d"``, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
