"""Damage beside or outside of text tables: files of titles, whose damage changes no session, and SR-GNN's pickles."""

import io
import pickle

import numpy as np
import pytest

import alkd_jax as alkd
from alkd_jax.errors import explain
from tests.helpers.damaged_files import ROWS, TITLES, mutate, pairs, separated

RATINGS = separated(("userId", "movieId", "timestamp"), ROWS)
HETREC_RATINGS = separated(("userID", "movieID", "timestamp"), [(u, i, f"{t}000") for u, i, t in ROWS], "\t")
INTER = separated(("user_id:token", "item_id:token", "timestamp:float"), ROWS, "\t")
PLAIN = "".join(f"{item}::{title}::Comedy\n" for item, title in TITLES).encode()
FOLDERS = {
    "movies.csv": (alkd.data.load_movielens, ("ratings.csv", RATINGS), separated(("movieId", "title"), TITLES)),
    "movies.dat": (
        alkd.data.load_movielens,
        (
            "ratings.dat",
            b"".join(
                b"::".join([user, item, b"5", time]) + b"\n"
                for user, item, time in (line.split(b",") for line in RATINGS.splitlines()[1:])
            ),
        ),
        PLAIN,
    ),
    "hetrec": (
        alkd.data.load_hetrec,
        ("user_ratedmovies-timestamps.dat", HETREC_RATINGS),
        separated(("id", "title"), TITLES, "\t"),
    ),
    "m.item": (
        lambda folder: alkd.data.load_recbole(folder / "m"),
        ("m.inter", INTER),
        separated(("item_id:token", "title:token_seq"), TITLES, "\t"),
    ),
}


def fuzz_titles(folder, name, seed, cases):
    load, (rows_file, rows), titles = FOLDERS[name]
    titles_file = folder / ("movies.dat" if name == "hetrec" else name)
    (folder / rows_file).write_bytes(rows)
    rng, num_read = np.random.default_rng(seed), 0
    for _ in range(cases):
        content = mutate(rng, titles)
        titles_file.write_bytes(content)
        try:
            log = load(folder)
        except Exception as error:
            line = explain(error)
            assert line is not None, content
            assert titles_file.name in line, content
            assert line.isprintable(), content
            continue
        num_read += 1
        assert pairs(log) == [row[:2] for row in ROWS], content
        if name in ("movies.dat", "hetrec"):
            lines = [line for line in content.split(b"\n") if line.removesuffix(b"\r")]
            num_rows = len(lines) - (name == "hetrec")
            found = log.report["titles_read"] + log.report["titles_repeated_items"]
            assert found + log.report["bad_rows"]["total"] == num_rows, content
    assert num_read > cases / 3


@pytest.mark.parametrize("name", FOLDERS)
def test_damaged_titles_change_no_session_and_every_row_is_used_or_counted(tmp_path, name):
    fuzz_titles(tmp_path, name, 0, 30)


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_many_damaged_titles_change_no_session_and_every_row_is_used_or_counted(tmp_path, name):
    fuzz_titles(tmp_path, name, 1, 3_000)


class _PlainUnpickler(pickle._Unpickler):
    """Python's own reader of pickles, in Python, so that a number of a memo does not allocate memory."""

    def find_class(self, module, name):
        raise pickle.UnpicklingError("a global")

    def persistent_load(self, pid):
        return None


def independent_rows(content):
    """The numbers of rows of SR-GNN's pickle that are and are not lists of items, by Python's reader; None without."""
    try:
        prefixes, targets = _PlainUnpickler(io.BytesIO(content)).load()
        rows = [
            [*prefix, target] if isinstance(prefix, list) and prefix else []
            for prefix, target in zip(prefixes, targets, strict=True)
        ]
    except Exception:
        return None
    good = [bool(row) and all(type(item) is int and 0 < item < 1 << 63 for item in row) for row in rows]
    return len(good), len(good) - sum(good)


def fuzz_srgnn(folder, seed, cases):
    sessions = [[1 + (n * 7 + place) % 300 for place in range(2 + n % 4)] for n in range(20)]
    cuts = [(session[:cut], session[cut]) for session in sessions for cut in range(len(session) - 1, 0, -1)]
    rng, num_read = np.random.default_rng(seed), 0
    for case in range(cases):
        whole = pickle.dumps(([prefix for prefix, _ in cuts], [target for _, target in cuts]), protocol=case % 6)
        content = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            content[int(rng.integers(len(content)))] = int(rng.integers(256))
        (folder / "train.txt").write_bytes(content)
        (folder / "test.txt").write_bytes(whole)
        try:
            report = alkd.data.load_srgnn(folder / "train.txt", folder / "test.txt").report
        except Exception as error:
            line = explain(error)
            assert line is not None, bytes(content)
            assert line.isprintable(), bytes(content)
            continue
        num_read += 1
        num_rows, num_bad = independent_rows(content)
        assert report["rows_read"] == num_rows + len(cuts), bytes(content)
        assert report["bad_rows"]["total"] == num_bad, bytes(content)
        assert report["rows_read"] == report["rows_used"] + report["rows_of_prefixes"] + num_bad, bytes(content)
    assert num_read > cases / 10


def test_a_damaged_srgnn_pickle_has_the_rows_that_python_reads_or_is_refused(tmp_path):
    fuzz_srgnn(tmp_path, 0, 60)


@pytest.mark.slow
def test_many_damaged_srgnn_pickles_have_the_rows_that_python_reads_or_are_refused(tmp_path):
    fuzz_srgnn(tmp_path, 1, 3_000)
