"""Interactions of users with items at times: the form into which every raw file is read before sessions are made."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int32, Int64

from alkd_jax.data.text.bad_rows import BadRows

if TYPE_CHECKING:
    import polars as pl

_MIN_MILLISECONDS, _MIN_MICROSECONDS, _MIN_NANOSECONDS = 1e11, 1e14, 1e17
EARLIEST_TIME = 788_918_400_000
"""1995-01-01 in milliseconds: no public recommendation dataset with calendar times is older."""
_LATEST_TIME = 4_102_444_800_000  # 2100-01-01


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

    def __len__(self) -> int:
        """Returns the number of interactions E."""
        return len(self.item)


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
    report: Mapping[str, Any] | None = None,
) -> Interactions:
    """Numbers users and items and parses times, frame by frame.

    Args:
        name: name of the dataset in reports.
        frames: pairs of a file name and a polars frame with string columns ``item``, ``user`` or ``session`` or both,
            ``time`` (numbers since 1970 or ISO 8601; the row number where the column is missing) and ``line``;
            optionally ``title`` and ``split`` ("0", "1" or "2").
        bad_rows: counts the rows without a user, an item or a readable time.
        titles: item identifier → title, if the titles come from another file.
        earliest: smallest time accepted, in milliseconds since 1970; None where times may be relative.
        report: further counts for the report.

    Returns:
        All good rows. The unit of each time follows from its size: seconds below 10¹¹, milliseconds below 10¹⁴,
        microseconds below 10¹⁷, else nanoseconds.

    Raises:
        ValueError: no row is left.
    """
    import polars as pl

    users, items, sessions = _IdEncoder(), _IdEncoder(), _IdEncoder()
    parts: dict[str, list[np.ndarray]] = {key: [] for key in ("user", "item", "time", "session", "split")}
    units: dict[str, int] = {}
    row_titles: dict[str, str] = {}
    num_rows, num_bad_before = 0, bad_rows.counts.total()
    for file, frame in frames:
        frame = _with_user_column(frame)
        frame = frame.with_columns(_parse_times(frame, units, num_rows))
        num_rows += len(frame)
        frame = _drop_bad_rows(file, frame, bad_rows, earliest)
        num_known = len(items.ids)
        item = items.encode(frame["item"])
        parts["user"].append(users.encode(frame["user"]))
        parts["item"].append(item)
        parts["time"].append(frame["time"].to_numpy())
        if "session" in frame.columns:
            parts["session"].append(sessions.encode(frame["session"]))
        if "split" in frame.columns:
            parts["split"].append(frame["split"].cast(pl.Int32).to_numpy())
        if "title" in frame.columns:
            item_numbers, first = np.unique(item, return_index=True)
            first = first[item_numbers >= num_known]
            row_titles.update(zip(frame["item"].gather(first), frame["title"].fill_null("").gather(first), strict=True))
    arrays = {key: np.concatenate(parts.pop(key)) for key in list(parts) if parts[key]}
    if not len(arrays.get("item", ())):
        raise ValueError(f"{name}: no readable interaction; the first bad rows are {bad_rows.samples[:2]}")
    counts = {
        "rows_read": len(arrays["item"]) + bad_rows.counts.total() - num_bad_before,
        "bad_rows": bad_rows.report,
        "time_units": units,
    }
    counts |= _count_read(arrays, users.ids, items.ids)
    return Interactions(
        name=name,
        user=arrays["user"],
        item=arrays["item"],
        time=arrays["time"],
        session=arrays.get("session"),
        user_ids=tuple(users.ids),
        item_ids=tuple(items.ids),
        titles=titles if titles is not None else row_titles or None,
        report={"source": name, **counts, **(report or {})},
        split=arrays.get("split"),
    )


def _count_read(arrays: Mapping[str, np.ndarray], users: list[str], items: list[str]) -> dict[str, Any]:
    return {
        "interactions_read": len(arrays["item"]),
        "users_read": len(users),
        "items_read": len(items),
        "first_time": int(arrays["time"].min()),
        "last_time": int(arrays["time"].max()),
    }


def _with_user_column(frame: "pl.DataFrame") -> "pl.DataFrame":
    import polars as pl

    if "user" in frame.columns:
        return frame
    return frame.with_columns(user=pl.col("session"))


def _drop_bad_rows(file: str, frame: "pl.DataFrame", bad_rows: BadRows, earliest: int | None) -> "pl.DataFrame":
    import polars as pl

    good = pl.lit(True)
    keys = [key for key in ("user", "item", "session") if key in frame.columns]
    earliest_time = 0 if earliest is None else earliest
    reasons = [(f"no {key}", pl.col(key).is_null() | (pl.col(key) == "")) for key in keys]
    reasons += [
        ("no readable time", pl.col("time").is_null()),
        ("time out of range", ~pl.col("time").is_between(earliest_time, _LATEST_TIME).fill_null(True)),
    ]
    for reason, bad in reasons:
        if (matches := frame.filter(good & bad)).height:
            texts = matches.drop("line").rows() if matches.height < 10_000 else [()] * matches.height
            bad_rows.add(file, reason, zip(matches["line"], texts, strict=True))
        good = good & ~bad
    return frame.filter(good)


def _parse_times(frame: "pl.DataFrame", units: dict[str, int], rows: int) -> "pl.Series":
    """Returns milliseconds since 1970, null where a time cannot be read, and counts the units in ``units``."""
    import polars as pl

    if "time" not in frame.columns:
        return pl.Series("time", np.arange(rows, rows + len(frame), dtype=np.int64))
    text = frame["time"]
    if text.dtype.is_temporal():
        units["ISO 8601"] = units.get("ISO 8601", 0) + len(frame)
        return text.cast(pl.Datetime("ms")).cast(pl.Int64).alias("time")
    number = text.str.strip_chars().cast(pl.Float64, strict=False) if text.dtype == pl.String else text.cast(pl.Float64)
    value = number.to_numpy()
    size = np.abs(np.nan_to_num(value, nan=-1, posinf=-1, neginf=-1))
    scale = np.ones(len(value))
    known = np.isfinite(value) & (size < 1e20)
    lower = 0.0
    for unit, upper, factor in (
        ("seconds", _MIN_MILLISECONDS, 1e3),
        ("milliseconds", _MIN_MICROSECONDS, 1.0),
        ("microseconds", _MIN_NANOSECONDS, 1e-3),
        ("nanoseconds", 1e20, 1e-6),
    ):
        in_unit = known & (size >= lower) & (size < upper)
        scale[in_unit], lower = factor, upper
        if in_unit.any():
            units[unit] = units.get(unit, 0) + int(in_unit.sum())
    milliseconds = np.round(np.where(known, value, 0) * scale).astype(np.int64)
    columns = pl.DataFrame({"time": milliseconds, "known": known})
    result = columns.select(pl.when("known").then("time").alias("time")).to_series()
    if known.all() or text.dtype != pl.String:
        return result
    calendar = _parse_iso8601(text)
    units["ISO 8601"] = units.get("ISO 8601", 0) + len(calendar) - calendar.null_count()
    return pl.select(pl.coalesce(result, calendar)).to_series().alias("time")


def _parse_iso8601(text: "pl.Series") -> "pl.Series":
    """Parses ISO 8601 dates and times to milliseconds since 1970; a time without a zone is in UTC."""
    import polars as pl

    normalized = text.str.strip_chars().str.replace(r"(\d)[Tt ](\d)", "${1} ${2}").str.replace(r"\s?([Zz]|UTC)$", "")
    normalized = normalized.str.replace(r"^(\d{4}-\d{2}-\d{2})$", "${1} 00:00:00")
    normalized = normalized.str.replace(r"^([^.+]* \d\d:\d\d)$", "${1}:00")
    zoned = normalized.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%:z", strict=False, time_unit="ms", time_zone="UTC")
    local = normalized.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", strict=False, time_unit="ms")
    return pl.select(pl.coalesce(zoned.cast(pl.Int64), local.cast(pl.Int64))).to_series()
