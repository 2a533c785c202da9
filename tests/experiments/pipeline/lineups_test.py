"""Line-ups: options are those with the highest validation recall, and the test targets are ranked with these."""

import dataclasses
import json

import numpy as np
import pytest

import alkd_jax as alkd
from alkd_jax import baselines
from alkd_jax.baselines import METHODS
from alkd_jax.data.sessions import most_recent, take_sequences
from alkd_jax.evaluation import Protocol
from alkd_jax.types import HeldOutSequences
from experiments.pipeline import lineups
from experiments.pipeline.lineups import FULL, LINEUPS, Member
from experiments.pipeline.run_folder import RunFolder


@pytest.fixture(scope="module")
def dataset():
    return alkd.data.synthetic(num_items=60, num_sessions=500, seed=1)


@pytest.fixture
def lines():
    return []


@pytest.fixture
def folder(tmp_path, lines):
    run_folder = RunFolder(tmp_path / "run", lines.append)
    run_folder.open({"what": "test"})
    return run_folder


def small(monkeypatch, **members):
    monkeypatch.setattr(lineups, "LINEUPS", {"short": members})


def test_all_combinations_are_tried_and_without_times_those_that_need_none():
    member = Member("stan", {"k": (1, 2), "lambda_snh": (5.0, 80.0)}, timed=("lambda_snh",))
    points = [{"k": 1, "lambda_snh": 5.0}, {"k": 1, "lambda_snh": 80.0}, {"k": 2, "lambda_snh": 5.0}]
    assert member.points(True) == [*points, {"k": 2, "lambda_snh": 80.0}]
    assert member.points(False) == [{"k": 1, "lambda_snh": None}, {"k": 2, "lambda_snh": None}]
    assert Member("markov").points(True) == [{}]


def test_the_grids_have_methods_and_options_that_there_are():
    assert set(LINEUPS["short"]) < set(LINEUPS["full"]) == set(FULL)
    assert len({member.method for member in FULL.values()}) == len(FULL) == len(METHODS)
    for member in FULL.values():
        for point in member.points(True) + member.points(False):
            baselines.method(member.method, **point)


@pytest.mark.parametrize("history", [0, 3])
@pytest.mark.parametrize("protocol", [Protocol(), Protocol(seen="keep", targets="all")])
def test_the_options_with_the_highest_validation_recall_rank_the_test_targets(
    dataset, folder, monkeypatch, protocol, history
):
    member = Member("item_knn", {"recency": (1.0, 0.3, 0.6)})
    small(monkeypatch, **{"Item-kNN": member})
    lineups.rank_lineup(dataset, folder, protocol, "short", history)
    ranks, stored = lineups.load_lineup(dataset, folder, "short")
    counts = baselines.count(dataset.train_sequences, dataset.num_items)

    def ranks_of(held_out, recency):
        length = history or int(np.diff(held_out.sequences.offsets).max())
        known = most_recent(held_out, length) if protocol.targets == "last" else held_out
        options = {"seen": protocol.seen, "targets": protocol.targets, "max_length": length}
        scorer = baselines.method("item_knn", recency=recency)(counts)
        return baselines.target_places(scorer, counts, known, **options).ranks()

    recalls = {point: (ranks_of(dataset.validation_sequences, point) <= 10).mean() for point in (1.0, 0.3, 0.6)}
    best = max(recalls, key=recalls.get)
    assert len(set(recalls.values())) > 1
    assert stored["Item-kNN"]["options"] == {"recency": best}
    assert stored["Item-kNN"]["recall@10"] == round(recalls[best], 6)
    np.testing.assert_array_equal(ranks["Item-kNN"][0], ranks_of(dataset.test_sequences, best))


def test_a_linear_model_is_solved_once_for_the_weights_of_the_history(dataset, folder, monkeypatch):
    member = Member("slist", {"alpha": (0.2, 0.8), "predict_decay": (1, 4)})
    counts, solved = baselines.count(dataset.train_sequences, dataset.num_items), []
    ranker = lineups.Ranker(counts, Protocol(), 10)
    method = baselines.method

    def count_calls(name, **options):
        solved.append(options)
        return method(name, **options)

    monkeypatch.setattr(baselines, "method", count_calls)
    points = member.points(False)
    validation = dataset.validation_sequences
    tried = list(lineups._tried("slist", points, ranker, validation))
    assert solved == [points[0], points[2]]
    assert [options for _, options in tried] == points
    recalls = [ranker.recall(method("slist", **options)(counts), validation) for options in points]
    assert [recall for recall, _ in tried] == recalls
    assert len(set(recalls)) > 2


def test_options_are_chosen_on_a_sample_of_the_sessions_with_their_times(monkeypatch):
    monkeypatch.setattr(lineups, "SAMPLE", 20)
    offsets = np.arange(51, dtype=np.int64) * 3
    times = np.arange(150, dtype=np.int64)
    held_out = HeldOutSequences(alkd.Sequences(times + 1, offsets, times), np.ones(50, np.int32), np.arange(50) + 100)
    sample = lineups.sample_of(held_out)
    rows = np.asarray(sample.session_id) - 100
    assert len(sample) == len(np.unique(rows)) == 20
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(sample.sequences.time, take_sequences(held_out.sequences, rows).time)
    assert lineups.sample_of(sample) is sample
    np.testing.assert_array_equal(lineups.sample_of(held_out).session_id, sample.session_id)


def test_methods_that_the_data_do_not_allow_are_named_with_the_reason(dataset, monkeypatch):
    assert dataset.train_sequences.time is None
    used, left_out = lineups.members_of("full", dataset)
    assert left_out == {"Recent popularity": "the sessions have no times"}
    assert used.keys() | left_out.keys() == FULL.keys()
    monkeypatch.setattr(lineups, "MAX_LINEAR_ITEMS", 50)
    _, left_out = lineups.members_of("short", dataset)
    num_items = len(np.unique(dataset.train_sequences.items))
    assert left_out == dict.fromkeys(("EASE", "SLIST"), f"{num_items} items occur in training, more than 50")


def test_a_method_that_is_ranked_already_is_not_fitted_again(dataset, folder, lines, monkeypatch):
    small(monkeypatch, Markov=FULL["Markov"])
    lineups.rank_lineup(dataset, folder, Protocol(), "short", 10)
    first = (folder.path / "lineup-markov.json").read_text()
    assert json.loads(first)["options"] == {}
    small(monkeypatch, Markov=FULL["Markov"], Popularity=FULL["Popularity"])
    lineups.rank_lineup(dataset, folder, Protocol(), "short", 10)
    assert lines[1].startswith("lineup-markov: reused from an earlier run")
    with pytest.raises(ValueError, match="history 10 → 0"):
        lineups.rank_lineup(dataset, folder, Protocol(), "short", 0)


def test_without_validation_sessions_there_is_nothing_to_choose_by(dataset, folder):
    empty = HeldOutSequences(
        alkd.Sequences(np.zeros(0, np.int32), np.zeros(1, np.int64)), np.zeros(0, np.int32), np.zeros(0, np.int32)
    )
    without = dataclasses.replace(dataset, validation_sequences=empty)
    with pytest.raises(ValueError, match="number of validation sessions is 0; expected at least 1"):
        lineups.rank_lineup(without, folder, Protocol(), "short", 10)
