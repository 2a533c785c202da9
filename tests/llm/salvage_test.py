"""The undamaged answers of a damaged store are kept as they were, and all that was paid still counts."""

import random
import sqlite3

import pytest

from alkd_jax.llm import exchange
from alkd_jax.llm.salvage import salvage
from alkd_jax.llm.store import Store
from tests.helpers.llm_store import fill_store


def answers_of(store):
    return {record["key"]: (record["items"], record["content"]) for record in exchange.records(store)}


def test_every_whole_row_is_kept_and_the_cost_stays(tmp_path):
    with fill_store(tmp_path / "sound") as store:
        before, ledger = answers_of(store), store.ledger
    raw, draw, kept = (tmp_path / "sound").read_bytes(), random.Random(0), []
    for case in range(4):
        damaged, page = bytearray(raw), 4096 * draw.randrange(12, len(raw) // 4096)
        damaged[page : page + 4096] = bytes(4096)
        (tmp_path / "damaged").write_bytes(damaged)
        with salvage(tmp_path / "damaged", tmp_path / f"s{case}", spent=ledger.confirmed, requests=60) as store:
            after = answers_of(store)
            assert after.items() <= before.items()
            assert store.ledger.confirmed + store.ledger.possible == ledger.confirmed
            assert store.ledger.requests == ledger.requests
            kept.append(len(after))
        Store.open(tmp_path / f"s{case}").close()
    assert sum(kept) > 4 * 45


def test_nothing_is_overwritten_and_nothing_is_made_of_nothing(tmp_path):
    fill_store(tmp_path / "s").close()
    with pytest.raises(ValueError, match="s exists; expected a name for a new store"):
        salvage(tmp_path / "s", tmp_path / "s")
    (tmp_path / "rubbish").write_bytes(b"x" * 9000)
    with pytest.raises(ValueError, match="rubbish: no undamaged row can be read"):
        salvage(tmp_path / "rubbish", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_store_of_the_version_without_digests_is_named(tmp_path):
    fill_store(tmp_path / "s").close()
    connection = sqlite3.connect(tmp_path / "s", isolation_level=None)
    connection.execute("DROP TABLE digests")
    connection.execute("PRAGMA user_version = 1")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with pytest.raises(ValueError, match=r"s: version is 1, whose rows have no digests .*; expected a damaged store"):
        salvage(tmp_path / "s", tmp_path / "new")
    assert not (tmp_path / "new").exists()
