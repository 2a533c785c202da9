"""Questions about items: candidates from titles and counts, and the rules of the answers."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from alkd_jax import baselines
from alkd_jax.distillation import item_rules
from alkd_jax.llm.teachers import name_by_similarity
from alkd_jax.types import Rankings, Sequences

SEQUENCES = Sequences(np.array([1, 2, 3, 1, 2, 1, 4], np.int32), np.array([0, 3, 5, 7], np.int32))


@pytest.fixture
def counts():
    """Items 1 to 4 occur 3, 2, 1, 1 times, 5 and 6 never."""
    return baselines.count(SEQUENCES, 6)


def cosines(**pairs):
    matrix = np.zeros((7, 7))
    for name, value in pairs.items():
        first, second = map(int, name.removeprefix("c"))
        matrix[first, second] = matrix[second, first] = value
    return csr_array(matrix)


def test_rare_items_are_unseen_or_seen_few_times(counts):
    assert item_rules.rare_items(counts, most=0).tolist() == [5, 6]
    assert item_rules.rare_items(counts).tolist() == [3, 4, 5, 6]


def test_candidates_are_known_items_from_titles_counts_and_popularity(counts):
    neighbors = cosines(c52=0.9, c56=0.95, c53=0.3, c31=0.2)
    asked = np.array([5, 3, 6], np.int32)
    candidates, similarity = item_rules.question_candidates(counts, neighbors, asked, num=4)
    # 6 is most like 5, and was never seen; 2 came directly before 3, 1 one place earlier.
    assert candidates.tolist() == [[2, 3, 1, 4], [1, 2, 4, 0], [1, 2, 3, 4]]
    np.testing.assert_allclose(similarity, [[0.9, 0.3, 0, 0], [0.2, 0, 0, 0], [0, 0, 0, 0]])
    any_item = item_rules.question_candidates(counts, neighbors, asked[:1], num=4, known=False)[0]
    assert any_item.tolist() == [[6, 2, 3, 1]]
    short = item_rules.question_candidates(counts, neighbors, asked[:1], num=1)[0]
    assert short.tolist() == [[2]]
    with pytest.raises(ValueError, match=r"asked span 9\.\.9; expected 1\.\.6"):
        item_rules.question_candidates(counts, neighbors, np.array([9], np.int32))


def test_an_item_enters_a_list_as_easily_as_its_rule_is_stronger_than_those_there():
    rules = csr_array(np.array([[0, 0, 0, 0], [0, 0, 3.0, 1.0], [0, 0, 0, 2.0], [0, 0, 0, 0]]))
    candidates, strength = np.array([[1, 2, 3, 0]]), np.array([[1.0, 1.0, 1.0, 0.0]])
    np.testing.assert_allclose(item_rules.entry_chances(rules, candidates, strength, k=2), [[0.5, 1, 1, 0]])
    np.testing.assert_allclose(item_rules.entry_chances(rules, candidates, strength, k=1), [[0.25, 1 / 3, 1, 0]])


def test_answers_become_rules_from_the_named_items_to_the_one_asked_about():
    answers = Rankings.from_top_k(np.array([5, 6], np.int32), np.array([[2, 1], [6, -1]], np.int32))
    rules = item_rules.answer_rules(answers, 6, place_decay=0.5).toarray()
    expected = np.zeros((7, 7))
    expected[2, 5], expected[1, 5] = 1, 0.5
    np.testing.assert_array_equal(rules, expected, "an item does not follow itself")
    with pytest.raises(ValueError, match="place_decay is 0"):
        item_rules.answer_rules(answers, 6, place_decay=0.0)
    with pytest.raises(ValueError, match=r"items of answers span 1\.\.6; expected 1\.\.5"):
        item_rules.answer_rules(answers, 5)


def test_a_simulated_teacher_names_what_is_similar_and_errs_as_often_as_stated():
    asked = np.arange(1, 2_001, dtype=np.int32)
    candidates = np.tile(np.arange(3_001, 3_021, dtype=np.int32), (2_000, 1))
    similarity = np.tile(np.r_[0.1, 0.5, 0.9, np.zeros(17)], (2_000, 1))
    exact = name_by_similarity(0, asked, candidates, similarity, k=3)
    assert (exact.items == [3_003, 3_002, 0]).all()
    assert (exact.mask == [True, True, False]).all()
    noisy = name_by_similarity(0, asked, candidates, similarity, k=3, accuracy=0.7)
    is_exact = (noisy.items == exact.items).all(1)
    assert abs(is_exact.mean() - 0.7) < 0.04
    assert (noisy.mask == exact.mask).all(), "errors are as long as answers"
    again = name_by_similarity(0, asked[5:9], candidates[:4], similarity[:4], k=3, accuracy=0.7)
    np.testing.assert_array_equal(again.items, noisy.items[5:9], "an answer depends on seed and item alone")
    candidates[:, 2] = 0
    shown = name_by_similarity(0, asked[:1], candidates[:1], similarity[:1], k=3)
    assert shown.items.tolist() == [[3_002, 0, 0]]


@pytest.mark.usefixtures("unchecked_types")
def test_options_of_the_simulated_teacher_are_checked():
    asked, ones = np.array([1], np.int32), np.ones((1, 2))
    with pytest.raises(ValueError, match=r"shapes are candidates \[1, 2\], similarity \[2, 2\]"):
        name_by_similarity(0, asked, np.ones((1, 2), np.int32), np.ones((2, 2)))
    with pytest.raises(ValueError, match="accuracy is 2"):
        name_by_similarity(0, asked, np.ones((1, 2), np.int32), ones, accuracy=2.0)
