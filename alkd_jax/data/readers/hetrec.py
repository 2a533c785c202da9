"""HetRec 2011 MovieLens-2k: ratings with times in milliseconds, and titles, from the zip archive or its folder."""

import os

from alkd_jax.data.interactions import Interactions, build_interactions
from alkd_jax.data.text import source_files, text_files
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.delimited import read_delimited
from alkd_jax.data.times import EARLIEST_TIME
from alkd_jax.data.titles import collect_titles

_RATINGS_FILE = "user_ratedmovies-timestamps.dat"
_MISSING_TITLE = "\\N"


def load_hetrec(path: str | os.PathLike[str], *, strict: bool = False) -> Interactions:
    """Reads ratings and titles. Every rating is an interaction, whatever its value.

    The files are tab-separated with a line of column names, in UTF-8 or ISO-8859-1. A double quote is an ordinary
    character, and a backslash followed by N is a missing title.

    Args:
        path: ``hetrec2011-movielens-2k-v2.zip``, or the unpacked folder.
        strict: whether the first bad row raises an error.

    Returns:
        The interactions, with titles in the order of ``movies.dat``.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, lacks a column, or has a bad row while ``strict`` is set.

    Reference:
        Cantador, Brusilovsky, Kuflik: HetRec 2011.
    """
    import polars as pl

    bad_rows = BadRows(strict)
    ratings, movies = source_files.find_file(path, _RATINGS_FILE), source_files.find_file(path, "movies.dat")
    encoding = text_files.detect_encoding(movies)
    frames = read_delimited(movies, bad_rows, {"item": ("id",), "title": ("title",)}, encoding=encoding)
    title = pl.when(pl.col("title") != _MISSING_TITLE).then("title").alias("title")
    titles, counts = collect_titles(str(movies), (frame.with_columns(title) for frame in frames), bad_rows)
    columns = {"user": ("userID",), "item": ("movieID",), "time": ("timestamp",)}
    rated = ((str(ratings), frame) for frame in read_delimited(ratings, bad_rows, columns))
    report = {"titles_file": movies.path.name, "titles_encoding": encoding, **counts}
    return build_interactions(
        "HetRec 2011 MovieLens-2k", rated, bad_rows, titles=titles, earliest=EARLIEST_TIME, report=report
    )
