"""Yoochoose's clicks, the data of the RecSys Challenge 2015: session, time, item and category, without column names."""

import os
from collections.abc import Iterator
from typing import Any

from alkd_jax.data.interactions import Interactions, build_interactions
from alkd_jax.data.text import source_files
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.delimited import read_delimited
from alkd_jax.data.times import EARLIEST_TIME

_HEADER = ("session", "time", "item", "category")
_COLUMNS = {"session": ("session",), "item": ("item",), "time": ("time",)}


def load_yoochoose(
    clicks: str | os.PathLike[str], test: str | os.PathLike[str] | None = None, *, strict: bool = False
) -> Interactions:
    """Reads clicks with their sessions.

    The challenge's test file has other sessions of the same months, so that it is more data and no test part: published
    work uses the clicks alone, or both files as one and its last days for test.

    Args:
        clicks: ``yoochoose-clicks.dat``, plain or compressed, or a folder or an archive that has it.
        test: ``yoochoose-test.dat``, or a folder or an archive that has it; None for the clicks alone.
        strict: whether the first bad row raises an error.

    Returns:
        The interactions of both files in their order. Times have milliseconds.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or has a bad row while ``strict`` is set.

    Reference:
        Ben-Shimon et al.: RecSys Challenge 2015 and the YOOCHOOSE Dataset, RecSys 2015.
    """
    bad_rows = BadRows(strict)
    files = [source_files.file_or_member(clicks, "yoochoose-clicks.dat")]
    if test is not None:
        files.append(source_files.file_or_member(test, "yoochoose-test.dat"))

    def frames() -> Iterator[tuple[str, Any]]:
        for file in files:
            for frame in read_delimited(file, bad_rows, _COLUMNS, separator=",", header=_HEADER):
                yield str(file), frame

    return build_interactions("Yoochoose", frames(), bad_rows, earliest=EARLIEST_TIME)
