"""MerRec: events of the Mercari marketplace, in Parquet files of months, with the names of the goods."""

import os
from collections.abc import Iterator
from typing import Any

from alkd_jax.data.interactions import MISSING_IDS, Interactions, build_interactions
from alkd_jax.data.readers.parquet import find_parquet, read_parquet
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.times import EARLIEST_TIME

_COLUMNS = {
    "user": ("user_id",),
    "sequence": ("sequence_id",),
    "session": ("session_id",),
    "item": ("product_id",),
    "time": ("stime",),
    "event": ("event_id",),
    "title": ("name",),
}


def load_merrec(path: str | os.PathLike[str], *, strict: bool = False) -> Interactions:
    """Reads events of all kinds ("item_view", "item_like", …) with their sessions.

    The item is ``product_id``, which stands for equal goods, and not ``item_id``: between private persons each offer is
    sold once, so that its id does not recur. The number of a session counts within its sequence, and that of a sequence
    within its user, so that all three name a session.

    Args:
        path: a folder, whose Parquet files are read in the order of their paths, which is that of the months; or a
            file.
        strict: whether the first bad row raises an error.

    Returns:
        The interactions with their sessions and kinds. The title of an item is the name of its first event.

    Raises:
        FileNotFoundError: there is no Parquet file.
        ValueError: a file is damaged, lacks a column, or has a bad row while ``strict`` is set.

    Reference:
        Li et al.: MerRec: A Large-scale Multipurpose Mercari Dataset for Consumer-to-Consumer Recommendation Systems,
        2024, arXiv 2402.14230.
    """
    bad_rows = BadRows(strict)

    def frames() -> Iterator[tuple[str, Any]]:
        for file in find_parquet(path):
            for frame in read_parquet(file, bad_rows, _COLUMNS, ("title",)):
                yield str(file), _with_session(frame)

    return build_interactions("MerRec", frames(), bad_rows, earliest=EARLIEST_TIME)


def _with_session(frame: Any) -> Any:
    import polars as pl

    parts = ("user", "sequence", "session")
    is_missing = pl.any_horizontal(pl.col(part).is_null() | pl.col(part).is_in(MISSING_IDS) for part in parts)
    session = pl.when(~is_missing).then(pl.concat_str(*parts, separator=":"))
    return frame.with_columns(session=session).drop("sequence")
