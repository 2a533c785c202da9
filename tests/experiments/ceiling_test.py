"""The re-ranker beside rules and students: measured on a small dataset, and the stored results."""

import json

import pytest

import alkd_jax as alkd
from experiments import ceiling
from experiments.ceiling import Ceiling
from experiments.reporting import ceiling_rows
from tests.helpers import paths


def test_a_small_dataset_is_measured(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    dataset = alkd.data.synthetic(num_items=40, num_sessions=150, seed=0)
    monkeypatch.setattr(ceiling.registry, "read", lambda source: dataset)
    args = Ceiling("synthetic", tmp_path / "a.json", sample=60, ridges=(1.0, 100.0), places=5)
    found = ceiling.run(args)
    assert json.loads((tmp_path / "a.json").read_text()) == json.loads(json.dumps(found))
    taught = [ceiling_rows.ITEM_LABELS, ceiling_rows.SESSION_LABELS]
    assert list(found["methods"]) == [ceiling_rows.RE_RANKER, *ceiling.REFERENCES, *taught]
    assert list(found["taught"]) == taught
    assert found["chosen"]["sessions"] == 60
    assert found["chosen"]["with_target"] <= found["chosen"]["sessions"]
    for row in found["methods"].values():
        total = sum(row[part].get("recall@10", 0) * row[part]["targets"] for part in ("seen", "unseen"))
        assert total / len(dataset.test) == pytest.approx(row["test"]["recall@10"], abs=1e-5)
    assert {test["against"] for test in found["tests"]} == {*ceiling.REFERENCES, *taught}


def test_bad_options_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="--ridges"):
        ceiling.measure(Ceiling("synthetic:0", ridges=(0.0,)))
    with pytest.raises(ValueError, match="--sample is 0"):
        ceiling.measure(Ceiling("synthetic:0", sample=0))
    with pytest.raises(ValueError, match="--title-vectors is"):
        ceiling.measure(Ceiling("synthetic:0", title_vectors=tmp_path / "none.npz"))
    (tmp_path / "run.json").write_text('{"data": "other"}')
    with pytest.raises(ValueError, match=r"expected .*, as --data"):
        ceiling.measure(Ceiling("synthetic:0", students=tmp_path))


def test_the_tables_of_the_document_agree_with_the_stored_results():
    text = (paths.ROOT / "docs" / "narrow_student.md").read_text()
    stored = ceiling_rows.read()
    assert sorted(stored) == ["Games", "ML"]
    for found in stored.values():
        assert ceiling_rows.table(found) in text
        assert ceiling_rows.differences(found) in text
