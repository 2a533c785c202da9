"""From raw files as the sources ship them back to the authors' arrays, and what is said of rows that cannot be read."""

import gzip
import json
import zipfile

import numpy as np
import pytest

import alkd_jax as alkd
from alkd_jax.data.readers import hetrec
from alkd_jax.data.text import text_files
from alkd_jax.data.text.bad_rows import BadRows
from tests.helpers import raw_files
from tests.helpers.prepared_data import sessions_of

DAY = 86_400


def small_hetrec(folder, ratings, movies=None, *, newline="\r\n"):
    folder.mkdir(parents=True, exist_ok=True)
    header = "userID\tmovieID\trating\ttimestamp"
    (folder / "user_ratedmovies-timestamps.dat").write_bytes(newline.join([header, *ratings, ""]).encode("latin-1"))
    lines = movies or [f"{n}\tFilm {n}\t0\\N" for n in range(1, 30)]
    (folder / "movies.dat").write_bytes(newline.join(["id\ttitle\timdbID", *lines, ""]).encode("latin-1"))
    return folder


def ratings(user, items, *, start=1_162_160_236_000, step=1000):
    return [f"{user}\t{item}\t4.5\t{start + step * place}" for place, item in enumerate(items)]


@pytest.mark.parametrize(
    ("zipped", "columns", "mixed"),
    [(False, ("userID", "movieID", "rating", "timestamp"), None), (True, ("timestamp", "movieID", "userID"), 0)],
)
def test_hetrec_files_give_the_released_arrays(release, released_dataset, tmp_path, zipped, columns, mixed):
    rows, titles = raw_files.released_rows(release, "ML")
    source = raw_files.write_hetrec(tmp_path, rows, titles, zipped=zipped, columns=columns, mixed=mixed)
    # rows in no order are put right by time, and users by their numbers
    rules = alkd.data.SessionRules(users="file" if mixed is None else "id")
    prepared = alkd.data.prepare(alkd.data.load_hetrec(source), rules, split="block-exchanged")
    manifest = alkd.data.save_prepared(tmp_path / "out", prepared)
    assert [manifest[key] for key in ("sessions", "items", "interactions")] == [12_323, 8_475, 112_034]
    found, wanted = alkd.data.load_prepared(tmp_path / "out"), released_dataset("ML")
    assert found.fingerprint == wanted.fingerprint == manifest["fingerprint"]
    assert found.item_ids == wanted.item_ids


def test_another_time_zone_gives_other_sessions(release, tmp_path):
    rows, titles = raw_files.released_rows(release, "ML")
    log = alkd.data.load_hetrec(raw_files.write_hetrec(tmp_path, rows[:2000], titles))
    counts = {
        zone: len(alkd.data.prepare(log, alkd.data.SessionRules(time_zone=zone)).sequences)
        for zone in ("UTC", "Europe/Madrid", "Asia/Singapore", "America/Chicago")
    }
    assert counts.pop("UTC") == 2000
    assert 2000 not in counts.values()


@pytest.mark.slow
@pytest.mark.parametrize("year", [2014, 2018, 2023])
def test_amazon_files_give_the_released_arrays(release, released_dataset, tmp_path, year):
    rows, titles = raw_files.released_rows(release, "Games")
    reviews, meta = raw_files.write_amazon(tmp_path, rows, titles, year=year)
    prepared = alkd.data.prepare(alkd.data.load_amazon(reviews, meta, year=year))
    assert [len(prepared.sequences), len(prepared.titles) - 1, len(prepared.time)] == [20_091, 26_138, 132_677]
    found, wanted = prepared.dataset(), released_dataset("Games")
    assert found.fingerprint == wanted.fingerprint
    assert found.item_ids == wanted.item_ids


@pytest.mark.slow
@pytest.mark.parametrize("year", [2014, 2018, 2023])
def test_amazon_files_of_all_years_say_the_same(tmp_path, year):
    rows = [[f"B{(n * 5 + place) % 90:09d}" for place in range(5 + n % 9)] for n in range(60)]
    titles = [(f"B{n:09d}", f'It\'s "{n}" é') for n in range(89)]
    reviews, meta = raw_files.write_amazon(tmp_path, rows, titles, year=year)
    prepared = alkd.data.prepare(alkd.data.load_amazon(reviews, meta, year=year))
    untitled = "B000000089"
    whole = [[item for item in row if item != untitled] for row in rows if row[-1] != untitled]
    assert sessions_of(prepared) == whole
    assert prepared.titles[1] == 'It\'s "0" é'


def test_hetrec_titles_are_letters_as_they_stand(tmp_path):
    long = "é" * 683
    movies = ['1\t"House M.D."\t0', "2\tAm\xe9lie\t0", "3\t\\N\t0", "4\t\t0", f"5\t{long}\t0", "6\t say 'hi' \t0"]
    log = alkd.data.load_hetrec(small_hetrec(tmp_path, ratings(1, range(1, 7)), movies))
    assert list(log.titles.values()) == ['"House M.D."', "Amélie", "", "", long, " say 'hi' "]
    assert log.report["titles_encoding"] == "iso-8859-1"


