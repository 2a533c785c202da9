"""RecBole's atomic files, read and written: ``.inter`` with ``name:type`` columns, ``.item`` with titles."""

import csv
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from alkd_jax.checks import check_one_of
from alkd_jax.data.interactions import Interactions, build_interactions
from alkd_jax.data.prepared import Prepared
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.delimited import read_delimited
from alkd_jax.data.text.source_files import TextFile
from alkd_jax.io import replacing

_PARTS = ("train", "valid", "test")
_TYPES = ("token", "float", "token_seq", "float_seq")
_COLUMNS = {
    "user": ("user_id",),
    "item": ("item_id",),
    "time": ("timestamp",),
    "session": ("session_id",),
    "list": ("item_id_list",),
}
_TITLE_COLUMNS = ("title", "movie_title", "item_name", "name", "track_name")
_WHITE_SPACE = re.compile(r"[\t\r\n]+")


def load_recbole(path: str | os.PathLike[str], *, strict: bool = False) -> Interactions:
    """Reads atomic files: one ``.inter``, or ``.train.inter``, ``.valid.inter`` and ``.test.inter``.

    Rows are interactions, or sessions given as ``item_id_list`` with the next ``item_id``. In the second case only the
    longest row of each session is read, because the others are its prefixes.

    Args:
        path: folder of the dataset, or the path of its files without their suffixes (``folder/name``).
        strict: whether the first bad row raises an error.

    Returns:
        The interactions, with titles if there is an ``.item`` file, and with the split if the files are split.

    Raises:
        FileNotFoundError: there is no ``.inter`` file.
        ValueError: a file is damaged, lacks a column, or has a bad row while ``strict`` is set.
    """
    bad_rows = BadRows(strict)
    prefix = _prefix(pathlib.Path(path))
    all_rows, parts = _with_suffix(prefix, "inter"), [_with_suffix(prefix, f"{part}.inter") for part in _PARTS]
    files = [(all_rows, None)] if all_rows.is_file() else [(file, n) for n, file in enumerate(parts) if file.is_file()]
    if not files:
        raise FileNotFoundError(f"{all_rows}: no such file; expected it or {parts[0].name}")
    frames = (pair for file, number in files for pair in _inter_frames(file, number, bad_rows))
    return build_interactions(
        prefix.name, frames, bad_rows, titles=_read_titles(_with_suffix(prefix, "item"), bad_rows)
    )


def _prefix(path: pathlib.Path) -> pathlib.Path:
    return path / path.name if path.is_dir() else path


def _with_suffix(prefix: pathlib.Path, ending: str) -> pathlib.Path:
    return prefix.with_name(f"{prefix.name}.{ending}")


def _typed_names(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{name}{kind}" for name in names for kind in (*(f":{kind}" for kind in _TYPES), ""))


def _inter_frames(file: pathlib.Path, number: int | None, bad_rows: BadRows) -> Iterator[tuple[str, Any]]:
    import polars as pl

    columns = {key: _typed_names(names) for key, names in _COLUMNS.items()}
    for frame in read_delimited(
        TextFile(file), bad_rows, columns, optional=("user", "time", "session", "list"), quoted=True
    ):
        if not {"user", "session"} & set(frame.columns):
            raise ValueError(f"{file}, line 1: no user_id and no session_id column; expected one of them")
        frame = _expand_lists(frame) if "list" in frame.columns else frame
        yield str(file), frame if number is None else frame.with_columns(split=pl.lit(str(number)))


def _expand_lists(frame: Any) -> Any:
    """Returns one row per item, in order, from the longest list of each session."""
    import polars as pl

    key = "session" if "session" in frame.columns else "user"
    items = pl.col("list").str.split(" ").list.concat(pl.col("item"))
    frame = frame.with_columns(item=items, size=items.list.len()).sort("size", descending=True, maintain_order=True)
    frame = frame.unique(key, keep="first", maintain_order=True).sort("line")
    return frame.select("line", pl.col(key).alias("session"), "item").explode("item")


def _read_titles(file: pathlib.Path, bad_rows: BadRows) -> dict[str, str] | None:
    if not file.is_file():
        return None
    titles: dict[str, str] = {}
    columns = {"item": _typed_names(("item_id",)), "title": _typed_names(_TITLE_COLUMNS)}
    for frame in read_delimited(TextFile(file), bad_rows, columns, optional=("title",), quoted=True):
        names = frame["title"] if "title" in frame.columns else [""] * len(frame)
        titles.update(zip(frame["item"], names, strict=True))
    return titles if any(titles.values()) else None


def write_recbole(folder: str | os.PathLike[str], name: str, prepared: Prepared, *, rows: str = "sessions") -> None:
    """Writes a prepared dataset for RecBole as ``folder/name/name.*``.

    Args:
        folder: RecBole's ``data_path``.
        name: RecBole's ``dataset``.
        prepared: the sessions to write.
        rows: "sessions" for three files, one per split, with one row per session (``benchmark_filename``: train, valid,
            test); "interactions" for one file with one row per interaction.

    Raises:
        ValueError: ``rows`` is unknown, or an item id contains white space, which separates items in the format.
    """
    check_one_of("rows", rows, ("sessions", "interactions"))
    for item in prepared.item_ids[1:]:
        if not item or item.split() != [item]:
            raise ValueError(f"item id is {item!r}; expected an id without white space")
    folder = pathlib.Path(folder) / name
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / f"{name}.item") as path, path.open("w", encoding="utf-8", newline="\n") as file:
        # RecBole reads the files as csv with quotes.
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(("item_id:token", "title:token_seq"))
        for item, title in zip(prepared.item_ids[1:], prepared.titles[1:], strict=True):
            writer.writerow((item, _WHITE_SPACE.sub(" ", title)))
    write = _write_sessions if rows == "sessions" else _write_interactions
    write(folder, name, prepared)


def _write_sessions(folder: pathlib.Path, name: str, prepared: Prepared) -> None:
    items, offsets = np.asarray(prepared.sequences.items), np.asarray(prepared.sequences.offsets)
    ends = np.cumsum(prepared.sizes)
    for part, first, last in zip(_PARTS, ends - np.array(prepared.sizes), ends, strict=True):
        with replacing(folder / f"{name}.{part}.inter") as path, path.open("w", encoding="utf-8", newline="\n") as file:
            file.write("session_id:token\titem_id_list:token_seq\titem_id:token\n")
            for row in range(first, last):
                *inputs, target = (prepared.item_ids[item] for item in items[offsets[row] : offsets[row + 1]])
                file.write(f"{row}\t{' '.join(inputs)}\t{target}\n")


def _write_interactions(folder: pathlib.Path, name: str, prepared: Prepared) -> None:
    length = np.diff(np.asarray(prepared.sequences.offsets))
    session, user = np.repeat(np.arange(len(length)), length), np.repeat(prepared.user, length)
    with replacing(folder / f"{name}.inter") as path, path.open("w", encoding="utf-8", newline="\n") as file:
        file.write("session_id:token\tuser_id:token\titem_id:token\ttimestamp:float\n")
        for row in zip(session, user, np.asarray(prepared.sequences.items), prepared.time, strict=True):
            file.write(f"{row[0]}\t{row[1]}\t{prepared.item_ids[row[2]]}\t{row[3] / 1000:.3f}\n")
