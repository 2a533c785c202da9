"""User-provided tables: csv, tsv, JSON lines and Parquet with named columns."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alkd_jax.checks import check_one_of
from alkd_jax.data.compression import ENDINGS
from alkd_jax.data.interactions import Interactions, build_interactions
from alkd_jax.data.readers import parquet
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.columns import MissingColumnError
from alkd_jax.data.text.delimited import check_format, read_delimited
from alkd_jax.data.text.json_lines import read_json_lines
from alkd_jax.data.text.source_files import TextFile
from alkd_jax.data.titles import collect_titles

_KINDS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet"}
_SEPARATORS = {"csv": ",", "tsv": "\t"}

COLUMN_NAMES: Mapping[str, tuple[str, ...]] = {
    "user": ("user", "user_id", "userId", "userID", "UserId", "visitorid"),
    "item": ("item", "item_id", "itemId", "itemID", "ItemId", "itemid"),
    "time": ("time", "timestamp", "Time", "Timestamp", "eventdate"),
    "session": ("session", "session_id", "sessionId", "SessionId"),
    "title": ("title", "Title", "name"),
}
"""Purpose of a column → the names that it may have unless the user names it."""

_OF_A_SESSION = ("user", "session")


@dataclasses.dataclass(frozen=True)
class _Form:
    """How a table is written: "csv", "tsv", "jsonl" or "parquet", and the characters and encoding of text."""

    kind: str
    separator: str | None
    quote: str
    encoding: str


def load_table(
    path: str | os.PathLike[str],
    titles: str | os.PathLike[str] | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    kind: str | None = None,
    separator: str | None = None,
    quote: str = '"',
    encoding: str = "utf-8",
    time_format: str | None = None,
    strict: bool = False,
) -> Interactions:
    """Reads interactions, one per row, and titles from a second table or from a column of the first.

    An id that is empty, or is what other programs write for a missing value (see
    :data:`alkd_jax.data.interactions.MISSING_IDS`), is missing, and its row is bad.

    Args:
        path: ``.csv``, ``.tsv``, ``.jsonl``, ``.ndjson`` or ``.json`` (one object per line), each plain or with
            ``.gz``, or ``.parquet``.
        titles: table in one of these formats with an item and a title column; None if there is none. The titles are
            then taken from this table alone.
        columns: user, item, time, session or title → name of that column; :data:`COLUMN_NAMES` where it is not given.
            An item column and a user or session column are required; without a time column the row number is the time.
        kind: "csv", "tsv", "jsonl" or "parquet", whatever the suffix of ``path``; None to go by the suffix.
        separator: separator of csv and tsv; None for a comma or a tab.
        quote: the character that begins and ends a quoted field of csv and tsv; empty if there is none.
        encoding: encoding of csv, tsv and JSON lines.
        time_format: s, ms, us or ns for numbers since 1970, or a format such as ``%Y%m%d``; None for ISO 8601 and for
            numbers whose unit follows from their size.
        strict: whether the first bad row raises an error.

    Returns:
        The interactions.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file has another format, lacks a column, is damaged, or has a bad row while ``strict`` is set.
    """
    bad_rows = BadRows(strict)
    for key in columns or {}:
        if key not in COLUMN_NAMES:
            raise ValueError(f"columns contain {key!r}; expected some of {', '.join(COLUMN_NAMES)}")
    if kind is not None:
        check_one_of("kind", kind, {*_KINDS.values()})
    separator = "\t" if separator == "\\t" else separator
    named = {key: (columns or {}).get(key) for key in COLUMN_NAMES}
    accepted = {key: (name,) if name else COLUMN_NAMES[key] for key, name in named.items()}
    optional = [key for key in COLUMN_NAMES if key != "item" and not named[key]]
    file = pathlib.Path(path)
    form = _Form(kind or _kind_of(file, separator), separator, quote, encoding)
    titles_by_item: dict[str, str] | None = None
    report: dict[str, int] = {}
    if titles is not None:
        titles_file = pathlib.Path(titles)
        titles_form = dataclasses.replace(form, kind=_kind_of(titles_file, separator, default=kind))
        of_titles = {"item": (*accepted["item"], *COLUMN_NAMES["item"]), "title": accepted.pop("title")}
        frames = _frames(titles_file, bad_rows, of_titles, [], titles_form)
        titles_by_item, report = collect_titles(str(titles_file), frames, bad_rows)
    frames = _frames(file, bad_rows, accepted, optional, form, one_of=_OF_A_SESSION)
    return build_interactions(
        file.name,
        ((str(file), frame) for frame in frames),
        bad_rows,
        titles=titles_by_item,
        time_format=time_format,
        report=report,
    )


def _kind_of(path: pathlib.Path, separator: str | None, *, default: str | None = None) -> str:
    """Returns the kind of a table by the suffix of its file."""
    suffixes = [part.lower() for part in path.suffixes]
    suffix = suffixes[-2] if len(suffixes) > 1 and suffixes[-1] in ENDINGS else (suffixes or [""])[-1]
    kind = _KINDS.get(suffix, default or ("csv" if separator is not None else None))
    if kind is None:
        raise ValueError(
            f"{path}: the suffix is {suffix or 'missing'!r}; expected .csv, .tsv, .jsonl or .parquet, or the kind of "
            "the file (--source csv --path FILE)"
        )
    return kind


def _frames(
    path: pathlib.Path,
    bad_rows: BadRows,
    columns: Mapping[str, tuple[str, ...]],
    optional: Sequence[str],
    form: _Form,
    *,
    one_of: Sequence[str] = (),
) -> Iterator[Any]:
    """Yields the frames of a table; a missing column is an error with the option that names it."""
    try:
        yield from _open_frames(path, bad_rows, columns, optional, form, one_of)
    except MissingColumnError as error:
        options = " or ".join(f"--columns {purpose}=NAME" for purpose in error.purposes)
        line = f"{error}; if a column has another name, name it in experiments.prepare with {options}"
        if set(error.purposes) == {*_OF_A_SESSION}:
            line += (
                ". Items and times alone do not tell which interactions belong together: add a column of users or of "
                "sessions, with one value in all rows if they are those of one user"
            )
        raise ValueError(line) from error


def _open_frames(
    path: pathlib.Path,
    bad_rows: BadRows,
    columns: Mapping[str, tuple[str, ...]],
    optional: Sequence[str],
    form: _Form,
    one_of: Sequence[str],
) -> Iterator[Any]:
    if form.kind == "parquet":
        return parquet.read_parquet(path, bad_rows, columns, optional, one_of)
    if form.kind == "jsonl":
        return read_json_lines(
            TextFile(path), bad_rows, columns, optional=optional, one_of=one_of, encoding=form.encoding
        )
    separator = _SEPARATORS[form.kind] if form.separator is None else form.separator
    check_format(separator, form.quote)
    return read_delimited(
        TextFile(path),
        bad_rows,
        columns,
        optional=optional,
        one_of=one_of,
        separator=separator,
        quote=form.quote,
        encoding=form.encoding,
    )
