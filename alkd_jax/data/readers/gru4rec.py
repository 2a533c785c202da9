"""GRU4Rec's tab-separated files: SessionId, ItemId, Time; read and written."""

import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from alkd_jax.data.interactions import Interactions, build_interactions
from alkd_jax.data.prepared import Prepared
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.delimited import read_delimited
from alkd_jax.data.text.source_files import TextFile
from alkd_jax.io import replacing

_COLUMNS = {"session": ("SessionId",), "item": ("ItemId",), "time": ("Time",)}


def load_gru4rec(
    train: str | os.PathLike[str], test: str | os.PathLike[str] | None = None, *, strict: bool = False
) -> Interactions:
    """Reads sessions with their ids.

    Args:
        train: file of all interactions or of the training interactions. The columns may stand in any order; others are
            ignored.
        test: file of the test interactions; None if there is one file only.
        strict: whether the first bad row raises an error.

    Returns:
        The interactions with their sessions, and with the split if there are two files.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, lacks a column, or has a bad row while ``strict`` is set.

    Reference:
        Hidasi, Karatzoglou: Recurrent Neural Networks with Top-k Gains, 2018.
    """
    import polars as pl

    bad_rows = BadRows(strict)

    def frames() -> Iterator[tuple[str, Any]]:
        for path, number in ((train, "0"), (test, "2")):
            if path is None:
                continue
            for frame in read_delimited(TextFile(pathlib.Path(path)), bad_rows, _COLUMNS):
                # The two files may use the same number for different sessions.
                distinct = frame.with_columns(session=pl.lit(f"{number}:") + pl.col("session"), split=pl.lit(number))
                yield str(path), frame if test is None else distinct

    return build_interactions(pathlib.Path(train).name, frames(), bad_rows)


def write_gru4rec(folder: str | os.PathLike[str], name: str, prepared: Prepared) -> None:
    """Writes a prepared dataset as ``name_train.tsv``, ``name_valid.tsv`` and ``name_test.tsv``, with times in seconds.

    Args:
        folder: folder for the files; it is created if it does not exist.
        name: prefix of the file names.
        prepared: the sessions to write.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    items, offsets = np.asarray(prepared.sequences.items), np.asarray(prepared.sequences.offsets)
    session = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    ends = np.cumsum(prepared.sizes)
    for part, first, last in zip(("train", "valid", "test"), ends - np.array(prepared.sizes), ends, strict=True):
        rows = slice(offsets[first], offsets[last])
        with replacing(folder / f"{name}_{part}.tsv") as path, path.open("w", encoding="utf-8", newline="\n") as file:
            file.write("SessionId\tItemId\tTime\n")
            for row in zip(session[rows], items[rows], prepared.time[rows], strict=True):
                file.write(f"{row[0]}\t{prepared.item_ids[row[1]]}\t{row[2] / 1000:.3f}\n")
