"""MovieLens 1M, 10M (``ratings.dat``) and 20M, 25M, 32M (``ratings.csv``), from the zip archive or its folder."""

import os

from alkd_jax.data.interactions import Interactions, build_interactions
from alkd_jax.data.text import source_files, text_files
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.delimited import read_delimited
from alkd_jax.data.times import EARLIEST_TIME
from alkd_jax.data.titles import collect_titles


def load_movielens(path: str | os.PathLike[str], *, strict: bool = False) -> Interactions:
    """Reads ratings and titles. Every rating is an interaction, whatever its value.

    Args:
        path: ``ml-1m.zip``, ``ml-32m.zip``, …, or the unpacked folder.
        strict: whether the first bad row raises an error.

    Returns:
        The interactions, with titles in the order of the file of movies.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or has a bad row while ``strict`` is set.

    Reference:
        Harper, Konstan: The MovieLens Datasets, 2015.
    """
    bad_rows = BadRows(strict)
    ratings = source_files.find_file(path, "ratings.csv", "ratings.dat")
    is_dat = ratings.plain_name.endswith(".dat")
    movies = source_files.find_file(path, "movies.dat" if is_dat else "movies.csv")
    encoding = text_files.detect_encoding(movies)
    quote = "" if is_dat else '"'
    movie_frames = read_delimited(
        movies,
        bad_rows,
        {"item": ("movieId",), "title": ("title",)},
        separator="::" if is_dat else ",",
        header=("movieId", "title", "genres") if is_dat else None,
        quote=quote,
        encoding=encoding,
    )
    titles, counts = collect_titles(str(movies), movie_frames, bad_rows)
    frames = read_delimited(
        ratings,
        bad_rows,
        {"user": ("userId",), "item": ("movieId",), "time": ("timestamp",)},
        separator="::" if is_dat else ",",
        header=("userId", "movieId", "rating", "timestamp") if is_dat else None,
        quote=quote,
    )
    report = counts | {"titles_encoding": encoding}
    file_frames = ((str(ratings), frame) for frame in frames)
    return build_interactions("MovieLens", file_frames, bad_rows, titles=titles, earliest=EARLIEST_TIME, report=report)
