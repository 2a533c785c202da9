"""Who touched what when: the one form that every raw file becomes before sessions are made of it."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int32, Int64

from alkd_jax.data.text.bad_rows import BadRows

if TYPE_CHECKING:
    import polars as pl

_FIRST_MILLISECONDS, _FIRST_MICROSECONDS, _FIRST_NANOSECONDS = 1e11, 1e14, 1e17
EARLIEST = 788_918_400_000
"""1995-01-01 in milliseconds: no data set of the field with calendar times is older."""
_LATEST = 4_102_444_800_000  # 2100-01-01


@dataclasses.dataclass(frozen=True)
class Interactions:
    """E interactions in the order of the file.

    Attributes:
        name: what reports call them.
        user: ``[E]`` position in ``user_ids``.
        item: ``[E]`` position in ``item_ids``.
        time: ``[E]`` milliseconds since 1970 in UTC.
        session: ``[E]`` number of the session that the file gives, or None.
        user_ids: identifiers of the source, in order of first appearance.
        item_ids: identifiers of the source, in order of first appearance.
        titles: item identifier → title, in the order of the titles' file; None where the source has no titles.
        split: ``[E]`` 0 training, 1 validation, 2 test where the source is split already, or None.
        report: counts of what was read; plain JSON values.
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


class _Codes:
    """Numbers strings in order of first appearance."""

    def __init__(self) -> None:
        import polars as pl

        self.kind = pl.Categorical(pl.Categories.random())
        # polars forgets its numbers with the last series that uses them
        self.alive = pl.Series([], dtype=self.kind)
        self.ids: list[str] = []

    def encode(self, values: "pl.Series") -> Int32[np.ndarray, " R"]:
        """The numbers of some strings; new ones are added."""
        codes = values.cast(self.kind).to_physical().to_numpy().astype(np.int32)
        new = np.flatnonzero(codes >= len(self.ids))
        fresh, where = np.unique(codes[new], return_index=True)
        if fresh.size and not np.array_equal(fresh, np.arange(len(self.ids), len(self.ids) + fresh.size)):
            raise RuntimeError("polars numbers categories in an unknown order; expected that of first appearance")
        self.ids.extend(values.gather(new[where]).to_list())
        for place in (0, len(codes) // 2, len(codes) - 1):
            if len(codes) and self.ids[codes[place]] != values[place]:
                raise RuntimeError("polars gave one number to two categories; expected one number each")
        return codes


def gather(
    name: str,
    frames: Iterable[tuple[str, Any]],
    bad_rows: BadRows,
    *,
    titles: Mapping[str, str] | None = None,
    earliest: int | None = None,
    report: Mapping[str, Any] | None = None,
) -> Interactions:
    """Number users and items and read times, a frame at a time.

    Args:
        name: what reports call them.
        frames: file name and polars frame with string columns ``item``, ``user`` or ``session`` or both, ``time``
            (numbers since 1970 or ISO 8601; the row number where the column is missing) and ``line``; ``title`` where
            the rows say it, ``split`` ("0", "1" or "2") where they are split.
        bad_rows: told of rows without user, item or readable time.
        titles: item identifier → title, where they come from another file.
        earliest: milliseconds since 1970 before which a time is a fault; None where times may be relative.
        report: what else was counted.

    Returns:
        All good rows. Times are seconds below 10¹¹, then milliseconds, microseconds, nanoseconds, value by value.

    Raises:
        ValueError: no row is left.
    """
    import polars as pl

    users, items, sessions = _Codes(), _Codes(), _Codes()
    parts: dict[str, list[np.ndarray]] = {key: [] for key in ("user", "item", "time", "session", "split")}
    units: dict[str, int] = {}
    heard: dict[str, str] = {}
    rows, faults_before = 0, bad_rows.counts.total()
    for file, frame in frames:
        frame = _with_user(frame)
        frame = frame.with_columns(_time(frame, units, rows))
        rows += len(frame)
        frame = _good_rows(file, frame, bad_rows, earliest)
        known = len(items.ids)
        item = items.encode(frame["item"])
        parts["user"].append(users.encode(frame["user"]))
        parts["item"].append(item)
        parts["time"].append(frame["time"].to_numpy())
        if "session" in frame.columns:
            parts["session"].append(sessions.encode(frame["session"]))
        if "split" in frame.columns:
            parts["split"].append(frame["split"].cast(pl.Int32).to_numpy())
        if "title" in frame.columns:
            fresh, first = np.unique(item, return_index=True)
            first = first[fresh >= known]
            heard.update(zip(frame["item"].gather(first), frame["title"].fill_null("").gather(first), strict=True))
    arrays = {key: np.concatenate(parts.pop(key)) for key in list(parts) if parts[key]}
    if not len(arrays.get("item", ())):
        raise ValueError(f"{name}: no readable interaction; the first faults: {bad_rows.samples[:2]}")
    told = {
        "rows_read": len(arrays["item"]) + bad_rows.counts.total() - faults_before,
        "bad_rows": bad_rows.report,
        "time_units": units,
    }
    told |= _told(arrays, users.ids, items.ids)
    return Interactions(
        name=name,
        user=arrays["user"],
        item=arrays["item"],
        time=arrays["time"],
        session=arrays.get("session"),
        user_ids=tuple(users.ids),
        item_ids=tuple(items.ids),
        titles=titles if titles is not None else heard or None,
        report={"source": name, **told, **(report or {})},
        split=arrays.get("split"),
    )


def _told(arrays: Mapping[str, np.ndarray], users: list[str], items: list[str]) -> dict[str, Any]:
    return {
        "interactions_read": len(arrays["item"]),
        "users_read": len(users),
        "items_read": len(items),
        "first_time": int(arrays["time"].min()),
        "last_time": int(arrays["time"].max()),
    }


def _with_user(frame: "pl.DataFrame") -> "pl.DataFrame":
    import polars as pl

    if "user" in frame.columns:
        return frame
    return frame.with_columns(user=pl.col("session"))


def _good_rows(file: str, frame: "pl.DataFrame", bad_rows: BadRows, earliest: int | None) -> "pl.DataFrame":
    import polars as pl

    left = pl.lit(True)
    keys = [key for key in ("user", "item", "session") if key in frame.columns]
    low = 0 if earliest is None else earliest
    reasons = [(f"no {key}", pl.col(key).is_null() | (pl.col(key) == "")) for key in keys]
    reasons += [
        ("no readable time", pl.col("time").is_null()),
        ("time out of range", ~pl.col("time").is_between(low, _LATEST).fill_null(True)),
    ]
    for reason, bad in reasons:
        if (found := frame.filter(left & bad)).height:
            texts = found.drop("line").rows() if found.height < 10_000 else [()] * found.height
            bad_rows.add(file, reason, zip(found["line"], texts, strict=True))
        left = left & ~bad
    return frame.filter(left)


def _time(frame: "pl.DataFrame", units: dict[str, int], rows: int) -> "pl.Series":
    """Milliseconds since 1970, null where they cannot be read; counts the units met."""
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
    last = 0.0
    for unit, first, factor in (
        ("seconds", _FIRST_MILLISECONDS, 1e3),
        ("milliseconds", _FIRST_MICROSECONDS, 1.0),
        ("microseconds", _FIRST_NANOSECONDS, 1e-3),
        ("nanoseconds", 1e20, 1e-6),
    ):
        here = known & (size >= last) & (size < first)
        scale[here], last = factor, first
        if here.any():
            units[unit] = units.get(unit, 0) + int(here.sum())
    milliseconds = np.round(np.where(known, value, 0) * scale).astype(np.int64)
    both = pl.DataFrame({"time": milliseconds, "known": known})
    result = both.select(pl.when("known").then("time").alias("time")).to_series()
    if known.all() or text.dtype != pl.String:
        return result
    calendar = _calendar(text)
    units["ISO 8601"] = units.get("ISO 8601", 0) + len(calendar) - calendar.null_count()
    return pl.select(pl.coalesce(result, calendar)).to_series().alias("time")


def _calendar(text: "pl.Series") -> "pl.Series":
    """ISO 8601 dates and times, UTC where no zone is said."""
    import polars as pl

    plain = text.str.strip_chars().str.replace(r"(\d)[Tt ](\d)", "${1} ${2}").str.replace(r"\s?([Zz]|UTC)$", "")
    plain = plain.str.replace(r"^(\d{4}-\d{2}-\d{2})$", "${1} 00:00:00").str.replace(r"^([^.+]* \d\d:\d\d)$", "${1}:00")
    zoned = plain.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%:z", strict=False, time_unit="ms", time_zone="UTC")
    local = plain.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", strict=False, time_unit="ms")
    return pl.select(pl.coalesce(zoned.cast(pl.Int64), local.cast(pl.Int64))).to_series()
