"""Last.fm-1K: who listened to which track when, from the archive or its folder."""

import os
from collections.abc import Iterator
from typing import Any

from alkd_jax.data.interactions import EARLIEST, Interactions, gather
from alkd_jax.data.text import text_files
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.delimited import read_delimited

_PLAYS = "userid-timestamp-artid-artname-traid-traname.tsv"
_COLUMNS = ("user", "time", "artist_id", "artist", "track_id", "track")


def load_lastfm(path: str | os.PathLike[str], *, strict: bool = False) -> Interactions:
    """Read plays; an item is a track by its MusicBrainz id, or by artist and name where it has none.

    Args:
        path: ``lastfm-dataset-1K.tar.gz``, the folder that it unpacks to, or the file of plays.
        strict: whether the first bad row is an error.

    Returns:
        The interactions; a title is artist and track.

    Raises:
        FileNotFoundError: the file of plays is missing.
        ValueError: it is damaged, or has a bad row and ``strict`` is set.

    Reference:
        Celma: Music Recommendation and Discovery, 2010.
    """
    bad_rows = BadRows(strict)
    file = text_files.find(path, _PLAYS)
    frames = read_delimited(file, bad_rows, {name: (name,) for name in _COLUMNS}, header=_COLUMNS)
    return gather("Last.fm-1K", ((str(file), frame) for frame in _tracks(frames)), bad_rows, earliest=EARLIEST)


def _tracks(frames: Iterator[Any]) -> Iterator[Any]:
    import polars as pl

    title = pl.concat_str("artist", pl.lit(" – "), "track")
    for frame in frames:
        yield frame.select(
            "line",
            "user",
            "time",
            # a row without id and name says nothing of the track
            item=pl.when(pl.col("track_id") != "").then("track_id").when(pl.col("track") != "").then(title),
            title=title,
        )
