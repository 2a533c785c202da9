"""RecBole's atomic files, read and written: ``.inter`` with ``name:type`` columns, ``.item`` with titles."""

import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from alkd_jax.checks import check_one_of
from alkd_jax.data.interactions import MISSING_IDS, Interactions, build_interactions
from alkd_jax.data.prepared import Prepared
from alkd_jax.data.text import tab_separated
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.delimited import read_delimited
from alkd_jax.data.text.source_files import TextFile, file_below
from alkd_jax.data.text.tab_separated import quoted
from alkd_jax.data.titles import collect_titles

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


def load_recbole(path: str | os.PathLike[str], *, time_format: str | None = None, strict: bool = False) -> Interactions:
    """Reads atomic files: one ``.inter``, or ``.train.inter``, ``.valid.inter`` and ``.test.inter``.

    Rows are interactions, or sessions given as ``item_id_list`` with the next ``item_id``. In the second case only the
    longest row of each session is read, because the others are its prefixes.

    Args:
        path: folder of the dataset, or the path of its files without their suffixes (``folder/name``).
        time_format: form of the times, as in :class:`alkd_jax.data.times.TimeParser`.
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
    titles = _read_titles(_with_suffix(prefix, "item"), bad_rows)
    return build_interactions(prefix.name, frames, bad_rows, titles=titles, time_format=time_format)


def _prefix(path: pathlib.Path) -> pathlib.Path:
    return path / path.name if path.is_dir() else path


def _with_suffix(prefix: pathlib.Path, ending: str) -> pathlib.Path:
    return prefix.with_name(f"{prefix.name}.{ending}")


def _typed_names(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{name}{kind}" for name in names for kind in (*(f":{kind}" for kind in _TYPES), ""))


def _inter_frames(file: pathlib.Path, number: int | None, bad_rows: BadRows) -> Iterator[tuple[str, Any]]:
    import polars as pl

    columns = {key: _typed_names(names) for key, names in _COLUMNS.items()}
    frames = read_delimited(
        TextFile(file_below(file.parent, file.name)),
        bad_rows,
        columns,
        optional=("user", "time", "session", "list"),
        one_of=("user", "session"),
        quote='"',
    )
    for frame in _sessions(file, frames, bad_rows):
        yield str(file), frame if number is None else frame.with_columns(split=pl.lit(str(number)))


def _sessions(file: pathlib.Path, frames: Iterator[Any], bad_rows: BadRows) -> Iterator[Any]:
    """Yields frames as they are, or, where rows are lists, one frame of all rows of the file, one item a row."""
    import polars as pl

    rows = []
    for frame in frames:
        if "list" in frame.columns:
            # The rows of a session may lie in several blocks.
            rows.append(frame)
        else:
            yield frame
    if rows:
        yield _expand_lists(file, pl.concat(rows), bad_rows)


def _expand_lists(file: pathlib.Path, frame: Any, bad_rows: BadRows) -> Any:
    """Returns one row per item, in order, from the longest list of each session; the others are its beginnings."""
    import polars as pl

    key = "session" if "session" in frame.columns else "user"
    inputs = pl.when(pl.col("list") != "").then(pl.col("list").str.split(" ")).otherwise(pl.lit([], pl.List(pl.String)))
    text = pl.concat_str("list", "item", separator=" ")
    frame = frame.select("line", pl.col(key).alias("session"), text=text, items=inputs.list.concat("item"))
    frame = frame.with_columns(size=pl.col("items").list.len())
    has_gap = pl.col("items").list.eval(pl.element().is_in(MISSING_IDS)).list.any()
    frame = _count_bad(file, "no item", frame, has_gap, bad_rows)
    longest = frame.sort("size", descending=True, maintain_order=True).unique("session", keep="first")
    frame = frame.join(longest.select("session", longest="items"), on="session", maintain_order="left")
    is_prefix = pl.col("longest").list.head("size") == pl.col("items")
    frame = _count_bad(file, "not the beginning of its session's longest list", frame, ~is_prefix, bad_rows)
    is_longest = pl.col("items") == pl.col("longest")
    whole = frame.filter(is_longest).unique("session", keep="first", maintain_order=True)
    bad_rows.prefixes[str(file)] += len(frame) - len(whole)
    return whole.select("line", "session", item="items").explode("item")


def _count_bad(file: pathlib.Path, reason: str, frame: Any, bad: Any, bad_rows: BadRows) -> Any:
    matches = frame.filter(bad)
    bad_rows.add(str(file), reason, matches.select("line", "text").iter_rows())
    return frame.filter(~bad)


def _read_titles(file: pathlib.Path, bad_rows: BadRows) -> dict[str, str] | None:
    if not file.is_file():
        return None
    columns = {"item": _typed_names(("item_id",)), "title": _typed_names(_TITLE_COLUMNS)}
    frames = read_delimited(
        TextFile(file_below(file.parent, file.name)), bad_rows, columns, optional=("title",), quote='"'
    )
    titles, _ = collect_titles(str(file), frames, bad_rows)
    return titles if any(titles.values()) else None


def write_recbole(folder: str | os.PathLike[str], name: str, prepared: Prepared, *, rows: str = "sessions") -> None:
    """Writes a prepared dataset for RecBole as ``folder/name/name.*``.

    The files are written together or not at all, and replace those of the same names.

    Args:
        folder: RecBole's ``data_path``.
        name: RecBole's ``dataset``.
        prepared: the sessions to write.
        rows: "sessions" for three files, one per split, with one row per session (``benchmark_filename``: train, valid,
            test); "interactions" for one file with one row per interaction.

    Raises:
        ValueError: ``rows`` is unknown, the split cuts sessions, the folder has files of the other kind of rows, or an
            item id or a title would not come back from the files: an id has a tab, a line end or, in rows of sessions,
            a blank, is a word for a missing value, or belongs to two items; or a text has half a surrogate pair or
            U+FDD0.
    """
    check_recbole(name, prepared, rows=rows)
    folder = pathlib.Path(folder) / name
    of_sessions, of_interactions = [f"{name}.{part}.inter" for part in _PARTS], [f"{name}.inter"]
    for file in of_interactions if rows == "sessions" else of_sessions:
        if (folder / file).exists():
            raise ValueError(f"{folder / file} has rows of another kind than {rows!r}; expected a folder without it")
    catalogue = zip(prepared.item_ids[1:], prepared.titles[1:], strict=True)
    # Quotes around the id show that the lines of a title are no rows.
    titled = ((quoted(item, always="\n" in title), quoted(title)) for item, title in catalogue)
    tables: dict[str, Iterable[tuple[object, ...]]] = {}
    tables[f"{name}.item"] = itertools.chain([("item_id:token", "title:token_seq")], titled)
    if rows == "sessions":
        ends = np.cumsum([0, *prepared.sizes])
        tables |= {
            file: _session_rows(prepared, range(first, last))
            for file, first, last in zip(of_sessions, ends[:-1], ends[1:], strict=True)
        }
    else:
        tables[of_interactions[0]] = _interaction_rows(prepared)
    tab_separated.write_tables(folder, tables)


def check_recbole(name: str, prepared: Prepared, *, rows: str = "sessions") -> None:
    """Raises the errors of :func:`write_recbole` that do not depend on its folder; see there."""
    check_one_of("rows", rows, ("sessions", "interactions"))
    prepared.check_whole_sessions("files of RecBole")
    tab_separated.check_file_name(name)
    tab_separated.check_ids(prepared.item_ids[1:], separators="\t\r\n " if rows == "sessions" else "\t\r\n")
    for title in prepared.titles[1:]:
        tab_separated.check_encodable("title", title)


def _session_rows(prepared: Prepared, numbers: range) -> Iterator[tuple[object, ...]]:
    items, offsets = np.asarray(prepared.sequences.items), np.asarray(prepared.sequences.offsets)
    yield "session_id:token", "item_id_list:token_seq", "item_id:token"
    for number in numbers:
        *inputs, target = (prepared.item_ids[item] for item in items[offsets[number] : offsets[number + 1]])
        yield number, quoted(" ".join(inputs)), quoted(target)


def _interaction_rows(prepared: Prepared) -> Iterator[tuple[object, ...]]:
    length = np.diff(np.asarray(prepared.sequences.offsets))
    session, user = np.repeat(np.arange(len(length)), length), np.repeat(prepared.user, length)
    ids = [quoted(item) for item in prepared.item_ids]
    yield "session_id:token", "user_id:token", "item_id:token", "timestamp:float"
    for row in zip(session, user, np.asarray(prepared.sequences.items), prepared.time, strict=True):
        yield row[0], row[1], ids[row[2]], f"{row[3] / 1000:.3f}"
