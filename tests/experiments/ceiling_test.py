"""The re-ranker beside rules and students: measured on a small dataset, and the stored results."""

import json

import pytest

import alkd_jax as alkd
from experiments import ceiling
from experiments.ceiling import Ceiling
from experiments.reporting import ceiling_rows
from tests.helpers import paths
from tests.helpers.extras import import_or_skip


@pytest.mark.parametrize("trees", [False, True])
def test_a_small_dataset_is_measured(tmp_path, monkeypatch, trees):
    pytest.importorskip("sklearn")
    if trees:
        import_or_skip("lightgbm")
        monkeypatch.setattr(ceiling.re_rankers, "NUM_TREES", (2, 5))
        monkeypatch.setattr(ceiling.re_rankers, "NUM_LEAVES", (3,))
    dataset = alkd.data.synthetic(num_items=40, num_sessions=150, seed=0)
    monkeypatch.setattr(ceiling.registry, "read", lambda source: dataset)
    args = Ceiling("synthetic", tmp_path / "a.json", sample=60, ridges=(1.0, 100.0), places=5, trees=trees)
    found = ceiling.run(args)
    assert json.loads((tmp_path / "a.json").read_text()) == json.loads(json.dumps(found))
    teachers = [ceiling_rows.RE_RANKER, ceiling_rows.TREES][: 1 + trees]
    names = (ceiling_rows.ITEM_LABELS, ceiling_rows.SESSION_LABELS)
    taught = [table[teacher] for teacher in teachers for table in names]
    assert list(found["methods"]) == [*teachers, *ceiling.REFERENCES, *taught]
    assert list(found["taught"]) == taught
    assert list(found["chosen"]) == teachers
    for chosen in found["chosen"].values():
        assert chosen["with_target"] <= chosen["sessions"] == 60
    if trees:
        assert found["chosen"][ceiling_rows.TREES]["trees"] in (2, 5)
    for row in found["methods"].values():
        total = sum(row[part].get("recall@10", 0) * row[part]["targets"] for part in ("seen", "unseen"))
        assert total / len(dataset.test) == pytest.approx(row["test"]["recall@10"], abs=1e-5)
    others = {*ceiling.REFERENCES, *taught}
    compared = {(test["method"], test["against"]) for test in found["tests"]}
    assert compared == {(teacher, other) for teacher in teachers for other in others} | (
        {(ceiling_rows.TREES, ceiling_rows.RE_RANKER)} if trees else set()
    )


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
