"""MovieLens 1M, 10M (``ratings.dat``) and 20M, 25M, 32M (``ratings.csv``), from the zip or its folder."""

import os

from alkd_jax.data.interactions import EARLIEST, Interactions, gather
from alkd_jax.data.text import text_files
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.delimited import read_delimited


def load_movielens(path: str | os.PathLike[str], *, strict: bool = False) -> Interactions:
    """Read ratings and titles; every rating counts as an interaction, whatever its value.

    Args:
        path: ``ml-1m.zip``, ``ml-32m.zip``, …, or the folder that it unpacks to.
        strict: whether the first bad row is an error.

    Returns:
        The interactions, with titles in the order of the movies' file.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or has a bad row and ``strict`` is set.

    Reference:
        Harper, Konstan: The MovieLens Datasets, 2015.
    """
    bad_rows = BadRows(strict)
    ratings = text_files.find(path, "ratings.csv", "ratings.dat")
    colons = (ratings.member or ratings.path.name).removesuffix(".gz").endswith(".dat")
    movies = text_files.find(path, "movies.dat" if colons else "movies.csv")
    encoding = text_files.encoding_of(movies)
    titles: dict[str, str] = {}
    for frame in read_delimited(
        movies,
        bad_rows,
        {"item": ("movieId",), "title": ("title",)},
        separator="::" if colons else ",",
        header=("movieId", "title", "genres") if colons else None,
        quoted=not colons,
        encoding=encoding,
    ):
        titles.update(zip(frame["item"], frame["title"], strict=True))
    frames = read_delimited(
        ratings,
        bad_rows,
        {"user": ("userId",), "item": ("movieId",), "time": ("timestamp",)},
        separator="::" if colons else ",",
        header=("userId", "movieId", "rating", "timestamp") if colons else None,
    )
    report = {"titles_encoding": encoding, "titles_read": len(titles)}
    named = ((str(ratings), frame) for frame in frames)
    return gather("MovieLens", named, bad_rows, titles=titles, earliest=EARLIEST, report=report)
