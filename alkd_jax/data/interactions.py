"""Interactions of users with items at times: the form into which every raw file is read before sessions are made."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int32, Int64

from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.times import LATEST_TIME, NANOSECONDS, TimeParser

if TYPE_CHECKING:
    import polars as pl

_NUM_SAMPLES = 5

MISSING_IDS = ("", "nan", "NaN", "null", "NULL", "None", "NA", "N/A", "<NA>", "\\N")
"""What stands in files for a user, an item or a session that is not known, since exporting programs write it so."""


@dataclasses.dataclass(frozen=True)
class Interactions:
    """E interactions in the order of the file.

    Attributes:
        name: name of the dataset in reports.
        user: ``[E]`` position in ``user_ids``.
        item: ``[E]`` position in ``item_ids``.
        time: ``[E]`` milliseconds since 1970 in UTC.
        session: ``[E]`` number of the session in the file; None where the file has no sessions.
        user_ids: user identifiers of the source, in order of first appearance.
        item_ids: item identifiers of the source, in order of first appearance.
        titles: item identifier → title, in the order of the file of titles; None where the source has no titles.
        split: ``[E]`` 0 training, 1 validation, 2 test; None where the source is not split.
        report: counts of the rows read and dropped; plain JSON values.
        nanosecond: ``[E]`` nanoseconds of each time after its millisecond; None where all are 0.
        has_times: whether ``time`` is that of the source; otherwise it is the number of the row, which gives the order.
        session_ids: session identifiers of the source, in order of first appearance; None where it has no sessions.
        event: ``[E]`` position in ``event_names``; None where the source has one kind of events.
        event_names: names of the kinds of events, such as "view", in order of first appearance.
    """

    name: str
    user: Int32[np.ndarray, " E"]
    item: Int32[np.ndarray, " E"]
    time: Int64[np.ndarray, " E"]
    session: Int32[np.ndarray, " E"] | None
    user_ids: tuple[str, ...]
    item_ids: tuple[str, ...]
    titles: Mapping[str, str] | None
    report: Mapping[str, Any]
    split: Int32[np.ndarray, " E"] | None = None
    nanosecond: Int32[np.ndarray, " E"] | None = None
    has_times: bool = True
    session_ids: tuple[str, ...] | None = None
    event: Int32[np.ndarray, " E"] | None = None
    event_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Returns the number of interactions E."""
        return len(self.item)

    @property
    def default_boundary(self) -> str:
        """What ends a session unless one says otherwise: "given" where the source has sessions, else "day"."""
        return "day" if self.session is None else "given"

    @property
    def default_split(self) -> str:
        """The split unless one says otherwise: "given" where the source is split, else "block"."""
        return "block" if self.split is None else "given"


