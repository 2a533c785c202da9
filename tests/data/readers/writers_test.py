"""Sessions with ids and titles of any text: every writer and its reader return them, or nothing is written."""

import dataclasses
import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import alkd_jax as alkd
from alkd_jax.data import SessionRules
from alkd_jax.data.prepared import Prepared
from alkd_jax.data.sessions import pack
from tests.helpers.prepared_data import sessions_of

GIVEN = SessionRules(boundary="given", min_length=2, max_length=99, duplicates="keep")
SESSIONS = [[1, 2, 3], [2, 2], [3, 1, 1, 2], [1, 3], [3, 2]]
FIRST_TIME = 1_400_000_000_123
PLAIN = ("a", "b", "c")
PARTS = (
    "\t",
    "\r",
    "\n",
    "\0",
    '"',
    '""',
    " ",
    "\u202e",
    "\ufeff",
    "\ud83d",
    "\ude00",
    "nan",
    "NA",
    "a",
    "=",
    "|",
    ",",
    "\u2028",
    "\x85",
)
texts = st.lists(st.sampled_from(PARTS) | st.text(max_size=2), max_size=4).map("".join)
"""Of hypothesis' own texts few have what a file takes for its own."""


def make_prepared(ids=PLAIN, titles=PLAIN, step=86_400_001):
    """Five sessions over three items: three of training, one of validation, one of test."""
    sequences = pack(SESSIONS)
    return Prepared(
        name="any",
        sequences=sequences,
        time=np.arange(len(sequences.items), dtype=np.int64) * step + FIRST_TIME,
        user=np.arange(len(SESSIONS), dtype=np.int32),
        sizes=(3, 1, 1),
        titles=("", *titles),
        item_ids=("", *ids),
        options={"split": {"rule": "block"}},
        report={},
    )


def read_sessions(log):
    """Every session of a file as a list of the source's item ids, and all times in this order."""
    order = np.lexsort((np.arange(len(log)), log.session))
    ends = np.flatnonzero(np.diff(log.session[order])) + 1
    ids = np.array([log.item_ids[item] for item in log.item[order]], object)
    return [part.tolist() for part in np.split(ids, ends)], log.time[order].tolist()


def through_gru4rec(folder, prepared):
    alkd.data.write_gru4rec(folder, "w", prepared)
    logs = [alkd.data.load_gru4rec(folder / f"w_{part}.tsv") for part in ("train", "valid", "test")]
    sessions, times = zip(*map(read_sessions, logs), strict=True)
    return {"sessions": [*itertools.chain(*sessions)], "time": [*itertools.chain(*times)]}


def through_recbole_sessions(folder, prepared):
    alkd.data.write_recbole(folder, "w", prepared)
    log = alkd.data.load_recbole(folder / "w")
    return {"sessions": read_sessions(log)[0], "titles": log.titles}


def through_recbole_interactions(folder, prepared):
    alkd.data.write_recbole(folder, "w", prepared, rows="interactions")
    log = alkd.data.load_recbole(folder / "w")
    sessions, times = read_sessions(log)
    return {"sessions": sessions, "time": times, "titles": log.titles}


def through_the_prepared_folder(folder, prepared):
    alkd.data.save_prepared(folder, prepared)
    read = alkd.data.read_prepared(folder)
    titles = dict(zip(read.item_ids[1:], read.titles[1:], strict=True))
    return {"sessions": sessions_of(read), "time": read.time.tolist(), "titles": titles, "ids": read.item_ids}


WRITERS = [through_gru4rec, through_recbole_sessions, through_recbole_interactions]