def test_hetrec_in_utf8_is_not_taken_for_latin(tmp_path):
    folder = small_hetrec(tmp_path, ratings(1, range(1, 7)))
    (folder / "movies.dat").write_bytes("id\ttitle\n1\tAmélie\n".encode())
    assert alkd.data.load_hetrec(folder).titles["1"] == "Amélie"


def test_bad_rows_are_counted_and_shown_with_file_and_line(tmp_path):
    good = ratings(7, [1, 2, 3, 4, 5])
    lines = [good[0], "7\t2", good[1], "7\t3\t4\t5\t6", "", good[2], "7\t9\t4\tsoon", "\t9\t4\t1162160236000"]
    lines += [good[3], "7\t9\t4\t11621602", "7\t9\t4\t-5", "7\t\xff\t4\t1162160236000", good[4]]
    log = alkd.data.load_hetrec(small_hetrec(tmp_path, lines))
    assert len(log) == 5
    assert log.report["bad_rows"]["reasons"] == {
        "too few fields": 1,
        "too many fields": 1,
        "not in the file's encoding": 1,
        "no user": 1,
        "no readable time": 1,
        "time out of range": 2,
    }
    samples = log.report["bad_rows"]["samples"]
    assert any("timestamps.dat, line 3: too few fields: '7\\t2'" in sample for sample in samples)
    assert any("timestamps.dat, line 8: no readable time" in sample for sample in samples)
    assert log.report["rows_read"] == 12
    with pytest.raises(ValueError, match=r"user_ratedmovies-timestamps\.dat, line 3: too few fields"):
        alkd.data.load_hetrec(tmp_path, strict=True)


def test_a_last_line_without_its_end_is_read(tmp_path):
    folder = small_hetrec(tmp_path, ratings(1, [1, 2, 3]))
    path = folder / "user_ratedmovies-timestamps.dat"
    path.write_bytes(path.read_bytes().rstrip(b"\r\n"))
    assert len(alkd.data.load_hetrec(folder)) == 3


def test_seconds_and_milliseconds_may_be_mixed(tmp_path):
    rows = ["1\t1\t5\t1162160236000", "1\t2\t5\t1162160237", "1\t3\t5\t1162160238000000", "1\t4\t5\t1162160239.0"]
    log = alkd.data.load_hetrec(small_hetrec(tmp_path, rows))
    np.testing.assert_array_equal(np.diff(log.time), [1000, 1000, 1000])
    assert log.report["time_units"] == {"seconds": 2, "milliseconds": 1, "microseconds": 1}


def test_blocks_do_not_change_what_is_read(tmp_path, monkeypatch):
    folder = small_hetrec(tmp_path, [row for user in range(40) for row in ratings(user, [1, 2, 3, 4, 5])] + ["1\t2"])
    whole = hetrec.load_hetrec(folder)
    read = text_files.read_blocks
    monkeypatch.setattr(text_files, "read_blocks", lambda file, encoding="utf-8": read(file, encoding=encoding, size=7))
    cut = hetrec.load_hetrec(folder)
    for name in ("user", "item", "time"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(cut, name))
    assert whole.user_ids == cut.user_ids
    assert whole.report == cut.report


@pytest.mark.parametrize("nested", ["", "hetrec/deeper/"])
def test_a_folder_in_the_zip_is_found(tmp_path, nested):
    small_hetrec(tmp_path, ratings(1, [1, 2, 3]))
    with zipfile.ZipFile(tmp_path / "copy.zip", "w") as archive:
        for name in ("movies.dat", "user_ratedmovies-timestamps.dat"):
            archive.write(tmp_path / name, nested + name)
    assert len(alkd.data.load_hetrec(tmp_path / "copy.zip")) == 3


def test_what_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or folder"):
        alkd.data.load_hetrec(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="has no user_ratedmovies-timestamps"):
        alkd.data.load_hetrec(tmp_path)
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(ValueError, match="expected a folder, or a zip or tar archive"):
        alkd.data.load_hetrec(tmp_path / "x.zip")
    folder = small_hetrec(tmp_path / "f", ["1\t2\t3\t4"])
    with pytest.raises(ValueError, match="no readable interaction"):
        alkd.data.load_hetrec(folder)
    (folder / "movies.dat").write_bytes(b"id\tname\n")
    with pytest.raises(ValueError, match=r"movies\.dat, line 1: columns are 'id, name'; expected title"):
        alkd.data.load_hetrec(folder)
    (folder / "movies.dat").write_bytes("id\ttitle\n".encode("utf-16"))
    with pytest.raises(ValueError, match="UTF-16"):
        alkd.data.load_hetrec(folder)


def review(user, item, time, **extra):
    return json.dumps({"reviewerID": user, "asin": item, "unixReviewTime": time, **extra})


