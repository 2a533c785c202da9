"""Damaged files: every row is used or counted, and mutated bytes give rows, counts or one line, never a traceback."""

import csv
import functools
import io
import json

import numpy as np
import polars as pl
import pytest

import alkd_jax as alkd
from alkd_jax.data.interactions import MISSING_IDS
from alkd_jax.errors import explain
from tests.helpers.damaged_files import ROWS, TITLES, mutate, pairs, separated

HEADER = ("user", "item", "time")


def json_lines(keys):
    return "".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in ROWS).encode()


def to_parquet(columns):
    buffer = io.BytesIO()
    pl.DataFrame(columns).write_parquet(buffer)
    return buffer.getvalue()


REVIEW = ("reviewerID", "asin", "unixReviewTime")


def in_folder(load, **others):
    """The reader of a folder, as a function of one of its files; the other files are written first."""

    def load_folder(path, **options):
        for name, content in others.items():
            (path.parent / name).write_bytes(content)
        return load(path.parent, **options)

    return load_folder


USERS, ITEMS, TIMES = zip(*ROWS, strict=True)
DAYS = [f"2014-05-{13 + n % 9}" for n in range(len(ROWS))]
OTTO = [{"session": u, "events": [{"aid": i, "ts": int(t) * 1000, "type": "clicks"}]} for u, i, t in ROWS]
YAMBDA = {"uid": USERS, "item_id": ITEMS, "timestamp": [*range(len(ROWS))], "played_ratio_pct": [60] * len(ROWS)}
MERREC = {"user_id": USERS, "sequence_id": USERS, "session_id": USERS, "product_id": ITEMS, "stime": DAYS}

PLAYS = "userid-timestamp-artid-artname-traid-traname.tsv"
FILES = {
    "a.csv": (alkd.data.load_table, separated(HEADER, ROWS)),
    "quoted.csv": (alkd.data.load_table, separated(HEADER, ROWS, quoting=csv.QUOTE_ALL)),
    "a.tsv": (alkd.data.load_table, separated(HEADER, ROWS, "\t")),
    "a.jsonl": (alkd.data.load_table, json_lines(HEADER)),
    "a.parquet": (alkd.data.load_table, to_parquet(dict(zip(HEADER, zip(*ROWS, strict=True), strict=True)))),
    "g.tsv": (alkd.data.load_gru4rec, separated(("SessionId", "ItemId", "Time"), ROWS, "\t")),
    "r.inter": (
        lambda path, strict=False: alkd.data.load_recbole(path.with_suffix(""), strict=strict),
        separated(("user_id:token", "item_id:token", "timestamp:float"), ROWS, "\t"),
    ),
    "reviews.json": (functools.partial(alkd.data.load_amazon, year=2018), json_lines(REVIEW)),
    "ratings.csv": (
        in_folder(alkd.data.load_movielens, **{"movies.csv": separated(("movieId", "title"), TITLES)}),
        separated(("userId", "movieId", "rating", "timestamp"), [(u, i, "5", t) for u, i, t in ROWS]),
    ),
    "ratings.dat": (
        in_folder(alkd.data.load_movielens, **{"movies.dat": b"i0::Toy Story (1995)::Comedy\n"}),
        "".join(f"{user}::{item}::5::{time}\n" for user, item, time in ROWS).encode(),
    ),
    "user_ratedmovies-timestamps.dat": (
        in_folder(alkd.data.load_hetrec, **{"movies.dat": separated(("id", "title"), TITLES, "\t")}),
        separated(("userID", "movieID", "timestamp"), [(u, i, f"{t}000") for u, i, t in ROWS], "\t"),
    ),
    PLAYS: (
        in_folder(alkd.data.load_lastfm),
        separated((), [(u, f"2009-05-04T23:08:{n:02}Z", "", "a", i, "") for n, (u, i, _) in enumerate(ROWS)], "\t")[1:],
    ),
    "clicks.dat": (
        alkd.data.load_yoochoose,
        separated((), [(u, f"2014-04-07T10:51:{n:02}.277Z", i, 0) for n, (u, i, _) in enumerate(ROWS)])[1:],
    ),
    "views.csv": (
        alkd.data.load_diginetica,
        separated(
            ("sessionId", "userId", "itemId", "timeframe", "eventdate"),
            [(u, "NA", i, n, "2016-05-09") for n, (u, i, _) in enumerate(ROWS)],
            ";",
        ),
    ),
    "events.csv": (
        alkd.data.load_retailrocket,
        separated(("timestamp", "visitorid", "event", "itemid"), [(f"{t}000", u, "view", i) for u, i, t in ROWS]),
    ),
    "otto.jsonl": (alkd.data.load_otto, "".join(json.dumps(row) + "\n" for row in OTTO).encode()),
    "listens.parquet": (alkd.data.load_yambda, to_parquet(YAMBDA)),
    "month.parquet": (alkd.data.load_merrec, to_parquet({**MERREC, "event_id": USERS, "name": ITEMS})),
}


def read(folder, name, content, **options):
    (folder / name).write_bytes(content)
    return FILES[name][0](folder / name, **options)


