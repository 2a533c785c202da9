import math

import numpy as np
import pytest
from scipy.sparse import csr_array

from alkd_jax import baselines
from alkd_jax.distillation.item_rules import rules
from alkd_jax.types import Rankings, Sequences, Sessions

SEQUENCES = Sequences(items=np.array([1, 2, 3, 2, 1, 4, 4], np.int32), offsets=np.array([0, 3, 7]))


def dense(matrix) -> np.ndarray:
    return np.asarray(matrix.todense())


def rule_matrix(*entries: tuple[int, int, float], num_items: int = 4) -> csr_array:
    row, column, weight = zip(*entries, strict=True)
    return csr_array((weight, (row, column)), shape=(num_items + 1,) * 2)


def test_cooccurrence_rules_are_bidirectional_and_exclude_the_item_itself():
    followers = dense(baselines.count(SEQUENCES, 4, decay=0.5).followers)
    assert followers[4, 4] == 1
    actual = dense(rules.cooccurrence_rules(baselines.count(SEQUENCES, 4, decay=0.5), backward=0.25))
    expected = followers + 0.25 * followers.T
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(actual, expected)
    assert actual[1, 2] == 1 + 0.25 * 1
    assert actual[1, 3] == 0.5


def test_title_rules_are_squared_cosines_of_tf_idf_vectors():
    titles = ["", "Halo 3", "Halo Wars", "Halo 3 guide", "Tetris"]
    actual = dense(rules.title_rules(titles, min_cosine=0.01))
    np.testing.assert_allclose(actual, actual.T)
    assert actual[1, 3] > actual[1, 2] > 0 == actual[1, 4]
    assert not actual.diagonal().any()
    # Smoothed idf over five texts, the empty one included.
    idf = {w: math.log(6 / (1 + n)) + 1 for w, n in {"halo": 3, "3": 2, "wars": 1}.items()}
    one, two = (idf["halo"], idf["3"]), (idf["halo"], idf["wars"])
    assert actual[1, 2] == pytest.approx((idf["halo"] ** 2 / math.hypot(*one) / math.hypot(*two)) ** 2)
    assert dense(rules.title_rules(titles, min_cosine=0.5))[1, 2] == 0


def test_title_rules_do_not_depend_on_the_block_size(monkeypatch):
    titles = ["", *(f"part {n % 3} of {n % 5}" for n in range(11))]
    whole = dense(rules.title_rules(titles))
    monkeypatch.setattr(rules, "_BLOCK", 4)
    np.testing.assert_allclose(dense(rules.title_rules(titles)), whole)


def test_list_rules_connect_the_items_of_a_session_with_its_list():
    sessions = Sessions(
        items=np.array([[1, 2, 0], [3, 0, 0]], np.int32),
        mask=np.array([[True, True, False], [True, False, False]]),
        target=np.array([4, 4], np.int32),
        session_id=np.array([7, 9], np.int32),
    )
    lists = Rankings(
        session_id=np.array([7], np.int32), items=np.array([[4, 1, 0]], np.int32), mask=np.array([[True, True, False]])
    )
    actual = dense(rules.list_rules(lists, sessions, 4, recency=0.5, weights=(3, 1, 1)))
    expected = np.zeros((5, 5))
    expected[2, 4], expected[2, 1], expected[1, 4] = 0.75, 0.25, 0.375  # what 1 says of itself is left out
    np.testing.assert_allclose(actual, expected)
    stranger = lists.replace(session_id=np.array([8], np.int32))
    with pytest.raises(ValueError, match="the first 8, of no session"):
        rules.list_rules(stranger, sessions, 4, weights=(1, 1, 1))
    with pytest.raises(ValueError, match="weights has 2 numbers"):
        rules.list_rules(lists, sessions, 4, weights=(1, 1))


def test_added_rules_are_proportional_to_the_sum_of_an_items_rules():
    mixed = dense(
        rules.add_rules(rule_matrix((1, 2, 6.0), (3, 1, 0.5)), rule_matrix((1, 3, 2.0), (1, 4, 2.0), (3, 2, 9.0)), 0.5)
    )
    expected = np.zeros((5, 5))
    expected[1, 2], expected[1, 3], expected[1, 4] = 6, 1.5, 1.5
    expected[3, 1], expected[3, 2] = 0.5, 0.5
    np.testing.assert_allclose(mixed, expected)


def test_rule_targets_are_the_strongest_rules_sharpened():
    actual = rules.rule_targets(rule_matrix((1, 2, 1.0), (1, 3, 4.0), (1, 4, 2.0), (3, 1, 2.0)), k=2, power=2.0)
    np.testing.assert_array_equal(actual.items, [1, 3])
    np.testing.assert_array_equal(actual.list_items, [[3, 4], [1, 0]])
    np.testing.assert_allclose(actual.list_gain, [[0.8, 0.2], [1.0, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(actual.mass, [7, 2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rules.rule_targets(csr_array((3, 3))), "rules is 0 for every item"),
        (lambda: rules.rule_targets(rule_matrix((1, 2, 1.0)), k=0), "k is 0"),
        (lambda: rules.rule_targets(rule_matrix((1, 2, 1.0)), power=0.0), "power is 0.0"),
        (lambda: rules.add_rules(rule_matrix((1, 2, 1.0)), rule_matrix((1, 2, 1.0)), -1.0), "share is -1.0"),
        (lambda: rules.cooccurrence_rules(baselines.count(SEQUENCES, 4), backward=-1.0), "backward is -1.0"),
        (lambda: rules.title_rules(["", "a"], min_cosine=0.0), "min_cosine is 0.0"),
    ],
)
def test_impossible_options_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_confidence_is_the_weight_of_a_list():
    sessions = Sessions(
        items=np.array([[1], [3]], np.int32),
        mask=np.ones((2, 1), bool),
        target=np.array([4, 4], np.int32),
        session_id=np.array([7, 9], np.int32),
    )
    lists = Rankings(np.array([9, 7], np.int32), np.array([[2], [2]], np.int32), np.ones((2, 1), bool))
    actual = dense(rules.list_rules(lists, sessions, 4, weights=(1,), confidence=np.array([0.5, 2.0])))
    assert (actual[3, 2], actual[1, 2]) == (0.5, 2.0)
    for wrong, message in (
        ([1.0], "expected one for each of 2 lists"),
        ([1.0, -1.0], r"confidence\[1\] is -1; expected at least 0"),
        ([1.0, np.nan], r"confidence\[1\] is nan; expected a finite number"),
    ):
        with pytest.raises(ValueError, match=message):
            rules.list_rules(lists, sessions, 4, weights=(1,), confidence=np.array(wrong))


def test_random_walks_follow_the_rules_by_their_weights():
    rule = rule_matrix((1, 2, 3.0), (1, 3, 1.0), (2, 1, 5.0))
    start = np.array([0.0, 1.0, 0.0, 0.0, 1.0])
    actual = rules.random_walk_sessions(np.random.default_rng(0), rule, start, 4000, length=3)
    walks = np.split(actual.items, actual.offsets[1:-1])
    # Item 4 has no rules: half the walks end where they begin and are left out.
    assert len(walks) == pytest.approx(2000, abs=150)
    assert {tuple(walk) for walk in walks} == {(1, 2, 1), (1, 3)}
    assert np.mean([walk[1] == 2 for walk in walks]) == pytest.approx(0.75, abs=0.04)
    with pytest.raises(ValueError, match=r"start\[0\] is 1"):
        rules.random_walk_sessions(np.random.default_rng(0), rule, np.ones(5), 5)
