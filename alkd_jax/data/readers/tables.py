"""User-provided tables: csv, tsv, JSON lines and Parquet with named columns."""

import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from alkd_jax.data.interactions import Interactions, build_interactions
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.delimited import read_delimited
from alkd_jax.data.text.json_lines import read_json_lines
from alkd_jax.data.text.source_files import TextFile

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
_BATCH_ROWS = 1 << 20

COLUMN_NAMES: Mapping[str, tuple[str, ...]] = {
    "user": ("user", "user_id", "userId", "userID", "UserId", "visitorid"),
    "item": ("item", "item_id", "itemId", "itemID", "ItemId", "itemid"),
    "time": ("time", "timestamp", "Time", "Timestamp", "eventdate"),
    "session": ("session", "session_id", "sessionId", "SessionId"),
    "title": ("title", "Title", "name"),
}
"""Purpose of a column → the names that it may have unless the user names it."""


def load_table(
    path: str | os.PathLike[str],
    titles: str | os.PathLike[str] | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    quoted: bool = True,
    encoding: str = "utf-8",
    strict: bool = False,
) -> Interactions:
    """Reads interactions, one per row, and titles from a second table or from a column of the first.

    Args:
        path: ``.csv``, ``.tsv``, ``.jsonl``, ``.ndjson`` or ``.json`` (one object per line), each plain or with
            ``.gz``, or ``.parquet``.
        titles: table in one of these formats with an item and a title column; None if there is none.
        columns: user, item, time, session or title → name of that column; :data:`COLUMN_NAMES` where it is not given.
            An item column and a user or session column are required; without a time column the row number is the time.
        quoted: whether a double quote in csv and tsv begins a quoted field; otherwise it is an ordinary character.
        encoding: encoding of csv and tsv.
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
    named = {key: (columns or {}).get(key) for key in COLUMN_NAMES}
    accepted = {key: (name,) if name else COLUMN_NAMES[key] for key, name in named.items()}
    optional = [key for key in COLUMN_NAMES if key != "item" and not named[key]]
    titles_by_item, file = None, pathlib.Path(path)
    if titles is not None:
        titles_by_item = _read_titles(pathlib.Path(titles), bad_rows, accepted, quoted, encoding)
    frames = ((str(file), frame) for frame in _frames(file, bad_rows, accepted, optional, quoted, encoding))
    return build_interactions(file.name, frames, bad_rows, titles=titles_by_item)


def _frames(
    path: pathlib.Path,
    bad_rows: BadRows,
    columns: Mapping[str, tuple[str, ...]],
    optional: list[str],
    quoted: bool,
    encoding: str,
) -> Iterator[Any]:
    import polars as pl

    suffix = _suffix(path)
    if suffix in _SEPARATORS:
        frames = read_delimited(
            TextFile(path),
            bad_rows,
            columns,
            optional=optional,
            separator=_SEPARATORS[suffix],
            quoted=quoted,
            encoding=encoding,
        )
    elif suffix in _JSON_SUFFIXES:
        frames = _drop_absent_keys(read_json_lines(TextFile(path), bad_rows, columns), optional)
    else:
        frames = _read_parquet(path, columns, optional)
    for frame in frames:
        if not {"user", "session"} & set(frame.columns) and "title" not in columns.keys() - set(optional):
            raise ValueError(f"{path}: no user and no session column; expected {' or '.join(columns.get('user', ()))}")
        texts = [name for name in frame.columns if name not in ("line", "time")]
        yield frame.with_columns(pl.col(texts).cast(pl.String))


def _suffix(path: pathlib.Path) -> str:
    suffixes = [part.lower() for part in path.suffixes]
    suffix = suffixes[-2] if len(suffixes) > 1 and suffixes[-1] == ".gz" else (suffixes or [""])[-1]
    if suffix not in (*_SEPARATORS, *_JSON_SUFFIXES, ".parquet"):
        raise ValueError(f"{path}: the suffix is {suffix or 'missing'!r}; expected .csv, .tsv, .jsonl or .parquet")
    return suffix


def _drop_absent_keys(frames: Iterator[Any], optional: list[str]) -> Iterator[Any]:
    """Drops the optional keys that do not occur in the first frame of JSON lines."""
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
        available = table.collect_schema().names()
        column_of = {key: next((name for name in names if name in available), None) for key, names in columns.items()}
        for key, name in column_of.items():
            if name is None and key not in optional:
                raise ValueError(
                    f"{path}: columns are {', '.join(available)[:200]!r}; expected {' or '.join(columns[key])}"
                )
        selected = table.select(pl.col(name).alias(key) for key, name in column_of.items() if name)
        first = 1
        for batch in selected.collect_batches(chunk_size=_BATCH_ROWS, maintain_order=True):
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
