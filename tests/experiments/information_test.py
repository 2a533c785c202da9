"""What lists hold beyond counts: found where it was put, and nothing in lists by chance; and the stored results."""

import json

import numpy as np
import pytest

import alkd_jax as alkd
from alkd_jax.llm.teachers import replay
from experiments import information
from experiments.information import Information
from experiments.reporting import information_rows
from tests.helpers import paths

DATA = "synthetic:0"
NUM_LISTS = 250


def lists_with_targets(dataset, *, informed, seed=0):
    """Lists of ten random items and the target, at the front more often than not where they are informed."""
    rng = np.random.default_rng(seed)
    rows = []
    for target in np.asarray(dataset.train.target)[:NUM_LISTS]:
        others = rng.choice(np.setdiff1d(np.arange(1, dataset.num_items + 1), [target]), 10, replace=False)
        place = rng.integers(0, 3) if informed and rng.random() < 0.7 else rng.integers(0, 11)
        rows.append(np.insert(others, place, target))
    return alkd.Rankings.from_top_k(dataset.train.session_id[:NUM_LISTS], np.array(rows))


@pytest.mark.parametrize("informed", [True, False])
def test_a_gain_is_found_where_there_is_one(tmp_path, informed):
    dataset = information.registry.read(DATA)
    file = tmp_path / "lists.jsonl"
    replay.save_rankings(file, lists_with_targets(dataset, informed=informed))
    out = tmp_path / "found.json"
    found = information.run(Information(data=DATA, rankings=file, json=out))
    assert json.loads(out.read_text()) == found
    assert found["with_target"] == found["lists"] == NUM_LISTS
    assert [entry["beyond"] for entry in found["gains"]][:2] == [[], ["counts"]]
    for entry in found["gains"]:
        assert abs(entry["shuffled"]) < 0.03
        assert (entry["gain"] > 0.1) == informed
        assert entry["error"] < 0.08
    assert sum(entry["lists"] for entry in found["strata"] if entry["by"] == "items in the history") <= found["lists"]


def test_options_that_do_not_go_together_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--data is None and --run is None; expected one of them"):
        information.measure(Information())
    with pytest.raises(ValueError, match="without --rankings; expected recorded lists"):
        information.measure(Information(data=DATA))
    with pytest.raises(ValueError, match="--folds is 1"):
        information.measure(Information(data=DATA, folds=1))
    dataset = information.registry.read(DATA)
    file = tmp_path / "lists.jsonl"
    target = np.asarray(dataset.train.target)
    without = alkd.Rankings.from_top_k(dataset.train.session_id, (target % dataset.num_items + 1)[:, None])
    replay.save_rankings(file, without)
    with pytest.raises(ValueError, match="lists holds its session's next item"):
        information.measure(Information(data=DATA, rankings=file))


def test_the_table_of_the_document_agrees_with_the_stored_results():
    stored = information_rows.read()
    assert [each["dataset"] for each in stored] == ["ML", "Games"]
    assert information_rows.tables(stored) in (paths.ROOT / "docs" / "information.md").read_text()


@pytest.mark.slow
def test_the_stored_results_are_measured_again():
    if not (paths.SHARED / "alkdrec-release").is_dir():
        pytest.skip("the authors' files are not here")
    stored = information_rows.read()[1]
    found = information.measure(Information(data=f"released:{paths.SHARED / 'alkdrec-release'}:Games"))
    for entry, expected in zip(found["gains"], stored["gains"], strict=True):
        assert entry["gain"] == pytest.approx(expected["gain"], abs=2e-4)
