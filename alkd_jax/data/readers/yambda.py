"""Yambda: listens and other events of Yandex Music, as flat Parquet files or as one row of lists per user."""

import os
import pathlib
from collections.abc import Iterator
from typing import Any

from alkd_jax.data.interactions import Interactions, build_interactions
from alkd_jax.data.readers.parquet import find_parquet, read_parquet
from alkd_jax.data.text.bad_rows import BadRows

_COLUMNS = {
    "user": ("uid",),
    "item": ("item_id",),
    "time": ("timestamp",),
    "event": ("event_type",),
    "ratio": ("played_ratio_pct",),
}
_OPTIONAL = ("event", "ratio")
_LISTEN, _LISTEN_PLUS, _UNKNOWN = "listen", "listen+", "event"
_KINDS = {f"{kind}s": kind for kind in (_LISTEN, "like", "dislike", "unlike", "undislike")}
_ALL_KINDS = "multi_event"
_PLAYED_RATIO = 50


def load_yambda(path: str | os.PathLike[str], *, strict: bool = False) -> Interactions:
    """Reads events of one kind (``listens.parquet``, ``likes.parquet``, …) or of all (``multi_event.parquet``).

    A listen of which more than 50 percent were played has the kind "listen+"; the ratio may exceed 100. The kinds that
    stay in sessions are a rule of the sessions (``SessionRules.events``). Times are seconds from an unknown beginning,
    in steps of 5, so that the first day is 1970-01-01 and many times are equal.

    Args:
        path: a Parquet file, or a folder whose Parquet files are read one after another, or ``multi_event.parquet``
            alone if it is there, since it repeats the others. The flat and the sequential form are both read; a row of
            the latter is a user, and is bad as a whole if one of its events is.
        strict: whether the first bad row raises an error.

    Returns:
        The interactions, with the kind of each if the files tell it. There are no titles.

    Raises:
        FileNotFoundError: there is no Parquet file.
        ValueError: a file is damaged, lacks a column, or has a bad row while ``strict`` is set.

    Reference:
        Ploshkin et al.: Yambda-5B: A Large-Scale Multi-modal Dataset for Ranking and Retrieval, 2025, arXiv 2505.22238.
    """
    bad_rows = BadRows(strict)

    files = find_parquet(path)
    files = [file for file in files if file.stem == _ALL_KINDS] or files

    def frames() -> Iterator[tuple[str, Any]]:
        for file in files:
            for frame in read_parquet(file, bad_rows, _COLUMNS, _OPTIONAL, lists=True):
                yield str(file), _with_kind(frame, file.stem)

    return build_interactions(f"Yambda {pathlib.Path(path).stem}", frames(), bad_rows, time_format="s")


def _with_kind(frame: Any, name: str) -> Any:
    """Returns the columns of interactions with the kind of event: that of the row, or that of the file's name."""
    import polars as pl

    of_file = _KINDS.get(name, _LISTEN if "ratio" in frame.columns else _UNKNOWN)
    kind = pl.col("event") if "event" in frame.columns else pl.lit(of_file)
    if "ratio" in frame.columns:
        heard = (pl.col("ratio").cast(pl.Float64, strict=False) > _PLAYED_RATIO).fill_null(value=False)
        kind = pl.when(heard & (kind == _LISTEN)).then(pl.lit(_LISTEN_PLUS)).otherwise(kind)
    return frame.select("line", "user", "item", "time", event=kind.cast(pl.String))
