"""Tables of anyone's own: csv, tsv, JSON lines and Parquet with named columns."""

import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from alkd_jax.data.interactions import Interactions, gather
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.delimited import read_delimited
from alkd_jax.data.text.json_lines import read_json_lines
from alkd_jax.data.text.text_files import TextFile

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson", ".json")
_BATCH = 1 << 20

NAMES: Mapping[str, tuple[str, ...]] = {
    "user": ("user", "user_id", "userId", "userID", "UserId", "visitorid"),
    "item": ("item", "item_id", "itemId", "itemID", "ItemId", "itemid"),
    "time": ("time", "timestamp", "Time", "Timestamp", "eventdate"),
    "session": ("session", "session_id", "sessionId", "SessionId"),
    "title": ("title", "Title", "name"),
}
"""What a column is for, and the names it is known by where none is given."""


def load_table(
    path: str | os.PathLike[str],
    titles: str | os.PathLike[str] | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    quoted: bool = True,
    encoding: str = "utf-8",
    strict: bool = False,
) -> Interactions:
    """Read interactions, one a row, and titles from their own table or from a column of the same.

    Args:
        path: ``.csv``, ``.tsv``, ``.jsonl``, ``.ndjson``, ``.json`` (one object a line), each plain or with ``.gz``,
            or ``.parquet``.
        titles: a table of the same kinds with an item and a title column; None where there is none.
        columns: any of user, item, time, session and title → the name of that column; the usual names otherwise.
            There must be an item, and a user or a session; without a time the order of the rows counts.
        quoted: whether a double quote in csv and tsv begins a quoted field, or is a letter.
        encoding: of csv and tsv.
        strict: whether the first bad row is an error.

    Returns:
        The interactions.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is of another kind, lacks a column, is damaged, or has a bad row and ``strict`` is set.
    """
    bad_rows = BadRows(strict)
    for key in columns or {}:
        if key not in NAMES:
            raise ValueError(f"columns: {key!r}, expected some of {', '.join(NAMES)}")
    wanted = {key: (columns or {}).get(key) for key in NAMES}
    accepted = {key: (name,) if name else NAMES[key] for key, name in wanted.items()}
    optional = [key for key in NAMES if key != "item" and not wanted[key]]
    known, file = None, pathlib.Path(path)
    if titles is not None:
        known = _read_titles(pathlib.Path(titles), bad_rows, accepted, quoted, encoding)
    frames = ((str(file), frame) for frame in _frames(file, bad_rows, accepted, optional, quoted, encoding))
    return gather(file.name, frames, bad_rows, titles=known)


def _frames(
    path: pathlib.Path,
    bad_rows: BadRows,
    columns: Mapping[str, tuple[str, ...]],
    optional: list[str],
    quoted: bool,
    encoding: str,
) -> Iterator[Any]:
    import polars as pl

    kind = _kind(path)
    if kind in _SEPARATORS:
        frames = read_delimited(
            TextFile(path),
            bad_rows,
            columns,
            optional=optional,
            separator=_SEPARATORS[kind],
            quoted=quoted,
            encoding=encoding,
        )
    elif kind in _JSON_LINES:
        frames = _present(read_json_lines(TextFile(path), bad_rows, columns), optional, path)
    else:
        frames = _read_parquet(path, columns, optional)
    for frame in frames:
        if not {"user", "session"} & set(frame.columns) and "title" not in columns.keys() - set(optional):
            raise ValueError(f"{path}: no user and no session column, expected {' or '.join(columns.get('user', ()))}")
        texts = [name for name in frame.columns if name not in ("line", "time")]
        yield frame.with_columns(pl.col(texts).cast(pl.String))


def _kind(path: pathlib.Path) -> str:
    endings = [ending.lower() for ending in path.suffixes]
    kind = endings[-2] if len(endings) > 1 and endings[-1] == ".gz" else (endings or [""])[-1]
    if kind not in (*_SEPARATORS, *_JSON_LINES, ".parquet"):
        raise ValueError(f"{path}: ends in {kind or 'nothing'}, expected .csv, .tsv, .jsonl or .parquet")
    return kind


def _present(frames: Iterator[Any], optional: list[str], path: pathlib.Path) -> Iterator[Any]:
    """Frames of JSON lines without the optional keys that the first of them never has."""
    absent: list[str] | None = None
    for frame in frames:
        if absent is None:
            absent = [key for key in optional if key in frame.columns and frame[key].null_count() == len(frame)]
        yield frame.drop(absent)


def _read_parquet(path: pathlib.Path, columns: Mapping[str, tuple[str, ...]], optional: list[str]) -> Iterator[Any]:
    import polars as pl

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        table = pl.scan_parquet(path)
        there = table.collect_schema().names()
        place = {key: next((name for name in names if name in there), None) for key, names in columns.items()}
        for key, name in place.items():
            if name is None and key not in optional:
                raise ValueError(f"{path}: columns {', '.join(there)[:200]!r}, expected {' or '.join(columns[key])}")
        chosen = table.select(pl.col(name).alias(key) for key, name in place.items() if name)
        first = 1
        for batch in chosen.collect_batches(chunk_size=_BATCH, maintain_order=True):
            yield batch.with_columns(line=pl.int_range(first, first + len(batch), dtype=pl.Int64))
            first += len(batch)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ValueError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from error


def _read_titles(
    path: pathlib.Path, bad_rows: BadRows, columns: Mapping[str, tuple[str, ...]], quoted: bool, encoding: str
) -> dict[str, str]:
    titles: dict[str, str] = {}
    for frame in _frames(path, bad_rows, {key: columns[key] for key in ("item", "title")}, [], quoted, encoding):
        for item, title in zip(frame["item"], frame["title"].fill_null(""), strict=True):
            if item is not None and not titles.get(item):
                titles[item] = title
    return titles
