"""HetRec 2011 MovieLens-2k: ratings with times in milliseconds, and titles, from the zip archive or its folder."""

import os

from alkd_jax.data.interactions import EARLIEST_TIME, Interactions, build_interactions
from alkd_jax.data.text import source_files, text_files
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.delimited import read_delimited

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
    bad_rows = BadRows(strict)
    ratings, movies = source_files.find_file(path, _RATINGS_FILE), source_files.find_file(path, "movies.dat")
    encoding = text_files.detect_encoding(movies)
    titles: dict[str, str] = {}
    for frame in read_delimited(movies, bad_rows, {"item": ("id",), "title": ("title",)}, encoding=encoding):
        for item, title in zip(frame["item"], frame["title"], strict=True):
            titles.setdefault(item, "" if title == _MISSING_TITLE else title)
    columns = {"user": ("userID",), "item": ("movieID",), "time": ("timestamp",)}
    frames = ((str(ratings), frame) for frame in read_delimited(ratings, bad_rows, columns))
    report = {"titles_file": movies.path.name, "titles_encoding": encoding, "titles_read": len(titles)}
    return build_interactions(
        "HetRec 2011 MovieLens-2k", frames, bad_rows, titles=titles, earliest=EARLIEST_TIME, report=report
    )
