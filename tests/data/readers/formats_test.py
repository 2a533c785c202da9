"""Tables, RecBole's, GRU4Rec's and SR-GNN's files: what is written is read back, what is hostile is refused."""

import csv
import json
import pickle

import numpy as np
import polars as pl
import pytest

import alkd_jax as alkd
from alkd_jax.data import SessionRules
from alkd_jax.data.interactions import build_interactions
from alkd_jax.data.text import delimited, text_files
from alkd_jax.data.text.bad_rows import BadRows
from alkd_jax.data.text.source_files import TextFile
from tests.helpers.prepared_data import sessions_of

ROWS = [("ann", "x1", 10), ("ann", "x2", 11), ("bob", 'y "2", z', 12), ("ann", "0003", 13), ("bob", "x1", 14)]
GIVEN = SessionRules(boundary="given", min_length=2, max_length=99, duplicates="keep")


def read_rows(log):
    seconds = (log.time // 1000).tolist()
    pairs = zip(log.user, log.item, seconds, strict=True)
    return [(log.user_ids[user], log.item_ids[item], second) for user, item, second in pairs]


def write_table(path):
    names = ("who", "what", "when")
    frame = pl.DataFrame(ROWS, schema=names, orient="row").select("when", "who", pl.lit("-").alias("other"), "what")
    if path.name.endswith(".parquet"):
        frame.write_parquet(path)
    elif "json" in path.name:
        path.write_text("".join(json.dumps(row) + "\n" for row in frame.to_dicts()))
    else:
        frame.write_csv(path, separator="\t" if ".tsv" in path.name else ",")
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet", "a.csv.gz"])
def test_tables_with_named_columns(tmp_path, name):
    path = write_table(tmp_path / name.removesuffix(".gz"))
    if name.endswith(".gz"):
        import gzip

        (tmp_path / name).write_bytes(gzip.compress(path.read_bytes()))
    log = alkd.data.load_table(tmp_path / name, columns={"user": "who", "item": "what", "time": "when"})
    assert read_rows(log) == ROWS
    assert log.report["bad_rows"]["total"] == 0


def test_csv_counts_lines_over_quoted_line_ends(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('user,item,time\r\na,"two\nlines",1\r\na,x\r\n"b ""q""",y,2\r\n')
    log = alkd.data.load_table(path)
    assert read_rows(log) == [("a", "two\nlines", 1), ('b "q"', "y", 2)]
    assert log.report["bad_rows"]["samples"] == [f"{path}, line 4: too few fields: 'a,x'"]
    literal = alkd.data.load_table(path, quote="")
    assert literal.user_ids == ('"b ""q"""',)


def test_calendar_times_and_parquet_dates(tmp_path):
    times = ["2014-07-18", "2014-07-18T10:00:00Z", "2014-07-18 12:00:00+02:00", "2014-07-18T10:00:00.250Z", "18 July"]
    (tmp_path / "a.csv").write_text("user,item,time\n" + "".join(f"u,i,{time}\n" for time in times))
    log = alkd.data.load_table(tmp_path / "a.csv")
    midnight = 1_405_641_600_000
    np.testing.assert_array_equal(log.time - midnight, [0, 36_000_000, 36_000_000, 36_000_250])
    assert log.report["bad_rows"]["reasons"] == {"no readable time": 1}
    frame = pl.DataFrame({"user": [1], "item": [2], "time": [midnight]})
    frame.with_columns(pl.col("time").cast(pl.Datetime("ms"))).write_parquet(tmp_path / "a.parquet")
    assert alkd.data.load_table(tmp_path / "a.parquet").time.tolist() == [midnight]


def test_titles_of_a_table_and_in_it(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,time,title\nu,1,5,One\nu,2,6,Two\nu,1,7,Other\n")
    (tmp_path / "t.jsonl").write_text('{"item": 2, "title": "Zwei"}\n{"item": "1", "title": "Eins"}\n')
    assert alkd.data.load_table(tmp_path / "a.csv").titles == {"1": "One", "2": "Two"}
    assert list(alkd.data.load_table(tmp_path / "a.csv", tmp_path / "t.jsonl").titles.items()) == [
        ("2", "Zwei"),
        ("1", "Eins"),
    ]


def test_wrong_tables_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("user,thing\n1,2\n")
    with pytest.raises(
        ValueError, match=r"a\.csv, line 1: columns are 'user, thing'; expected item or item_id .*--columns item=NAME"
    ):
        alkd.data.load_table(tmp_path / "a.csv")
    for name, content in (("b.csv", "item,time\n1,2\n"), ("b.jsonl", '{"item": 1, "time": 2}\n')):
        (tmp_path / name).write_text(content)
        with pytest.raises(
            ValueError, match=r"columns are 'item, time', so there is no user and no session column"
        ) as e:
            alkd.data.load_table(tmp_path / name)
        assert "--columns user=NAME or --columns session=NAME. Items and times alone" in str(e.value)
    (tmp_path / "c.csv").write_text("user,user,item\n1,2,3\n")
    with pytest.raises(ValueError, match="'user' occurs twice"):
        alkd.data.load_table(tmp_path / "c.csv")
    (tmp_path / "d.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(ValueError, match=r"d\.parquet: not a readable Parquet"):
        alkd.data.load_table(tmp_path / "d.parquet")
    with pytest.raises(ValueError, match=r"the suffix is '\.xlsx'"):
        alkd.data.load_table(tmp_path / "e.xlsx")
    with pytest.raises(FileNotFoundError):
        alkd.data.load_table(tmp_path / "none.parquet")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match="empty"):
        alkd.data.load_table(tmp_path / "empty.csv")


def test_numbers_of_names_hold_over_many_frames():
    rng = np.random.default_rng(0)
    names = [f"n{n}" for n in rng.zipf(1.3, 60_000) % 9000]
    frames = (
        ("f", pl.DataFrame({"user": part, "item": part[::-1], "line": range(len(part))}))
        for part in (names[at : at + 7000] for at in range(0, len(names), 7000))
    )
    log = build_interactions("x", frames, BadRows())
    assert [log.user_ids[user] for user in log.user] == names
    assert list(log.user_ids) == list(dict.fromkeys(names))


@pytest.fixture
def prepared(tmp_path):
    rng = np.random.default_rng(0)
    rows = [f"u{n // 3},i-{rng.integers(0, 30)},{1_400_000_000 + 86_400 * (n // 12) + n}" for n in range(1200)]
    (tmp_path / "w.csv").write_text("\n".join(["user,item,time", *rows]))
    titles = ['"Quoted" start', 'say "hi"', "tab\there", "", *(f"Title {n}" for n in range(26))]
    lines = [json.dumps({"item": f"i-{n}", "title": title}) for n, title in enumerate(titles)]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    rules = SessionRules(min_length=2)
    return alkd.data.prepare(alkd.data.load_table(tmp_path / "w.csv", tmp_path / "t.jsonl"), rules)


@pytest.mark.parametrize("rows", ["sessions", "interactions"])
def test_recbole_files_come_back(tmp_path, prepared, rows):
    alkd.data.write_recbole(tmp_path, "own", prepared, rows=rows)
    log = alkd.data.load_recbole(tmp_path / "own")
    again = alkd.data.prepare(log, GIVEN, split="given" if rows == "sessions" else "block")
    assert sessions_of(again) == sessions_of(prepared)
    assert again.sizes == prepared.sizes
    assert again.titles == prepared.titles
    if rows == "interactions":
        np.testing.assert_array_equal(again.time, prepared.time)


def test_recbole_files_are_those_recbole_documents(tmp_path, prepared):
    alkd.data.write_recbole(tmp_path, "own", prepared)
    first, second = (tmp_path / "own" / "own.train.inter").read_text().splitlines()[:2]
    assert first == "session_id:token\titem_id_list:token_seq\titem_id:token"
    session = sessions_of(prepared)[0]
    assert second == f"0\t{' '.join(session[:-1])}\t{session[-1]}"
    item = (tmp_path / "own" / "own.item").read_text().splitlines()
    assert item[:2] == ["item_id:token\ttitle:token_seq", 'i-0\t"""Quoted"" start"']


def test_recbole_prefixes_of_a_session_are_not_read_twice(tmp_path):
    lines = ["session_id:token\titem_id_list:token_seq\titem_id:token", "1\ta b\tc", "1\ta\tb", "2\td\te"]
    (tmp_path / "p.train.inter").write_text("\n".join(lines))
    (tmp_path / "p.test.inter").write_text("\n".join([lines[0], "3\tf\tg"]))
    log = alkd.data.load_recbole(tmp_path / "p")
    assert [log.item_ids[item] for item in log.item] == list("abcdefg")
    np.testing.assert_array_equal(log.split, [0, 0, 0, 0, 0, 2, 2])


def test_gru4rec_files_come_back(tmp_path, prepared):
    alkd.data.write_gru4rec(tmp_path, "w", prepared)
    log = alkd.data.load_gru4rec(tmp_path / "w_train.tsv", tmp_path / "w_test.tsv")
    again = alkd.data.prepare(log, GIVEN, split="given")
    train, validation, _ = prepared.sizes
    theirs = sessions_of(prepared)
    ours = sessions_of(again)
    assert sorted(ours[: sum(again.sizes[:2])]) == sorted(theirs[:train])
    assert ours[sum(again.sizes[:2]) :] == theirs[train + validation :]


def test_gru4rec_files_have_the_quotes_of_pandas(tmp_path):
    """The rows are what csv writes, as pandas does; quotes within a field that begins with none are its own."""
    ids = ['"a"', "a\tb", "two\nlines", 'a "b"', '"open', "d"]
    with (tmp_path / "w.tsv").open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([("SessionId", "ItemId", "Time"), *((1, item, 5) for item in ids)])
        file.write('2\t7" disc\t6\n3\t"never closed\t7\n4\td\t8\n')
    log = alkd.data.load_gru4rec(tmp_path / "w.tsv")
    assert log.item_ids == (*ids, '7" disc')
    assert log.report["bad_rows"]["reasons"] == {"a quote opens and is not closed in its row": 1}


def dump_srgnn(path, sessions):
    pairs = [(session[:cut], session[cut]) for session in sessions for cut in range(len(session) - 1, 0, -1)]
    path.write_bytes(pickle.dumps(([prefix for prefix, _ in pairs], [target for _, target in pairs])))
    return path


def test_srgnn_prefixes_fold_into_their_sessions(tmp_path):
    train, test = [[3, 1, 2], [3, 1], [5, 5, 5, 4], [1, 2]], [[2, 1], [4, 3, 1]]
    log = alkd.data.load_srgnn(dump_srgnn(tmp_path / "train.txt", train), dump_srgnn(tmp_path / "test.txt", test))
    sessions = np.split(log.item, np.flatnonzero(np.diff(log.session)) + 1)
    assert [[int(log.item_ids[item]) for item in row] for row in sessions] == [*train, *test]
    assert log.split.tolist() == [0] * 11 + [2] * 5


class Hostile:
    def __reduce__(self):
        import os

        return os.system, ("touch hacked",)


def test_srgnn_files_run_no_code_and_hold_lists_of_numbers(tmp_path):
    good = dump_srgnn(tmp_path / "good.txt", [[1, 2, 3]])
    bad = tmp_path / "bad.txt"
    for value, message in (
        (([[1]], [Hostile()]), "not a readable pickle"),
        ({"a": 1}, "not a pair of lists"),
        (([[1], [2]], [3]), "2 prefixes and 1 targets"),
    ):
        bad.write_bytes(pickle.dumps(value))
        with pytest.raises(ValueError, match=rf"bad\.txt: .*{message}"):
            alkd.data.load_srgnn(good, bad)
    bad.write_bytes(pickle.dumps(([[1], [0], [], ["x"]], [2, 3, 4, 5])))
    assert alkd.data.load_srgnn(good, bad).report["bad_rows"]["reasons"] == {"not a list of item numbers from 1": 3}
    with pytest.raises(ValueError, match=r"bad\.txt, line 2: not a list"):
        alkd.data.load_srgnn(good, bad, strict=True)


@pytest.mark.parametrize(("separator", "end"), [("\t", "\n"), (",", "\r\n")])
def test_the_quick_and_the_sure_way_read_the_same(tmp_path, monkeypatch, separator, end):
    rng = np.random.default_rng(0)
    alphabet = np.array(["a", "é", " ", "x", '"', "\x1f", "", "0", "\0", "'"])
    rows = [["".join(rng.choice(alphabet, 4)), "".join(rng.choice(alphabet, 4)), f"{n}"] for n in range(3000)]
    path = tmp_path / "a.txt"
    text = end.join(separator.join(row) for row in [["p", "q", "r"], *rows])
    path.write_bytes(text.encode())

    def read():
        bad_rows = BadRows()
        wanted = {"two": ("q",), "one": ("p",)}
        frames = list(delimited.read_delimited(TextFile(path), bad_rows, wanted, separator=separator))
        return pl.concat(frames).rows(), bad_rows.report

    quick = read()
    block = next(block for _, block in text_files.read_blocks(TextFile(path)))
    assert len(delimited._parse_fast(block, 1, 3, {"one": 0}, separator)) == 3000
    assert delimited._parse_fast(b"a\r,b\n", 1, 2, {"one": 0}, ",") is None
    monkeypatch.setattr(delimited, "_parse_fast", lambda *args: None)
    assert quick == read()
    lines = delimited._parse_lines(b"a\r,b\n", 1, 2, {"one": 0}, ",", BadRows(), "f")
    assert lines.rows() == [(1, "a\r")]
    assert quick[0] == [(line, row[1], row[0]) for line, row in enumerate(rows, 2)]


def test_the_title_column_is_that_of_the_titles_table(tmp_path):
    (tmp_path / "plays.csv").write_text("user,track\n1,a\n1,b\n")
    (tmp_path / "tracks.csv").write_text("item,Track Name\nb,Two\na,One\n")
    log = alkd.data.load_table(
        tmp_path / "plays.csv", tmp_path / "tracks.csv", columns={"item": "track", "title": "Track Name"}
    )
    assert list(log.titles.items()) == [("b", "Two"), ("a", "One")]