@pytest.mark.parametrize("name", FILES)
def test_a_sound_file_is_read_whole(tmp_path, name):
    """The rows are those that Python's csv, json and polars wrote, not those of a reader of this package."""
    log = read(tmp_path, name, FILES[name][1])
    assert pairs(log) == [row[:2] for row in ROWS]
    assert (log.report["rows_read"], log.report["rows_used"], log.report["bad_rows"]["total"]) == (60, 60, 0)


@pytest.mark.parametrize("missing", MISSING_IDS)
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet"])
def test_a_missing_id_is_a_bad_row(tmp_path, name, missing):
    rows = [("u", missing, "1"), (missing, "i", "2"), ("u", "i", "3")]
    frame = pl.DataFrame(rows, schema=HEADER, orient="row")
    if name.endswith("parquet"):
        frame.write_parquet(tmp_path / name)
    elif name.endswith("jsonl"):
        frame.write_ndjson(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(separated(HEADER, rows, "\t" if name == "a.tsv" else ","))
    log = alkd.data.load_table(tmp_path / name)
    assert (pairs(log), log.report["rows_read"]) == ([("u", "i")], 3)
    assert log.report["bad_rows"]["reasons"] == {"no item": 1, "no user": 1}


@pytest.mark.parametrize("values", [[1.0, float("nan"), 3.0], [1, None, 3]])
def test_numbers_of_parquet_are_ids_and_nan_is_none(tmp_path, values):
    pl.DataFrame({"user": values, "item": values, "time": [1, 2, 3]}).write_parquet(tmp_path / "a.parquet")
    log = alkd.data.load_table(tmp_path / "a.parquet")
    assert (log.user_ids, log.item_ids) == (("1", "3"), ("1", "3"))
    assert log.report["bad_rows"]["reasons"] == {"no user": 1}


@pytest.mark.parametrize(
    "values", [[["a"]], [{"a": 1}], pl.Series([1], dtype=pl.Time), pl.Series([1], dtype=pl.Duration)]
)
def test_columns_of_parquet_that_are_no_ids_are_named(tmp_path, values):
    pl.DataFrame({"user": ["u"], "item": values, "time": [1]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet: the type of the item column is .*; expected numbers or text"):
        alkd.data.load_table(tmp_path / "a.parquet")


def test_bytes_of_parquet_that_are_no_text_are_bad_rows(tmp_path):
    frame = pl.DataFrame({"user": [b"u", b"\xff", b"v"], "item": ["i", "i", "i"], "time": [1, 2, 3]})
    frame.write_parquet(tmp_path / "a.parquet")
    log = alkd.data.load_table(tmp_path / "a.parquet")
    assert log.user_ids == ("u", "v")
    assert log.report["bad_rows"]["reasons"] == {"not in the file's encoding": 1}


def test_recbole_lists_that_are_no_beginnings_are_bad_rows(tmp_path):
    lists = ["1\ta b\tc", "1\ta\tb", "1\tx\ty", "2\td\te", "2\t\td", "3\ta  b\tc", "3\ta\t"]
    header = "session_id:token\titem_id_list:token_seq\titem_id:token"
    (tmp_path / "p.inter").write_text("\n".join([header, *lists]))
    report = alkd.data.load_recbole(tmp_path / "p").report
    assert (report["rows_read"], report["rows_used"], report["rows_of_prefixes"]) == (7, 2, 2)
    wrong = "not the beginning of its session's longest list"
    assert report["bad_rows"]["reasons"] == {"no item": 2, wrong: 1}


def outcome(folder, name, content):
    """The report of what was read, and the line that tells a user why nothing was."""
    try:
        return read(folder, name, content).report, None
    except Exception as error:
        return None, explain(error)


HEADLESS = ("ratings.dat", PLAYS, "clicks.dat")
WITHOUT_QUOTES = (*HEADLESS, "user_ratedmovies-timestamps.dat")


def fuzz(folder, name, seed, cases):
    rng = np.random.default_rng(seed)
    for _ in range(cases):
        content = mutate(rng, FILES[name][1])
        report, line = outcome(folder, name, content)
        if report is None:
            assert line is not None, content
            assert line.isprintable(), content
            continue
        assert report["rows_read"] == report["rows_used"] + report["bad_rows"]["total"], content
        assert report["interactions_read"] == report["rows_used"], content
        if not name.endswith("parquet"):
            lines = [line for line in content.split(b"\n") if line.removesuffix(b"\r")]
            num_lines = len(lines) - (name not in HEADLESS)
            if name in WITHOUT_QUOTES:
                assert report["rows_read"] == num_lines, content
                # Rows that were not damaged are used, whatever is before and after them.
                whole = set(FILES[name][1].splitlines()[name not in HEADLESS :])
                assert report["rows_used"] >= sum(line.removesuffix(b"\r") in whole for line in lines), content
            else:
                # A field of several lines is one row, so that the lines of a file bound its rows.
                assert report["rows_read"] >= num_lines - content.count(b'"') - content.count(b"\r"), content


@pytest.mark.parametrize("name", FILES)
def test_mutated_files_give_rows_counts_or_one_line(tmp_path, name):
    fuzz(tmp_path, name, 0, 40)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("name", FILES)
def test_many_mutated_files_give_rows_counts_or_one_line(tmp_path, name, seed):
    fuzz(tmp_path, name, seed, 2_000)