def come_back(through, prepared):
    """Whether the sessions came back; False where they were refused in one line and nothing was written."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "out")
        refusal = ""
        try:
            found = through(folder, prepared)
        except ValueError as error:
            refusal = str(error)
        if refusal:
            assert "expected" in refusal
            assert refusal.isprintable()
            assert not folder.exists()
            return False
    titles = dict(zip(prepared.item_ids[1:], prepared.titles[1:], strict=True))
    sent = {"sessions": sessions_of(prepared), "time": prepared.time.tolist(), "ids": prepared.item_ids}
    sent["titles"] = titles if any(titles.values()) else found.get("titles")
    assert found == {name: sent[name] for name in found}
    return True


@pytest.mark.parametrize("through", WRITERS)
@settings(max_examples=40)
@given(ids=st.tuples(texts, texts, texts), titles=st.tuples(texts, texts, texts))
def test_any_ids_and_titles_come_back_or_are_refused(through, ids, titles):
    come_back(through, make_prepared(ids, titles))


@pytest.mark.slow
@pytest.mark.parametrize("through", [*WRITERS, through_the_prepared_folder])
@settings(max_examples=2_000)
@given(ids=st.tuples(texts, texts, texts), titles=st.tuples(texts, texts, texts))
def test_very_many_ids_and_titles_come_back_or_are_refused(through, ids, titles):
    come_back(through, make_prepared(ids, titles))


FREE_IDS = ('a"b', "a\u00a0b", "\u202ertl", "0003", "NaNa", "a,b", "'s", "=1+1", "|", "\ufeffx", "\0", "x" * 200_000)
"""Ids that every file can hold."""
FREE_TITLES = ("", 'a "b"', '"open', "a\tb", "a\nb", "a\rb\r\n", " a", "nan", "=1+1", "\ufeff", "\0", "x" * 200_000)


@pytest.mark.parametrize("through", [*WRITERS, through_the_prepared_folder])
def test_unusual_ids_and_titles_come_back(through):
    for start in range(0, len(FREE_IDS), 3):
        assert come_back(through, make_prepared(FREE_IDS[start : start + 3], FREE_TITLES[start : start + 3]))


@pytest.mark.parametrize("through", WRITERS)
@pytest.mark.parametrize("text", ['"', '"a"', 'a""', '"a" "b'])
def test_ids_that_begin_with_a_quote_come_back(through, text):
    sessions = through is through_recbole_sessions
    assert come_back(through, make_prepared((text, "b", "c"))) is not (sessions and " " in text)


REFUSED = ["", "\t", "a\tb", "a\nb", "a\r", "nan", "NA", "None", "\\N", "\ud83d", "\ufdd0", "b"]


@pytest.mark.parametrize("through", WRITERS)
def test_an_id_that_would_not_come_back_is_refused(through):
    for text in REFUSED:
        assert not come_back(through, make_prepared((text, "b", "c")))
    assert not come_back(through, make_prepared(titles=("\ud83d", "b", "c"))) or through is through_gru4rec


def test_half_a_surrogate_pair_comes_back_from_the_prepared_folder():
    assert come_back(through_the_prepared_folder, make_prepared(("\ud83d", "\ude00", "c"), ("\ud83d", "\ude00", "\0")))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\0b", "\ud83d"])
@pytest.mark.parametrize("write", [alkd.data.write_gru4rec, alkd.data.write_recbole])
def test_a_name_that_is_no_file_name_is_refused(tmp_path, write, name):
    with pytest.raises(ValueError, match=r"name is .*; expected"):
        write(tmp_path / "out", name, make_prepared())
    assert list(tmp_path.iterdir()) == []


def test_recbole_files_of_two_kinds_do_not_mix(tmp_path):
    alkd.data.write_recbole(tmp_path, "w", make_prepared(), rows="interactions")
    before = {path.name: path.read_bytes() for path in (tmp_path / "w").iterdir()}
    with pytest.raises(ValueError, match=r"w\.inter has rows of another kind than 'sessions'"):
        alkd.data.write_recbole(tmp_path, "w", make_prepared(("d", "e", "f")))
    assert {path.name: path.read_bytes() for path in (tmp_path / "w").iterdir()} == before


@pytest.mark.parametrize(("write", "files"), [(alkd.data.write_gru4rec, 3), (alkd.data.write_recbole, 4)])
def test_a_failure_leaves_the_former_files(tmp_path, write, files):
    write(tmp_path, "w", make_prepared())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    assert len(before) == files
    broken = dataclasses.replace(make_prepared(("d", "e", "f")), sizes=(3, 1, 9))
    with pytest.raises(IndexError):
        write(tmp_path, "w", broken)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


@settings(max_examples=20)
@example(step=83_287_314_269, write=through_gru4rec)
@given(step=st.integers(0, 3 * 10**11 // 2), write=st.sampled_from([through_gru4rec, through_recbole_interactions]))
def test_times_come_back_to_the_millisecond(step, write):
    assert come_back(write, make_prepared(step=step))
