"""Times of interactions, read from numbers, text or calendar columns at the resolution given, and their local days."""

import collections
import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int64

from alkd_jax.errors import shown

if TYPE_CHECKING:
    import polars as pl

EARLIEST_TIME = 788_918_400_000
"""1995-01-01 in milliseconds: no public recommendation dataset with calendar times is older."""
LATEST_TIME = 4_102_444_800_000
"""2100-01-01 in milliseconds."""
_DAY = 86_400_000
NANOSECONDS = 1_000_000
"""In a millisecond."""

_UNITS = {
    "s": ("seconds", 10**9),
    "ms": ("milliseconds", 10**6),
    "us": ("microseconds", 10**3),
    "ns": ("nanoseconds", 1),
}
_LIMITS = (10**11, 10**14, 10**17)
_CALENDAR = "ISO 8601"


@dataclasses.dataclass
class TimeParser:
    """Parses the times of a source, frame by frame.

    Attributes:
        form: "s", "ms", "us" or "ns" since 1970, or a format such as ``%Y%m%d``; None for ISO 8601 and for numbers
            whose unit follows from their size: seconds below 10¹¹, milliseconds below 10¹⁴, microseconds below 10¹⁷,
            else nanoseconds.
        units: unit or form → number of times.
        num_numbers: number of times that are numbers whose unit follows from their size.
        num_dates: those among them whose digits are a date, such as 20160509.
    """

    form: str | None = None
    units: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    num_numbers: int = 0
    num_dates: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError if the form is neither a unit nor a format."""
        if self.form is not None and self.form not in _UNITS and "%" not in self.form:
            raise ValueError(f"time_format is {shown(self.form)}; expected s, ms, us, ns or a format such as %Y%m%d")

    def parse(self, times: "pl.Series") -> "pl.DataFrame":
        """Parses times.

        Args:
            times: numbers, texts, or dates with or without a time of day.

        Returns:
            ``nanoseconds`` since 1970, null where a time cannot be read; a time that is far out of range becomes
            one just out of range. ``is_date`` marks numbers that are dates while the others are times since 1970.

        Raises:
            ValueError: the format is not valid, or the column has another type.
        """
        import polars as pl

        if times.dtype.is_temporal():
            return _without_dates(self._parse_calendar(times))
        if not (times.dtype.is_numeric() or times.dtype in (pl.String, pl.Null)):
            raise ValueError(f"the type of the time column is {times.dtype}; expected numbers, text or dates")
        if self.form is not None and self.form not in _UNITS:
            return _without_dates(self._parse_format(times, self.form))
        text = times.cast(pl.String).str.strip_chars()
        value, nanoseconds, known = self._parse_numbers(text)
        is_date = known & _are_dates(value) if self.form is None else np.zeros(len(value), bool)
        self.num_numbers += int(known.sum())
        self.num_dates += int(is_date.sum())
        is_date &= ~_are_among(nanoseconds, nanoseconds[known & ~is_date])
        parsed = pl.DataFrame({"nanoseconds": nanoseconds, "known": known, "is_date": is_date})
        time = parsed.select(pl.when("known").then("nanoseconds").alias("nanoseconds")).to_series()
        if self.form is None and not known.all():
            calendar = _parse_iso8601(text)
            self.units[_CALENDAR] += len(calendar) - calendar.null_count()
            time = pl.select(pl.coalesce(time, calendar).alias("nanoseconds")).to_series()
        return parsed.select(time, "is_date")

    def check(self, source: str) -> None:
        """Raises ValueError if all numbers are dates, which would be times in 1970.

        Args:
            source: name of the source in the error.
        """
        if self.num_dates and self.num_dates == self.num_numbers:
            raise ValueError(
                f"{source}: the digits of every time are a date, such as 20160509; expected numbers since 1970, or the "
                "form of the dates (--time-format %Y%m%d), or the unit of the numbers (--time-format s)"
            )

    def _parse_calendar(self, times: "pl.Series") -> "pl.Series":
        import polars as pl

        if times.dtype not in (pl.Datetime, pl.Date):
            raise ValueError(f"the type of the time column is {times.dtype}; expected a date with a time of day")
        self.units[_CALENDAR] += len(times) - times.null_count()
        unit = times.dtype.time_unit if isinstance(times.dtype, pl.Datetime) and times.dtype.time_unit else "ms"
        number = times.cast(pl.Datetime("ms")) if times.dtype == pl.Date else times
        return _to_nanoseconds(number.to_physical(), _UNITS[unit][1])

    def _parse_format(self, times: "pl.Series", form: str) -> "pl.Series":
        import polars as pl

        # A column of whole numbers with a missing one is often stored as floats.
        text = (times.cast(pl.Int64, strict=False) if times.dtype.is_float() else times).cast(pl.String)
        zone = "UTC" if any(directive in form for directive in ("%z", "%:z", "%#z", "%+")) else None
        try:
            parsed = text.str.strip_chars().str.to_datetime(form, strict=False, time_unit="us", time_zone=zone)
        except pl.exceptions.PolarsError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"time_format is {shown(form)} ({reason}); expected a format such as %Y%m%d") from error
        self.units[form] += len(parsed) - parsed.null_count()
        return _to_nanoseconds(parsed.to_physical(), 1000)

    def _parse_numbers(
        self, text: "pl.Series"
    ) -> tuple[Int64[np.ndarray, " R"], Int64[np.ndarray, " R"], Bool[np.ndarray, " R"]]:
        """Returns whole numbers, −1 for those with a fraction; nanoseconds; and which texts are numbers."""
        import polars as pl

        whole = text.cast(pl.Int64, strict=False)
        fraction = np.zeros(len(text), np.int64)
        if whole.null_count():
            parts = text.str.extract_groups(r"^\+?(\d{1,18})\.(\d{1,9})\d*$").struct.unnest().to_series
            fraction = parts(1).str.pad_end(9, "0").cast(pl.Int64).fill_null(0).to_numpy()
            whole = pl.select(pl.coalesce(whole, parts(0).cast(pl.Int64))).to_series()
        known = whole.is_not_null().to_numpy()
        value = whole.fill_null(0).to_numpy()
        unit = self._unit_of(np.abs(value), known)
        nanoseconds = _scaled(value, unit) + fraction * unit // 10**9
        value = np.where(fraction > 0, -1, value)
        if not known.all():
            number = text.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
            is_float = ~known & np.isfinite(number) & (np.abs(np.nan_to_num(number)) < 1e18)
            rounded = np.round(np.where(is_float, number, 0))
            unit = self._unit_of(np.abs(rounded), is_float)
            # A double holds present times in seconds to less than a microsecond.
            microseconds = np.round(
                np.clip(np.where(is_float, number, 0) * (unit / 1000), -1, 1000 * (LATEST_TIME + 1))
            )
            nanoseconds = np.where(is_float, microseconds.astype(np.int64) * 1000, nanoseconds)
            without_fraction = np.where(number == rounded, rounded, -1).astype(np.int64)
            value, known = np.where(is_float, without_fraction, value), known | is_float
        return value, nanoseconds, known

    def _unit_of(self, size: np.ndarray, known: Bool[np.ndarray, " R"]) -> Int64[np.ndarray, " R"]:
        """Returns the nanoseconds in the unit of each number, and counts the units of the known ones."""
        if self.form is None:
            number = np.searchsorted(_LIMITS, size, side="right")
        else:
            number = np.full(len(size), list(_UNITS).index(self.form))
        counts = np.bincount(number[known], minlength=len(_UNITS))
        for (name, _), count in zip(_UNITS.values(), counts.tolist(), strict=True):
            if count:
                self.units[name] += count
        return np.array([nanoseconds for _, nanoseconds in _UNITS.values()])[number]


def _scaled(value: Int64[np.ndarray, " R"], unit: Int64[np.ndarray, " R"]) -> Int64[np.ndarray, " R"]:
    """Multiplies by nanoseconds; numbers far out of range become numbers just out of range, so that none overflows."""
    return np.clip(value, -1, (LATEST_TIME + 1) * NANOSECONDS // unit) * unit


def _to_nanoseconds(number: "pl.Series", unit: int) -> "pl.Series":
    return (number.clip(-1, (LATEST_TIME + 1) * NANOSECONDS // unit) * unit).alias("nanoseconds")


def _without_dates(time: "pl.Series") -> "pl.DataFrame":
    import polars as pl

    return time.to_frame().with_columns(is_date=pl.lit(False))


def _are_dates(value: Int64[np.ndarray, " R"]) -> Bool[np.ndarray, " R"]:
    """Whether the digits of numbers are YYYYMMDD, alone or before hh, hhmm or hhmmss."""
    result = np.zeros(len(value), bool)
    for scale in (1, 100, 10**4, 10**6):
        candidates = np.flatnonzero((value >= 19000101 * scale) & (value < 21000101 * scale))
        if not candidates.size:
            continue
        date, clock = np.divmod(value[candidates], scale)
        month, day = date // 100 % 100, date % 100
        is_valid = (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
        while scale > 1:
            scale //= 100
            is_valid &= clock // scale % 100 < 60
        result[candidates[is_valid]] = True
    return result


def _are_among(
    nanoseconds: Int64[np.ndarray, " R"], others: Int64[np.ndarray, " O"]
) -> Bool[np.ndarray, " R"] | np.bool_:
    """Whether times that could be dates are times since 1970 like the others, within a tenth of the others' span.

    They are where there are no others, or where most others lie before the first plausible time.
    """
    if not others.size or np.median(others) < EARLIEST_TIME * NANOSECONDS:
        return np.True_
    first, last = others.min(), others.max()
    margin = (last - first) // 10
    return (nanoseconds >= first - margin) & (nanoseconds <= last + margin)


def _parse_iso8601(text: "pl.Series") -> "pl.Series":
    """Parses ISO 8601 dates and times to nanoseconds since 1970; a time without a zone is in UTC."""
    import polars as pl

    normalized = text.str.replace(r"(\d)[Tt ](\d)", "${1} ${2}").str.replace(r"\s?([Zz]|UTC)$", "")
    normalized = normalized.str.replace(r"^(\d{4}-\d{2}-\d{2})$", "${1} 00:00:00")
    normalized = normalized.str.replace(r"^(\S+ \d\d:\d\d)($|[-+ ])", "${1}:00${2}")
    zoned = normalized.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%#z", strict=False, time_unit="us", time_zone="UTC")
    local = normalized.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", strict=False, time_unit="us")
    microseconds = pl.select(pl.coalesce(zoned.to_physical(), local.to_physical())).to_series()
    finer = normalized.str.extract(r"\.\d{6}(\d{1,3})").str.pad_end(3, "0").cast(pl.Int64).fill_null(0)
    return _to_nanoseconds(microseconds, 1000) + finer


def local_day(time: Int64[np.ndarray, " R"], time_zone: str) -> Int64[np.ndarray, " R"]:
    """Returns the calendar day in a time zone.

    Args:
        time: ``[R]`` milliseconds since 1970 in UTC.
        time_zone: IANA time zone; daylight saving time is applied.

    Returns:
        ``[R]`` days since 1970-01-01 in local time.

    Raises:
        ValueError: the time zone is unknown, or its days depend on the machine, such as "localtime".
    """
    if time_zone == "UTC":
        return time // _DAY
    import polars as pl

    try:
        if not time_zone:
            raise ValueError("polars takes an empty name for UTC")
        # Polars has a table of time zones of its own, so that the days are the same on every machine.
        local = pl.Series(time).cast(pl.Datetime("ms", "UTC")).dt.convert_time_zone(time_zone)
    except (pl.exceptions.PolarsError, ValueError) as error:
        raise ValueError(f"time_zone is {shown(time_zone)}; expected a name such as Europe/Madrid") from error
    return local.dt.date().to_physical().to_numpy().astype(np.int64)


def parse_time(name: str, text: str) -> int:
    """Returns a time in milliseconds since 1970 in UTC.

    Args:
        name: of the option, for the error.
        text: ISO 8601 date or time, in UTC where it names no zone, such as 2014-09-30 or 2014-09-30T12:00:00.

    Raises:
        ValueError: the text is no time.
    """
    import polars as pl

    nanoseconds = _parse_iso8601(pl.Series([text]))[0]
    if nanoseconds is None:
        raise ValueError(
            f"{name} is {shown(text)}; expected an ISO 8601 time such as 2014-09-30 or 2014-09-30T12:00:00"
        )
    return int(nanoseconds // NANOSECONDS)


def format_time(milliseconds: int) -> str:
    """Returns a time in milliseconds since 1970 as a text to the minute, in UTC."""
    return str(np.datetime64(milliseconds, "ms").astype("datetime64[m]")).replace("T", " ") + " UTC"
