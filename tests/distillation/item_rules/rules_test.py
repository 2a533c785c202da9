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


def made(*entries: tuple[int, int, float], num_items: int = 4) -> csr_array:
    row, column, weight = zip(*entries, strict=True)
    return csr_array((weight, (row, column)), shape=(num_items + 1,) * 2)


def test_follow_rules_look_both_ways_and_leave_out_the_item_itself():
    followers = dense(baselines.count(SEQUENCES, 4, decay=0.5).followers)
    assert followers[4, 4] == 1
    found = dense(rules.cooccurrence_rules(baselines.count(SEQUENCES, 4, decay=0.5), backward=0.25))
    wanted = followers + 0.25 * followers.T
    np.fill_diagonal(wanted, 0)
    np.testing.assert_allclose(found, wanted)
    assert found[1, 2] == 1 + 0.25 * 1
    assert found[1, 3] == 0.5


def test_title_rules_are_squared_cosines_of_rare_words():
    titles = ["", "Halo 3", "Halo Wars", "Halo 3 guide", "Tetris"]
    found = dense(rules.title_rules(titles, least=0.01))
    np.testing.assert_allclose(found, found.T)
    assert found[1, 3] > found[1, 2] > 0 == found[1, 4]
    assert not found.diagonal().any()
    # Smoothed idf over five texts, the empty one included.
    idf = {w: math.log(6 / (1 + n)) + 1 for w, n in {"halo": 3, "3": 2, "wars": 1}.items()}
    one, two = (idf["halo"], idf["3"]), (idf["halo"], idf["wars"])
    assert found[1, 2] == pytest.approx((idf["halo"] ** 2 / math.hypot(*one) / math.hypot(*two)) ** 2)
    assert dense(rules.title_rules(titles, least=0.5))[1, 2] == 0


def test_title_rules_do_not_depend_on_the_block(monkeypatch):
    titles = ["", *(f"part {n % 3} of {n % 5}" for n in range(11))]
    whole = dense(rules.title_rules(titles))
    monkeypatch.setattr(rules, "_BLOCK", 4)
    np.testing.assert_allclose(dense(rules.title_rules(titles)), whole)


def test_list_rules_lay_a_list_to_the_items_of_its_session():
    sessions = Sessions(
        items=np.array([[1, 2, 0], [3, 0, 0]], np.int32),
        mask=np.array([[True, True, False], [True, False, False]]),
        target=np.array([4, 4], np.int32),
        session_id=np.array([7, 9], np.int32),
    )
    lists = Rankings(
        session_id=np.array([7], np.int32), items=np.array([[4, 1, 0]], np.int32), mask=np.array([[True, True, False]])
    )
    found = dense(rules.list_rules(lists, sessions, 4, recency=0.5, weights=(3, 1, 1)))
    wanted = np.zeros((5, 5))
    wanted[2, 4], wanted[2, 1], wanted[1, 4] = 0.75, 0.25, 0.375  # what 1 says of itself is left out
    np.testing.assert_allclose(found, wanted)
    stranger = lists.replace(session_id=np.array([8], np.int32))
    with pytest.raises(ValueError, match="the first is 8"):
        rules.list_rules(stranger, sessions, 4, weights=(1, 1, 1))
    with pytest.raises(ValueError, match="2 weights for lists of 3"):
        rules.list_rules(lists, sessions, 4, weights=(1, 1))


def test_a_blend_adds_in_proportion_to_what_an_item_says():
    mixed = dense(rules.add_rules(made((1, 2, 6.0), (3, 1, 0.5)), made((1, 3, 2.0), (1, 4, 2.0), (3, 2, 9.0)), 0.5))
    wanted = np.zeros((5, 5))
    wanted[1, 2], wanted[1, 3], wanted[1, 4] = 6, 1.5, 1.5
    wanted[3, 1], wanted[3, 2] = 0.5, 0.5
    np.testing.assert_allclose(mixed, wanted)


def test_lessons_are_the_strongest_rules_sharpened():
    found = rules.rule_targets(made((1, 2, 1.0), (1, 3, 4.0), (1, 4, 2.0), (3, 1, 2.0)), k=2, power=2.0)
    np.testing.assert_array_equal(found.item, [1, 3])
    np.testing.assert_array_equal(found.listed, [[3, 4], [1, 0]])
    np.testing.assert_allclose(found.gain, [[0.8, 0.2], [1.0, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(found.mass, [7, 2])


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: rules.rule_targets(csr_array((3, 3))), "no item has a rule"),
        (lambda: rules.rule_targets(made((1, 2, 1.0)), k=0), "k is 0"),
        (lambda: rules.rule_targets(made((1, 2, 1.0)), power=0.0), "power 0.0"),
        (lambda: rules.add_rules(made((1, 2, 1.0)), made((1, 2, 1.0)), -1.0), "share is -1.0"),
        (lambda: rules.cooccurrence_rules(baselines.count(SEQUENCES, 4), backward=-1.0), "backward is -1.0"),
        (lambda: rules.title_rules(["", "a"], least=0.0), "least is 0.0"),
    ],
)
def test_impossible_options_are_refused(call, told):
    with pytest.raises(ValueError, match=told):
        call()


def test_a_list_counts_as_much_as_it_is_trusted():
    sessions = Sessions(
        items=np.array([[1], [3]], np.int32),
        mask=np.ones((2, 1), bool),
        target=np.array([4, 4], np.int32),
        session_id=np.array([7, 9], np.int32),
    )
    lists = Rankings(np.array([9, 7], np.int32), np.array([[2], [2]], np.int32), np.ones((2, 1), bool))
    found = dense(rules.list_rules(lists, sessions, 4, weights=(1,), confidence=np.array([0.5, 2.0])))
    assert (found[3, 2], found[1, 2]) == (0.5, 2.0)
    for wrong in ([1.0], [1.0, -1.0], [1.0, np.nan]):
        with pytest.raises(ValueError, match="expected one a list"):
            rules.list_rules(lists, sessions, 4, weights=(1,), confidence=np.array(wrong))


def test_walks_follow_the_rules_by_their_weights():
    rule = made((1, 2, 3.0), (1, 3, 1.0), (2, 1, 5.0))
    start = np.array([0.0, 1.0, 0.0, 0.0, 1.0])
    found = rules.random_walk_sessions(np.random.default_rng(0), rule, start, 4000, length=3)
    walks = np.split(found.items, found.offsets[1:-1])
    # Item 4 has no rules: half the walks end where they begin and are left out.
    assert len(walks) == pytest.approx(2000, abs=150)
    assert {tuple(walk) for walk in walks} == {(1, 2, 1), (1, 3)}
    assert np.mean([walk[1] == 2 for walk in walks]) == pytest.approx(0.75, abs=0.04)
    with pytest.raises(ValueError, match=r"start\[0\] 1"):
        rules.random_walk_sessions(np.random.default_rng(0), rule, np.ones(5), 5)
