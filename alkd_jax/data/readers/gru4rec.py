"""GRU4Rec's tab-separated files: SessionId, ItemId, Time; read and written."""

import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from alkd_jax.data.interactions import MISSING_IDS, Interactions, build_interactions
from alkd_jax.data.prepared import Prepared
from alkd_jax.data.text import tab_separated
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.delimited import read_delimited
from alkd_jax.data.text.source_files import TextFile

_COLUMNS = {"session": ("SessionId",), "item": ("ItemId",), "time": ("Time",)}


def load_gru4rec(
    train: str | os.PathLike[str],
    test: str | os.PathLike[str] | None = None,
    *,
    time_format: str | None = None,
    strict: bool = False,
) -> Interactions:
    """Reads sessions with their ids.

    A double quote at the start of a field quotes it as in csv, because GRU4Rec reads its files with pandas, and files
    for it are written with pandas; elsewhere in a field a quote is an ordinary character.

    Args:
        train: file of all interactions or of the training interactions. The columns may stand in any order; others are
            ignored.
        test: file of the test interactions; None if there is one file only.
        time_format: form of the times, as in :class:`alkd_jax.data.times.TimeParser`.
        strict: whether the first bad row raises an error.

    Returns:
        The interactions with their sessions, and with the split if there are two files; a session of the test file
        whose id the training file has too is named ``test:ID``.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, lacks a column, or has a bad row while ``strict`` is set.

    Reference:
        Hidasi, Karatzoglou: Recurrent Neural Networks with Top-k Gains, 2018.
    """
    import polars as pl

    bad_rows = BadRows(strict)
    train_ids = pl.Series("session", [], pl.String)

    def frames() -> Iterator[tuple[str, Any]]:
        nonlocal train_ids
        for path, part, number in ((train, "train", "0"), (test, "test", "2")):
            if path is None:
                continue
            for frame in read_delimited(TextFile(pathlib.Path(path)), bad_rows, _COLUMNS, quote='"'):
                if test is None:
                    yield str(path), frame
                    continue
                # The two files may use the same id for different sessions: that of the test file gets a prefix, and so
                # does every id that has one already.
                is_taken = pl.col("session").str.contains("^(train|test):")
                if part == "test":
                    is_taken |= pl.col("session").is_in(train_ids.implode())
                else:
                    known = frame.filter(~pl.col("session").is_in(MISSING_IDS))["session"].drop_nulls()
                    train_ids = pl.concat([train_ids, known]).unique()
                session = pl.when(is_taken).then(pl.lit(f"{part}:") + pl.col("session")).otherwise(pl.col("session"))
                yield str(path), frame.with_columns(session=session, split=pl.lit(number))

    return build_interactions(pathlib.Path(train).name, frames(), bad_rows, time_format=time_format)


def write_gru4rec(folder: str | os.PathLike[str], name: str, prepared: Prepared) -> None:
    """Writes a prepared dataset as ``name_train.tsv``, ``name_valid.tsv`` and ``name_test.tsv``, with times in seconds.

    The files are written together or not at all, and replace those of the same names.

    Args:
        folder: folder for the files; it is created if it does not exist.
        name: prefix of the file names.
        prepared: the sessions to write.

    Raises:
        ValueError: the split cuts sessions, or an item id would not come back from the files: it has a tab, a line end,
            half a surrogate pair or U+FDD0, is a word for a missing value, or belongs to two items.
    """
    prepared.check_whole_sessions("files of GRU4Rec")
    tab_separated.check_file_name(name)
    tab_separated.check_ids(prepared.item_ids[1:])
    items, offsets = np.asarray(prepared.sequences.items), np.asarray(prepared.sequences.offsets)
    session = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    ends = offsets[np.cumsum([0, *prepared.sizes])]
    ids = [tab_separated.quoted(item) for item in prepared.item_ids]

    def rows(part: slice) -> Iterator[tuple[object, ...]]:
        yield "SessionId", "ItemId", "Time"
        for number, item, time in zip(session[part], items[part], prepared.time[part], strict=True):
            yield number, ids[item], f"{time / 1000:.3f}"

    parts = zip(("train", "valid", "test"), ends[:-1], ends[1:], strict=True)
    tables = {f"{name}_{part}.tsv": rows(slice(first, last)) for part, first, last in parts}
    tab_separated.write_tables(pathlib.Path(folder), tables)
