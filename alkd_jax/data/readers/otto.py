"""OTTO's sessions: JSON lines of a session and its events, in a training and a test file."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from alkd_jax.data.interactions import Interactions, build_interactions
from alkd_jax.data.text import source_files
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.json_lines import HALF_CHARACTER, as_text, is_unicode, read_objects
from alkd_jax.data.text.source_files import TextFile
from alkd_jax.data.times import EARLIEST_TIME

_TRAIN_FILES = ("otto-recsys-train.jsonl", "train.jsonl")
_TEST_FILES = ("otto-recsys-test.jsonl", "test.jsonl")
_KEYS = {"item": "aid", "time": "ts", "event": "type"}
_EVENTS_PER_FRAME = 1 << 20


def load_otto(
    train: str | os.PathLike[str], test: str | os.PathLike[str] | None = None, *, strict: bool = False
) -> Interactions:
    """Reads sessions with the events of all kinds: "clicks", "carts" and "orders".

    A line is one row; it is bad as a whole if one of its events is.

    Args:
        train: ``otto-recsys-train.jsonl``, plain or compressed, or a folder or an archive that has it.
        test: ``otto-recsys-test.jsonl``, or a folder or an archive that has it; None if there is one file only.
        strict: whether the first bad row raises an error.

    Returns:
        The interactions with their sessions and kinds, and with the split if there are two files.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or has a bad row while ``strict`` is set.

    Reference:
        Normann, Baumeister, Wilm: OTTO Recommender Systems Dataset, 2022.
    """
    import polars as pl

    bad_rows = BadRows(strict)
    files = [(source_files.file_or_member(train, *_TRAIN_FILES), "0")]
    if test is not None:
        files.append((source_files.file_or_member(test, *_TEST_FILES), "2"))

    def frames() -> Iterator[tuple[str, Any]]:
        for file, number in files:
            for frame in _frames(file, bad_rows):
                yield str(file), frame if test is None else frame.with_columns(split=pl.lit(number))

    return build_interactions("OTTO", frames(), bad_rows, earliest=EARLIEST_TIME, time_format="ms")


def _frames(file: TextFile, bad_rows: BadRows) -> Iterator[Any]:
    """Yields frames of whole sessions with one event a row."""
    import polars as pl

    schema = {"line": pl.Int64, "session": pl.String, **dict.fromkeys(_KEYS, pl.String)}
    rows: list[tuple[int, str | None, str | None, str | None, str | None]] = []
    for line, row in read_objects(file, bad_rows):
        events = row.get("events")
        if not isinstance(events, list) or not events or not all(isinstance(event, dict) for event in events):
            bad_rows.add(str(file), "no list of events", [(line, row)])
            continue
        session = as_text(row.get("session"))
        values = [_values(event) for event in events]
        if not is_unicode("".join(filter(None, [session, *(text for event in values for text in event)]))):
            bad_rows.add(str(file), HALF_CHARACTER, [(line, row)])
            continue
        rows.extend((line, session, *event) for event in values)
        if len(rows) >= _EVENTS_PER_FRAME:
            yield pl.DataFrame(rows, schema=schema, orient="row")
            rows = []
    yield pl.DataFrame(rows, schema=schema, orient="row")


def _values(event: Mapping[str, Any]) -> tuple[str | None, str | None, str | None]:
    item, time, kind = (as_text(event.get(key)) for key in _KEYS.values())
    return item, time, kind
