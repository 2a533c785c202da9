"""Diginetica's views of items, the data of the CIKM Cup 2016, with the hashed words of the products' names."""

import os
from collections.abc import Iterator
from typing import Any

from alkd_jax.data.interactions import Interactions, build_interactions
from alkd_jax.data.text import source_files
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.delimited import read_delimited
from alkd_jax.data.text.source_files import TextFile
from alkd_jax.data.times import EARLIEST_TIME
from alkd_jax.data.titles import collect_titles

_VIEWS_FILES = ("train-item-views.csv", "train_item_views.csv")
_COLUMNS = {
    "session": ("sessionId", "session_id"),
    "item": ("itemId", "item_id"),
    "timeframe": ("timeframe",),
    "date": ("eventdate", "event_date"),
}
_PRODUCT_COLUMNS = {
    "item": _COLUMNS["item"],
    "title": ("product.name.tokens", "product_name_tokens", "product_name", "name", "title"),
}
_LARGEST = 10**15


def load_diginetica(
    views: str | os.PathLike[str], products: str | os.PathLike[str] | None = None, *, strict: bool = False
) -> Interactions:
    """Reads views with their sessions.

    The time of a view is the first date of its session plus ``timeframe``, which counts milliseconds within the
    session, also after midnight. The rows of the file are not in the order of time. Its users are missing in most rows
    and are not read.

    Args:
        views: ``train-item-views.csv``, plain or compressed, or a folder or an archive that has it. Its columns are
            separated by semicolons and named as in the original (``sessionId``) or in its copies (``session_id``).
        products: ``products.csv``, whose hashed words become titles; None for no titles.
        strict: whether the first bad row raises an error.

    Returns:
        The interactions, with titles if there are products.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, lacks a column, or has a bad row while ``strict`` is set.

    Reference:
        CIKM Cup 2016, Track 2: Personalized E-Commerce Search Challenge.
    """
    bad_rows, titles = BadRows(strict), None
    report: dict[str, int] = {}
    if products is not None:
        file = source_files.file_or_member(products, "products.csv")
        title_frames = read_delimited(file, bad_rows, _PRODUCT_COLUMNS, separator=";", quote='"')
        titles, report = collect_titles(str(file), title_frames, bad_rows)
    file = source_files.file_or_member(views, *_VIEWS_FILES)
    frames = ((str(file), frame) for frame in _with_times(file, bad_rows))
    return build_interactions(
        "Diginetica", frames, bad_rows, titles=titles, earliest=EARLIEST_TIME, time_format="ms", report=report
    )


def _views(file: TextFile, bad_rows: BadRows) -> Iterator[Any]:
    """Yields frames with the date as milliseconds since 1970, null where it cannot be read."""
    import polars as pl

    day = pl.col("date").str.strip_chars().str.to_datetime("%Y-%m-%d", strict=False, time_unit="ms")
    for frame in read_delimited(file, bad_rows, _COLUMNS, separator=";", quote='"'):
        yield frame.with_columns(date=day.dt.epoch("ms"))


def _with_times(file: TextFile, bad_rows: BadRows) -> Iterator[Any]:
    """Yields frames with times; the file is read twice, since a session's first date may stand in its last row."""
    import polars as pl

    def first_dates(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.group_by("session").agg(first_date=pl.col("date").min())

    firsts = [first_dates(frame) for frame in _views(file, BadRows())]
    first_date = pl.concat(firsts).group_by("session").agg(pl.col("first_date").min())
    number = pl.col("timeframe").str.strip_chars().cast(pl.Float64, strict=False)
    offset = pl.when(number.is_between(0, _LARGEST)).then(number).round().cast(pl.Int64)
    time = pl.when(pl.col("date").is_not_null()).then(pl.col("first_date") + offset)
    for frame in _views(file, bad_rows):
        dated = frame.join(first_date, on="session", how="left", maintain_order="left")
        yield dated.select("line", "session", "item", time=time)
