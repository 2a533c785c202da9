"""HetRec 2011 MovieLens-2k: ratings with millisecond times and titles, from the zip or its folder."""

import os

from alkd_jax.data.interactions import EARLIEST, Interactions, gather
from alkd_jax.data.text import text_files
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.delimited import read_delimited

_RATINGS = "user_ratedmovies-timestamps.dat"
_MISSING = "\\N"


def load_hetrec(path: str | os.PathLike[str], *, strict: bool = False) -> Interactions:
    """Read ratings and titles; every rating counts as an interaction, whatever its value.

    The files are tab-separated with a line of names, in UTF-8 or ISO-8859-1; a double quote is a letter, and a
    backslash with N is a missing title.

    Args:
        path: ``hetrec2011-movielens-2k-v2.zip``, or the folder that it unpacks to.
        strict: whether the first bad row is an error.

    Returns:
        The interactions, with titles in the order of ``movies.dat``.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, lacks a column, or has a bad row and ``strict`` is set.

    Reference:
        Cantador, Brusilovsky, Kuflik: HetRec 2011.
    """
    bad_rows = BadRows(strict)
    ratings, movies = text_files.find(path, _RATINGS), text_files.find(path, "movies.dat")
    encoding = text_files.encoding_of(movies)
    titles: dict[str, str] = {}
    for frame in read_delimited(movies, bad_rows, {"item": ("id",), "title": ("title",)}, encoding=encoding):
        for item, title in zip(frame["item"], frame["title"], strict=True):
            titles.setdefault(item, "" if title == _MISSING else title)
    columns = {"user": ("userID",), "item": ("movieID",), "time": ("timestamp",)}
    frames = ((str(ratings), frame) for frame in read_delimited(ratings, bad_rows, columns))
    report = {"titles_file": movies.path.name, "titles_encoding": encoding, "titles_read": len(titles)}
    return gather("HetRec 2011 MovieLens-2k", frames, bad_rows, titles=titles, earliest=EARLIEST, report=report)
