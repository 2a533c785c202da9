"""A re-ranker's labels of items and sessions: by one session at a time, and what rules they become."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from alkd_jax import baselines
from alkd_jax.baselines import Histories
from alkd_jax.baselines.re_ranker import ReRanker, find_candidates
from alkd_jax.data.sessions import pack, take_sequences
from alkd_jax.distillation import item_rules

NUM_ITEMS = 9


@pytest.fixture(scope="module", params=range(2))
def example(request):
    """Sessions of few items, their counts, and a re-ranker with random coefficients."""
    rng = np.random.default_rng(request.param)
    rows = [rng.integers(1, NUM_ITEMS, length).tolist() for length in rng.integers(2, 6, 300)]
    features = baselines.pair_features(pack(rows), NUM_ITEMS)
    one = Histories.from_rows([rows[0][:-1]])
    num_features = find_candidates(features, one).features.shape[-1]
    ranker = ReRanker(rng.normal(size=num_features), rng.normal(size=num_features), 1 + rng.random(num_features))
    return rows, features, ranker


def softmax_by_hand(features, ranker, history, places):
    """Labels of one session, from the scores of its candidates."""
    found = find_candidates(features, Histories.from_rows([history]), places=places)
    scores = {
        int(item): score
        for item, score in zip(found.items[0], ranker.scores(found)[0], strict=True)
        if item and item not in history
    }
    labels = np.zeros(NUM_ITEMS + 1)
    for item, score in scores.items():
        labels[item] = 1 / sum(np.exp(other - score) for other in scores.values())
    return labels


@pytest.mark.parametrize("places", [2, 50])
def test_labels_of_an_item_are_the_softmax_over_its_candidates(example, places):
    _, features, ranker = example
    found = item_rules.item_labels(features, ranker, places=places).toarray()
    assert not found[0].any()
    for item in range(1, NUM_ITEMS + 1):
        np.testing.assert_allclose(found[item], softmax_by_hand(features, ranker, [item], places), atol=1e-6)
    # Item 9 is in no session, and nothing leads to it or from it.
    assert not found[9].any()


def test_labels_of_a_training_session_are_those_of_the_other_sessions(example):
    rows, features, ranker = example
    # More sessions than are described at a time.
    histories = Histories.from_rows([row[:-1] for row in rows])
    found = item_rules.session_labels(features, ranker, histories, np.arange(len(rows))).toarray()
    np.testing.assert_allclose(found.sum(1)[found.any(1)], 1, atol=1e-5)
    for session in (0, 7, 299):
        others = take_sequences(pack(rows), np.delete(np.arange(len(rows)), session))
        without = baselines.pair_features(others, NUM_ITEMS)
        expected = softmax_by_hand(without, ranker, rows[session][:-1], 50)
        np.testing.assert_allclose(found[session], expected, atol=1e-6)
    counted_too = item_rules.session_labels(features, ranker, histories).toarray()
    assert np.abs(counted_too - found).max() > 1e-3


def test_no_session_has_no_labels(example):
    _, features, ranker = example
    nothing = Histories(np.zeros((0, 3), np.int64), np.zeros((0, 3), bool))
    assert item_rules.session_labels(features, ranker, nothing).shape == (0, NUM_ITEMS + 1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_most_likely_labels_are_kept_and_sharpened(temperature):
    labels = np.array([[0, 0.1, 0.6, 0.3, 0], [0, 0, 0, 0, 0], [0, 0.2, 0.2, 0.1, 0.5]])
    matrix = csr_array(labels)
    found = item_rules.sharpened(matrix, temperature=temperature, places=2).toarray()
    np.testing.assert_array_equal(matrix.toarray(), labels)
    powers = labels ** (1 / temperature)
    total = powers[0, 2] + powers[0, 3], powers[2, 4] + powers[2, 1]
    expected = np.zeros_like(labels)
    expected[0, 2:4] = powers[0, 2:4] / total[0]
    # Of equal labels the one of the smaller item is kept.
    expected[2, [1, 4]] = powers[2, [1, 4]] / total[1]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_no_row_vanishes_at_a_low_temperature():
    labels = csr_array(np.array([[0.5, 0.3, 0.2], [0.0, 0.0, 0.0], [0.02, 0.02, 0.01]]))
    found = item_rules.sharpened(labels, temperature=1e-4, places=3).toarray()
    np.testing.assert_allclose(found, [[1, 0, 0], [0, 0, 0], [0.5, 0.5, 0]], atol=1e-12)


def test_labels_of_sessions_are_averaged_for_each_of_their_items(example):
    rows, features, _ = example
    rng = np.random.default_rng(5)
    histories = Histories.from_rows([row[:-1] for row in rows[:6]])
    of_sessions, of_items = rng.random((6, NUM_ITEMS + 1)), rng.random((NUM_ITEMS + 1, NUM_ITEMS + 1))
    found = item_rules.averaged_labels(
        features.counts, histories, csr_array(of_sessions), csr_array(of_items), recency=0.5, pseudo_count=2.0
    ).toarray()
    for item in range(1, NUM_ITEMS + 1):
        total, weight = 2.0 * of_items[item], 2.0
        for row, labels in zip(rows[:6], of_sessions, strict=True):
            for steps, known in enumerate(reversed(row[:-1])):
                total = total + (known == item) * 0.5**steps * labels
                weight += (known == item) * 0.5**steps
        np.testing.assert_allclose(found[item], total / weight)


def test_labels_are_added_with_the_root_of_an_items_rules():
    rules, labels = np.array([[0, 0], [4.0, 5.0]]), np.array([[0, 0.5], [0.25, 0.75]])
    found = item_rules.add_labels(csr_array(rules), csr_array(labels), 2.0).toarray()
    np.testing.assert_allclose(found, [[0, 0], [4 + 2 * 3 * 0.25, 5 + 2 * 3 * 0.75]])


def test_bad_options_are_refused(example):
    _, features, _ = example
    labels = csr_array((NUM_ITEMS + 1, NUM_ITEMS + 1))
    with pytest.raises(ValueError, match=r"temperature is 0\.0"):
        item_rules.sharpened(labels, temperature=0.0, places=1)
    with pytest.raises(ValueError, match="places is 0"):
        item_rules.sharpened(labels, temperature=1.0, places=0)
    with pytest.raises(ValueError, match="weight is -1"):
        item_rules.add_labels(labels, labels, -1.0)
    histories = Histories.from_rows([[1]])
    with pytest.raises(ValueError, match="recency is 2"):
        item_rules.averaged_labels(features.counts, histories, labels[:1], labels, recency=2.0)
    with pytest.raises(ValueError, match="pseudo_count is nan"):
        item_rules.averaged_labels(features.counts, histories, labels[:1], labels, pseudo_count=float("nan"))