def test_amazon_lines_that_are_no_objects_are_counted(tmp_path):
    good = [review("A1", f"B{n:09d}", 1_400_000_000) for n in range(5)]
    bad = [
        good[0][:20],
        "[1, 2]",
        '{"asin": "B000000001", "unixReviewTime": 1400000000}',
        "{" * 5000,
        "__import__('os')",
    ]
    (tmp_path / "r.json").write_text("\n".join([*good, *bad]) + "\n")
    (tmp_path / "m.json").write_text(
        "{'asin': 'B000000001', 'title': 'it\\'s'}\nnot python\n"
        + '{"asin": "B000000002"}\n{"asin": "B000000002", "title": "later"}\n{"title": "of nothing"}\n'
    )
    log = alkd.data.load_amazon(tmp_path / "r.json", tmp_path / "m.json", year=2018)
    assert len(log) == 5
    assert log.report["bad_rows"]["reasons"] == {"not a JSON object": 5, "no asin": 1, "no user": 1}
    assert log.titles == {"B000000001": "it's", "B000000002": "later"}
    assert log.report["titles_repeated_items"] == 1
    with pytest.raises(ValueError, match=r"r\.json, line 6: not a JSON object"):
        alkd.data.load_amazon(tmp_path / "r.json", year=2018, strict=True)


def test_titles_are_unescaped_only_when_asked(tmp_path):
    (tmp_path / "r.json").write_text(review("A1", "0078764343", 1_400_000_000))
    (tmp_path / "m.json").write_text(json.dumps({"asin": "0078764343", "title": "Ratchet &amp; Clank"}))
    for unescape, title in ((False, "Ratchet &amp; Clank"), (True, "Ratchet & Clank")):
        log = alkd.data.load_amazon(tmp_path / "r.json", tmp_path / "m.json", year=2018, unescape=unescape)
        assert log.titles == {"0078764343": title}
    assert log.item_ids == ("0078764343",)


@pytest.mark.parametrize("user_first", [True, False])
def test_rating_files_say_by_their_look_which_column_is_the_user(tmp_path, user_first):
    rows = [(f"A{n:012d}", f"B{n % 7:09d}") for n in range(30)]
    pairs = rows if user_first else [row[::-1] for row in rows]
    with gzip.open(tmp_path / "ratings.csv.gz", "wt") as file:
        file.writelines(f"{a},{b},5.0,1400000000\n" for a, b in pairs)
    log = alkd.data.load_amazon(tmp_path / "ratings.csv.gz", year=2018)
    assert [(log.user_ids[u], log.item_ids[i]) for u, i in zip(log.user, log.item, strict=True)] == rows


def test_a_gzip_cut_short_is_an_error(tmp_path):
    whole = gzip.compress(b"".join(review(f"A{n}", "B000000001", 1_400_000_000).encode() + b"\n" for n in range(5000)))
    (tmp_path / "r.json.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"r\.json\.gz: cannot be read .* neither damaged nor cut short"):
        alkd.data.load_amazon(tmp_path / "r.json.gz", year=2018)


@pytest.mark.parametrize("colons", [True, False])
def test_movielens_in_both_forms(tmp_path, colons):
    title = 'Cité, "La" (1994)'
    if colons:
        (tmp_path / "movies.dat").write_bytes(f"5::{title}::Drama\n9::Plain::Comedy\n".encode("latin-1"))
        (tmp_path / "ratings.dat").write_text("1::9::5::978300760\n1::5::3::978302109\n")
    else:
        (tmp_path / "movies.csv").write_text('movieId,title,genres\n5,"Cité, ""La"" (1994)",Drama\n9,Plain,Comedy\n')
        (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,9,5.0,978300760\n1,5,3,978302109\n")
    log = alkd.data.load_movielens(tmp_path)
    assert dict(log.titles) == {"5": title, "9": "Plain"}
    assert [log.item_ids[item] for item in log.item] == ["9", "5"]
    np.testing.assert_array_equal(log.time, [978300760000, 978302109000])


def test_lastfm_names_tracks_with_and_without_an_id(tmp_path):
    rows = [
        "user_1\t2009-05-04T23:08:57Z\ta1\tDeep Dish\t\tFuck Me Im Famous",
        'user_1\t2009-05-04T13:54:10Z\ta2\t"Quoted" Artist\tt-7\tTrack',
        "user_2\t2009-05-04T13:52:04Z\ta2\tX\t\t",
    ]
    (tmp_path / "userid-timestamp-artid-artname-traid-traname.tsv").write_text("\n".join(rows) + "\n")
    log = alkd.data.load_lastfm(tmp_path)
    assert log.item_ids == ("Deep Dish – Fuck Me Im Famous", "t-7")
    assert log.titles["t-7"] == '"Quoted" Artist – Track'
    assert log.report["bad_rows"]["reasons"] == {"no item": 1}
    assert log.time[0] - log.time[1] == 1000 * (9 * 3600 + 14 * 60 + 47)


def test_bad_rows_keep_a_few_samples_of_each_reason():
    bad_rows = BadRows()
    bad_rows.add("f", "wrong", [(n, "x" * 500) for n in range(1, 100)])
    bad_rows.add("f", "other", [(3, None)])
    assert bad_rows.report["total"] == 100
    assert len(bad_rows.samples) == 6
    assert max(map(len, bad_rows.samples)) < 200
