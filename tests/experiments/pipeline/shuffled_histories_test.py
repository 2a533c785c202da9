"""What recommenders lose by shuffled histories: much where items follow each other, nothing in random sessions."""

import numpy as np
import pytest

from alkd_jax.data.sessions import build_dataset, pack
from experiments.pipeline.shuffled_histories import counting_recommenders, measure_order, overlap, trained_recommender


def dataset_of(rows, num_items):
    titles = ["", *(f"item {n}" for n in range(1, num_items + 1))]
    return build_dataset("toy", pack(rows), titles, titles, max_length=4)


@pytest.fixture(scope="module")
def paired():
    """Three items at random, then one of 15, then its partner, so that a Markov chain predicts each target."""
    rng = np.random.default_rng(0)
    rows = [[*rng.integers(31, 61, 3).tolist(), item, item + 15] for item in rng.integers(1, 16, 300).tolist()]
    return dataset_of(rows, 60)


def test_pairs_lose_and_random_items_do_not(paired):
    found = measure_order(paired, counting_recommenders(paired), repeats=2)
    assert set(found) == {"Markov", "Sequential rules"}
    for result in found.values():
        assert result["ordered"]["ndcg@10"] > 0.95
        assert result["overlap@10"] < 0.95
    assert found["Markov"]["change"]["ndcg@10"] < -0.5
    assert found["Sequential rules"]["change"]["ndcg@10"] < -0.01
    rng = np.random.default_rng(1)
    random = dataset_of(rng.integers(1, 31, (400, 6)).tolist(), 30)
    change = measure_order(random, counting_recommenders(random), repeats=5)["Sequential rules"]["change"]["recall@10"]
    assert abs(change) < 0.2


def test_a_model_that_reads_a_set_of_items_loses_nothing(paired):
    class Bag:
        max_length, name = None, "bag"

        def answer(self, sessions):
            rank = np.sort(np.asarray(sessions.items), axis=1).sum(axis=1) % 7 + 1
            return rank.astype(np.int32), np.sort(np.asarray(sessions.items), axis=1)[:, ::-1]

    found = measure_order(paired, [Bag()], max_sessions=20)["bag"]
    assert found["change"] == pytest.approx({"recall@10": 0.0, "ndcg@10": 0.0}, abs=1e-9)
    assert found["overlap@10"] == 1.0


def test_overlap_is_that_of_sets():
    first, second = np.array([[1, 2, 3], [1, 2, 0], [0, 0, 0]]), np.array([[3, 4, 1], [2, -1, -1], [0, 0, 0]])
    assert overlap(first, second) == pytest.approx(np.mean([2 / 4, 1 / 2, 1]))


def test_a_trained_model_reads_its_window(paired):
    recommender = trained_recommender(paired, "fpmc", dim=8, max_steps=20)
    assert recommender.max_length == 4
    ranks, lists = recommender.answer(paired.test)
    assert ranks.shape == (len(paired.test),)
    assert lists.shape == (len(paired.test), 10)
    in_list = (lists == np.asarray(paired.test.target)[:, None]).any(axis=1)
    np.testing.assert_array_equal(in_list, ranks <= 10)
