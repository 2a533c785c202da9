"""Last.fm-1K: plays of tracks by users, from the archive or its folder."""

import os
from collections.abc import Iterator
from typing import Any

from alkd_jax.data.interactions import Interactions, build_interactions
from alkd_jax.data.text import source_files
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.delimited import read_delimited
from alkd_jax.data.times import EARLIEST_TIME

_PLAYS_FILE = "userid-timestamp-artid-artname-traid-traname.tsv"
_COLUMNS = ("user", "time", "artist_id", "artist", "track_id", "track")


def load_lastfm(path: str | os.PathLike[str], *, strict: bool = False) -> Interactions:
    """Reads plays. The item is the MusicBrainz id of the track, or artist and name if the track has no id.

    Args:
        path: ``lastfm-dataset-1K.tar.gz``, the unpacked folder, or the file of plays.
        strict: whether the first bad row raises an error.

    Returns:
        The interactions, with artist and name of the track as the title.

    Raises:
        FileNotFoundError: the file of plays is missing.
        ValueError: the file is damaged, or has a bad row while ``strict`` is set.

    Reference:
        Celma: Music Recommendation and Discovery, 2010.
    """
    bad_rows = BadRows(strict)
    file = source_files.find_file(path, _PLAYS_FILE)
    frames = read_delimited(file, bad_rows, {name: (name,) for name in _COLUMNS}, header=_COLUMNS)
    return build_interactions(
        "Last.fm-1K", ((str(file), frame) for frame in _tracks(frames)), bad_rows, earliest=EARLIEST_TIME
    )


def _tracks(frames: Iterator[Any]) -> Iterator[Any]:
    import polars as pl

    title = pl.concat_str("artist", pl.lit(" – "), "track")
    for frame in frames:
        yield frame.select(
            "line",
            "user",
            "time",
            # A row without id and name does not identify a track; its null item makes it a bad row.
            item=pl.when(pl.col("track_id") != "").then("track_id").when(pl.col("track") != "").then(title),
            title=title,
        )
