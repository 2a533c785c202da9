"""RetailRocket's events: views, additions to the cart and transactions of visitors."""

import os

from alkd_jax.data.interactions import Interactions, build_interactions
from alkd_jax.data.text import source_files
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.delimited import read_delimited
from alkd_jax.data.times import EARLIEST_TIME

_COLUMNS = {"user": ("visitorid",), "item": ("itemid",), "time": ("timestamp",), "event": ("event",)}


def load_retailrocket(path: str | os.PathLike[str], *, strict: bool = False) -> Interactions:
    """Reads events of all kinds: "view", "addtocart" and "transaction".

    The kinds that stay in sessions are a rule of the sessions (``SessionRules.events``) and not of the reader, because
    published work ends sessions by the gaps between events of all kinds.

    Args:
        path: ``events.csv``, plain or compressed, or a folder or an archive that has it.
        strict: whether the first bad row raises an error.

    Returns:
        The interactions with the kind of each.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is damaged, lacks a column, or has a bad row while ``strict`` is set.

    Reference:
        Retailrocket recommender system dataset, 2016.
    """
    bad_rows = BadRows(strict)
    file = source_files.file_or_member(path, "events.csv")
    frames = ((str(file), frame) for frame in read_delimited(file, bad_rows, _COLUMNS, separator=",", quote='"'))
    return build_interactions("RetailRocket", frames, bad_rows, earliest=EARLIEST_TIME, time_format="ms")
