"""Times of any unit, form and resolution."""

import datetime

import numpy as np
import polars as pl
import pytest

from alkd_jax.data.interactions import build_interactions
from alkd_jax.data.session_rules import SessionRules
from alkd_jax.data.sessionize import sessionize
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.times import TimeParser

SECOND = 10**9
START = 1_400_000_000


def parse(*values, form=None, dtype=None):
    return TimeParser(form).parse(pl.Series(values, dtype=dtype, strict=False))["nanoseconds"].to_list()


@pytest.mark.parametrize(("factor", "step"), [(1, SECOND), (10**3, 10**6), (10**6, 10**3), (10**9, 1)])
@pytest.mark.parametrize("dtype", [pl.String, pl.Int64])
def test_the_unit_follows_from_the_size_and_nothing_is_rounded(factor, step, dtype):
    values = [START * factor, START * factor + 1]
    assert parse(*map(str, values) if dtype == pl.String else values, dtype=dtype) == [
        START * SECOND,
        START * SECOND + step,
    ]


def test_decimals_are_read_to_the_nanosecond_and_doubles_to_the_microsecond():
    assert parse(f"{START}.123456789", f"{START}.1", f" {START}. ", "1.4e9") == [
        START * SECOND + 123_456_789,
        START * SECOND + 100_000_000,
        START * SECOND,
        START * SECOND,
    ]
    assert parse(START + 0.1234, dtype=pl.Float64) == [START * SECOND + 123_400_000]


def test_calendar_texts_with_and_without_zones():
    noon = int(datetime.datetime(2014, 4, 7, 12, tzinfo=datetime.UTC).timestamp()) * SECOND
    texts = ["2014-04-07 14:00:00+02", "2014-04-07T12:00Z", "2014-04-07 12:00:00 UTC", "2014-04-07 08:30:00-0330"]
    assert parse(*texts, "2014-04-07 17:45+05:45", "2014-04-07 12:00:00.000000001") == [noon] * 5 + [noon + 1]
    assert parse("7 April", "", "2014-13-01", "nan", "inf", None) == [None] * 6


def test_times_far_out_of_range_stay_out_of_range():
    late = [9 * 10**18, 10**17 - 1, "9999-12-31 00:00:00", "9e16"]
    early = [-1, -(2**63), "0001-01-01 00:00:00", "-1e17"]
    assert all(time > 4_102_444_800 * SECOND for time in parse(*map(str, late)))
    assert all(time < 0 for time in parse(*map(str, early)))


@pytest.mark.parametrize("number", [20160509, 2016050910, 201605091055, 20160509105530])
def test_numbers_whose_digits_are_a_date_are_refused_with_a_hint(number):
    frame = pl.DataFrame(
        {"user": ["u"] * 2, "item": ["a", "b"], "time": [str(number), str(number + 1)], "line": [1, 2]}
    )
    with pytest.raises(ValueError, match=r"digits of every time are a date.*--time-format %Y%m%d"):
        build_interactions("x", [("f", frame)], BadRows())
    assert len(build_interactions("x", [("f", frame)], BadRows(), time_format="s")) == 2 if number < 10**9 else True


def test_a_date_among_other_numbers_is_a_bad_row():
    times = ["20160509", *(str(START + n) for n in range(5))]
    frame = pl.DataFrame({"user": ["u"] * 6, "item": ["a"] * 6, "time": times, "line": range(6)})
    bad_rows = BadRows()
    assert len(build_interactions("x", [("f", frame)], bad_rows)) == 5
    assert bad_rows.counts == {"a date, not a number since 1970": 1}
    relative = frame.with_columns(time=pl.Series([f"{20_000_000 + 37 * n}" for n in range(6)]))
    assert len(build_interactions("x", [("f", relative)], BadRows())) == 6


@pytest.mark.parametrize(
    "times",
    [["1400000000", "1483287314", "1983011200", "2066298514"], ["1500000000.5", "1983011200.006"]],
    ids=["between others", "with a fraction"],
)
def test_times_whose_digits_happen_to_be_a_date_are_times(times):
    num = len(times)
    frame = pl.DataFrame({"user": ["u"] * num, "item": ["a"] * num, "time": times, "line": range(num)})
    bad_rows = BadRows()
    found = build_interactions("x", [("f", frame)], bad_rows)
    assert found.time.tolist() == [round(1000 * float(time)) for time in times]
    assert not bad_rows.counts


@pytest.mark.parametrize(
    ("form", "values"),
    [("%Y%m%d", [20160509, "20160509", 20160509.0]), ("%d.%m.%Y %H:%M", ["09.05.2016 00:00"]), ("s", [1462752000])],
)
def test_forms_of_times(form, values):
    for value in values:
        assert parse(value, form=form) == [1_462_752_000 * SECOND]


@pytest.mark.parametrize("form", ["", "sec", "Y-m-d"])
def test_unknown_forms_are_refused(form):
    with pytest.raises(ValueError, match=r"time_format is .*; expected s, ms, us, ns or a format"):
        TimeParser(form)


@pytest.mark.parametrize("kind", [pl.Time, pl.Duration("us"), pl.List(pl.Int64), pl.Boolean, pl.Binary])
def test_columns_that_are_no_times_are_named(kind):
    with pytest.raises(ValueError, match="type of the time column is"):
        TimeParser().parse(pl.Series([None], dtype=kind))


@pytest.mark.parametrize("step", [100, 100_000])
def test_order_within_a_millisecond_is_kept(step):
    items = [f"i{n}" for n in range(8)]
    times = [str(START * SECOND + step * n) for n in range(8)]
    order = np.random.default_rng(0).permutation(8)
    columns = {"user": ["u"] * 8, "item": [items[n] for n in order], "time": [times[n] for n in order]}
    log = build_interactions("x", [("f", pl.DataFrame({**columns, "line": range(8)}))], BadRows())
    sessions = sessionize(log, SessionRules())
    assert [log.item_ids[item] for item in sessions.item] == items
    assert sessions.report["tied_interactions"] == 0
    assert log.time.tolist() == [START * 1000] * 8
