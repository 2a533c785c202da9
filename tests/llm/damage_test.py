"""A damaged or edited store: never a traceback, never a changed answer or cost; its sound twin is read as before."""

import random
import shutil
import sqlite3

import pytest

from alkd_jax.llm import exchange
from alkd_jax.llm.database import StoreError
from alkd_jax.llm.store import Store
from tests.helpers.llm_questions import question
from tests.helpers.llm_store import ENDPOINT, fill_store


def content_of(store):
    return list(exchange.records(store)), store.ledger


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A store of 60 answers, and what it holds."""
    path = tmp_path_factory.mktemp("sound") / "s"
    with fill_store(path) as store:
        return path, content_of(store)


@pytest.fixture
def copy(sound, tmp_path):
    return shutil.copy(sound[0], tmp_path / "copy")


def execute(path, *statements):
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


VERSION_2 = ("DROP TABLE adaptations", "PRAGMA user_version = 2")
VERSION_1 = ("DROP TABLE adaptations", "DROP TABLE digests", "PRAGMA user_version = 1")
EDITS = {
    "UPDATE answers SET items = '[999999, -5]' WHERE attempt = 7": "table answers, row 7",
    "UPDATE answers SET usable = 0 WHERE attempt = 7": "table answers, row 7",
    "UPDATE attempts SET cost = -1000000000000 WHERE id = 4": "table attempts, row 4",
    "UPDATE attempts SET cost = 'much' WHERE id = 4": "table attempts, row 4",
    "UPDATE attempts SET cost = 101 WHERE id = 1": "table attempts, row 1",
    "UPDATE attempts SET cost = 1e300 WHERE id = 4": "table attempts, row 4",
    "DELETE FROM attempts WHERE id = 60": "table attempts, row 60",
    "DELETE FROM answers WHERE attempt = 60": "table answers, row 60",
    "INSERT INTO attempts SELECT 61, key, batch, state, 0, -5, 0, '', '', 0, 0.0, 0.0 FROM attempts LIMIT 1": "row 61",
    "UPDATE wordings SET key = 'other' WHERE mark = (SELECT MIN(mark) FROM wordings)": "table wordings",
    "UPDATE requests SET model = 'other' WHERE session_id = 3": "table requests",
    "DROP TABLE answers": "'answers' is missing",
    "DROP INDEX attempts_by_key": "'attempts_by_key' is missing",
    "ALTER TABLE answers ADD COLUMN note": "'answers' is altered",
    "CREATE TRIGGER t AFTER INSERT ON answers BEGIN DELETE FROM attempts; END": "'t' is no part of a store",
    "PRAGMA user_version = 0": "version is 0",
}


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize(("statement", "named"), EDITS.items())
def test_an_edit_by_hand_is_named_and_nothing_of_the_store_is_used(copy, statement, named, readonly):
    execute(copy, statement)
    before = copy.read_bytes()
    with pytest.raises(StoreError, match=named) as caught:
        Store.open(copy, readonly=readonly)
    assert str(copy) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert copy.read_bytes() == before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE answers SET items = '[999999, -5]' WHERE attempt = 7",
        "UPDATE answers SET items = '[1, 1]' WHERE attempt = 7",
        "UPDATE answers SET items = '{' WHERE attempt = 7",
        'UPDATE answers SET usage = \'{"prompt": "5"}\' WHERE attempt = 7',
        "UPDATE answers SET status = 'good' WHERE attempt = 7",
        "UPDATE attempts SET cost = -1000000000000 WHERE id = 7",
        "UPDATE attempts SET state = 'released' WHERE id = 7",
        "DELETE FROM answers WHERE attempt = 7",
    ],
)
def test_a_store_of_version_1_has_no_digests_and_its_values_are_checked(copy, statement):
    execute(copy, *VERSION_1, statement)
    with pytest.raises(StoreError, match=r"row 7: .* expected"):
        Store.open(copy)


@pytest.mark.parametrize(
    "statements", [(), ("VACUUM",), ("ANALYZE",), VERSION_2, VERSION_1, (*VERSION_1, "DROP TABLE wordings")]
)
def test_a_sound_store_is_read_to_the_same_answers(copy, sound, statements):
    execute(copy, *statements)
    for readonly in (True, False, True):
        with Store.open(copy, readonly=readonly) as store:
            assert content_of(store) == sound[1]
            store.verify()
    execute(copy, "UPDATE attempts SET cost = 0 WHERE id = 4")
    with pytest.raises(StoreError, match="table attempts, row 4"):
        Store.open(copy)


def test_an_empty_store_has_lost_its_content(tmp_path):
    (tmp_path / "s").touch()
    for readonly in (True, False):
        with pytest.raises(StoreError, match="s is empty; expected a store"):
            Store.open(tmp_path / "s", readonly=readonly)
    (tmp_path / "s").unlink()
    (tmp_path / "s-wal").write_bytes(b"transactions")
    with pytest.raises(StoreError, match=r"s is missing, but .*s-wal holds transactions"):
        Store.open(tmp_path / "s")
    assert (tmp_path / "s-wal").read_bytes() == b"transactions"


def test_what_a_killed_process_left_in_the_log_belongs_to_the_store(copy, tmp_path):
    with Store.open(copy) as store:
        store.begin_attempt(ENDPOINT.request(question(70)), cost=5, tokens=5)
        for name in ("copy", "copy-wal"):
            shutil.copy(tmp_path / name, tmp_path / name.replace("copy", "killed"))
    with Store.open(tmp_path / "killed") as store:
        assert store.ledger.possible == 5
        assert [error for _, error, _ in store.failures()] == ["lost on the way"]


def test_a_damaged_log_does_not_undo_the_transactions_after_the_damage(copy, tmp_path):
    with Store.open(copy) as store:
        for number in range(70, 76):
            store.begin_attempt(ENDPOINT.request(question(number)), cost=5, tokens=5)
        main, log = copy.read_bytes(), (tmp_path / "copy-wal").read_bytes()
    path, beside = tmp_path / "killed", tmp_path / "killed-wal"
    for position, is_read in ((None, True), (16, False), (40, False), (len(log) // 2, False), (len(log) - 50, True)):
        damaged = bytearray(log)
        if position is not None:
            damaged[position] ^= 1
        path.write_bytes(main)
        beside.write_bytes(damaged)
        if is_read:
            with Store.open(path) as store:
                assert store.ledger.possible == (30 if position is None else 25)
        else:
            with pytest.raises(StoreError, match="killed-wal: damaged, so that transactions would be lost"):
                Store.open(path)
            assert (path.read_bytes(), beside.read_bytes()) == (main, bytes(damaged))
        for file in tmp_path.glob("killed-*"):
            file.unlink()


def mutated(raw, draw):
    """The bytes of a file with a flipped bit, a changed byte of a header, a lost page, or without its end."""
    changed, page = bytearray(raw), 4096 * draw.randrange(len(raw) // 4096)
    kind = draw.randrange(6)
    if kind == 0:
        changed[draw.randrange(100)] = draw.randrange(256)
    elif kind == 1:
        changed[draw.randrange(100, 4096)] = draw.randrange(256)
    elif kind == 2:
        changed[page + draw.randrange(60)] = draw.randrange(256)
    elif kind == 3:
        changed[page : page + 4096] = draw.choice([bytes(4096), draw.randbytes(4096)])
    elif kind == 4:
        del changed[draw.randrange(len(changed)) :]
    else:
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


@pytest.mark.parametrize("cases", [60, pytest.param(5_000, marks=pytest.mark.slow)])
def test_no_mutation_of_a_store_changes_an_answer_or_a_cost(sound, tmp_path, cases):
    raw, draw, refusals = sound[0].read_bytes(), random.Random(cases), []
    for case in range(cases):
        path = tmp_path / f"s{case}"
        path.write_bytes(mutated(raw, draw))
        try:
            with Store.open(path, readonly=case % 2 == 0) as store:
                assert content_of(store) == sound[1], case
        except ValueError as error:
            refusals.append((str(path), str(error)))
        path.unlink()
    assert all(line.startswith(path) and len(line.splitlines()) == 1 for path, line in refusals)
    assert cases / 3 < len(refusals) < cases