class _IdEncoder:
    """Maps strings to consecutive integers in order of first appearance."""

    def __init__(self) -> None:
        import polars as pl

        self.kind = pl.Categorical(pl.Categories.random())
        # Polars drops the mapping together with the last series that uses it.
        self.keep_alive = pl.Series([], dtype=self.kind)
        self.ids: list[str] = []

    def encode(self, values: "pl.Series") -> Int32[np.ndarray, " R"]:
        """Returns the numbers of some strings; strings that are new get the next numbers."""
        codes = values.cast(self.kind).to_physical().to_numpy().astype(np.int32)
        new = np.flatnonzero(codes >= len(self.ids))
        new_codes, first = np.unique(codes[new], return_index=True)
        if new_codes.size and not np.array_equal(new_codes, np.arange(len(self.ids), len(self.ids) + new_codes.size)):
            raise RuntimeError("polars numbers categories in another order; expected the order of first appearance")
        self.ids.extend(values.gather(new[first]).to_list())
        for row in (0, len(codes) // 2, len(codes) - 1):
            if len(codes) and self.ids[codes[row]] != values[row]:
                raise RuntimeError("polars gave one number to two categories; expected distinct numbers")
        return codes


def build_interactions(
    name: str,
    frames: Iterable[tuple[str, Any]],
    bad_rows: BadRows,
    *,
    titles: Mapping[str, str] | None = None,
    earliest: int | None = None,
    time_format: str | None = None,
    report: Mapping[str, Any] | None = None,
) -> Interactions:
    """Numbers users and items and parses times, frame by frame.

    Args:
        name: name of the dataset in reports.
        frames: pairs of a file name and a polars frame with string columns ``item``, ``user`` or ``session`` or both,
            ``time`` (as :class:`TimeParser` reads it; the row number where the column is missing) and ``line``, in
            ascending order; optionally ``title``, ``event`` and ``split`` ("0", "1" or "2"). Rows of a frame with the
            same ``line`` are one row of the file, which is bad if any of them is.
        bad_rows: counts the rows without a user, an item, a kind of event or a readable time. An id that is one of
            :data:`MISSING_IDS` is missing.
        titles: item identifier → title, if the titles come from another file.
        earliest: smallest time accepted, in milliseconds since 1970; None where times may be relative.
        time_format: as in :class:`TimeParser`.
        report: further counts for the report.

    Returns:
        All good rows.

    Raises:
        ValueError: no row is left, or the times are dates written as numbers.
        RuntimeError: the reader dropped a row without counting it.
    """
    encoders = {key: _IdEncoder() for key in ("user", "item", "session", "event")}
    parts: dict[str, list[np.ndarray]] = {key: [] for key in (*encoders, "time", "split")}
    parser = TimeParser(time_format)
    row_titles: dict[str, str] = {}
    num_frame_rows, num_used = 0, 0
    before = bad_rows.account
    has_times = True
    for file, frame in frames:
        has_times &= "time" in frame.columns
        frame = _with_user_column(frame)
        frame = frame.with_columns(_parse_times(file, frame, parser, num_frame_rows))
        num_frame_rows += len(frame)
        frame = _drop_bad_rows(file, frame, bad_rows, earliest)
        num_used += _num_lines(frame["line"].to_numpy())
        num_known = len(encoders["item"].ids)
        for key, encoder in encoders.items():
            if key in frame.columns:
                parts[key].append(encoder.encode(frame[key]))
        parts["time"].append(frame["nanoseconds"].to_numpy())
        if "split" in frame.columns:
            parts["split"].append(frame["split"].to_numpy().astype(np.int32))
        if "title" in frame.columns:
            item_numbers, first = np.unique(parts["item"][-1], return_index=True)
            first = first[item_numbers >= num_known]
            row_titles.update(zip(frame["item"].gather(first), frame["title"].fill_null("").gather(first), strict=True))
    arrays = {key: np.concatenate(parts.pop(key)) for key in list(parts) if parts[key]}
    parser.check(name)
    if not len(arrays.get("item", ())):
        raise ValueError(f"{name}: no readable interaction; {_first_bad_rows(bad_rows)}")
    arrays["time"], nanosecond = np.divmod(arrays["time"], NANOSECONDS)
    counts = {**bad_rows.check(name, before, num_used), "bad_rows": bad_rows.report}
    ids = {key: tuple(encoder.ids) for key, encoder in encoders.items()}
    counts |= {"time_units": dict(parser.units)} | _count_read(arrays, ids)
    return Interactions(
        name=name,
        user=arrays["user"],
        item=arrays["item"],
        time=arrays["time"],
        session=arrays.get("session"),
        user_ids=ids["user"],
        item_ids=ids["item"],
        titles=titles if titles is not None else row_titles or None,
        report={"source": name, **counts, **(report or {})},
        split=arrays.get("split"),
        nanosecond=nanosecond.astype(np.int32) if nanosecond.any() else None,
        has_times=has_times,
        session_ids=ids["session"] if "session" in arrays else None,
        event=arrays.get("event"),
        event_names=ids["event"],
    )


def _num_lines(line: Int64[np.ndarray, " R"]) -> int:
    """Returns the number of rows of a file in a frame: a row that lists several items has as many rows of the frame."""
    return int(np.sum(line[1:] != line[:-1])) + bool(len(line))


def _count_read(arrays: Mapping[str, np.ndarray], ids: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    counts = {
        "interactions_read": len(arrays["item"]),
        "users_read": len(ids["user"]),
        "items_read": len(ids["item"]),
        "first_time": int(arrays["time"].min()),
        "last_time": int(arrays["time"].max()),
    }
    if "event" not in arrays:
        return counts
    per_kind = np.bincount(arrays["event"], minlength=len(ids["event"])).tolist()
    return {**counts, "events_read": dict(zip(ids["event"], per_kind, strict=True))}


def _first_bad_rows(bad_rows: BadRows) -> str:
    if not bad_rows.samples:
        return "it has no rows"
    samples = "; ".join(bad_rows.samples[:2])
    advice = "; --time-format names the form of times" if bad_rows.counts["no readable time"] else ""
    return f"the first bad rows are {samples}{advice}"


def _with_user_column(frame: "pl.DataFrame") -> "pl.DataFrame":
    import polars as pl

    if "user" in frame.columns:
        return frame
    return frame.with_columns(user=pl.col("session"))


def _drop_bad_rows(file: str, frame: "pl.DataFrame", bad_rows: BadRows, earliest: int | None) -> "pl.DataFrame":
    import polars as pl

    good = pl.lit(True)
    has_lists = _num_lines(frame["line"].to_numpy()) < len(frame)
    keys = [key for key in ("user", "item", "session", "event") if key in frame.columns]
    in_range = pl.col("nanoseconds").is_between((earliest or 0) * NANOSECONDS, LATEST_TIME * NANOSECONDS)
    reasons = [(f"no {key}", pl.col(key).is_null() | pl.col(key).is_in(MISSING_IDS)) for key in keys]
    reasons += [
        ("no readable time", pl.col("nanoseconds").is_null()),
        ("a date, not a number since 1970", pl.col("is_date")),
        ("time out of range", ~in_range.fill_null(True)),
    ]
    for reason, bad in reasons:
        matches = frame.filter(good & bad)
        if has_lists:
            matches = matches.unique("line", keep="first", maintain_order=True)
            bad = pl.col("line").is_in(matches["line"].implode())
        samples = matches.head(_NUM_SAMPLES)
        rows = samples.drop("line", "nanoseconds", "is_date").rows()
        texts = [", ".join("" if value is None else str(value) for value in row) for row in rows]
        bad_rows.add(file, reason, zip(samples["line"], texts, strict=True), total=len(matches))
        good = good & ~bad
    return frame.filter(good)


def _parse_times(file: str, frame: "pl.DataFrame", parser: TimeParser, num_rows: int) -> "list[pl.Series]":
    """Returns the columns ``nanoseconds`` since 1970 and ``is_date``."""
    import polars as pl

    if "time" not in frame.columns:
        milliseconds = np.arange(num_rows, num_rows + len(frame), dtype=np.int64)
        return [pl.Series("nanoseconds", milliseconds * NANOSECONDS), pl.Series("is_date", np.zeros(len(frame), bool))]
    try:
        return parser.parse(frame["time"]).get_columns()
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
