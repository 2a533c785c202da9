"""The value of questions about items, and the game over them."""

import numpy as np
import pytest

from alkd_jax import maxmin, selection


def test_use_is_the_share_of_events_that_counts_do_not_explain():
    popularity = np.array([0.0, 0, 0, 0, 1, 1, 5])
    prior = 2 / 3
    total = 7 + 6 * prior
    expected = [(n + prior) / total * (prior / (n + prior)) ** 2 for n in popularity[1:]]
    np.testing.assert_allclose(selection.expected_use(popularity), [0, *expected])
    with pytest.raises(ValueError, match="popularity is 0 for every item"):
        selection.expected_use(np.zeros(3))
    with pytest.raises(ValueError, match=r"popularity\[1\] is -1"):
        selection.expected_use(np.array([0.0, -1, 3]))


def test_a_question_is_worth_its_use_times_the_chance_that_its_answer_changes_a_list():
    use = np.array([0.2, 0.1, 0.3])
    named, entry = np.array([[0.5, 1.0], [1.0, 1.0], [0.0, 0.9]]), np.array([[0.1, 0.5], [0.1, 0.0], [0.7, 0.0]])
    value = selection.question_values(use, named, entry)
    np.testing.assert_allclose(value, [0.2 * (1 - 0.95 * 0.5), 0.1 * 0.1, 0], atol=1e-15)
    for wrong in ({"named": np.full((1, 1), 2.0)}, {"entry": np.full((1, 1), -1.0)}):
        with pytest.raises(ValueError, match=rf"{next(iter(wrong))}\[0, 0\] is"):
            selection.question_values(**{"use": use[:1], "named": np.ones((1, 1)), "entry": np.ones((1, 1))} | wrong)


@pytest.mark.usefixtures("unchecked_types")
def test_shapes_of_values_are_checked():
    with pytest.raises(ValueError, match=r"shapes are named \[1, 1\], entry \[1, 2\]"):
        selection.question_values(np.ones(1), np.ones((1, 1)), np.ones((1, 2)))


def test_items_are_drawn_from_the_policy_of_the_game_of_their_values(key):
    value = np.r_[np.zeros(5), np.linspace(1, 2, 40)]
    chosen = selection.select_items(key, value, num=20)
    assert len(set(chosen.tolist())) == 20
    assert chosen.min() >= 5
    gain = value[5:]
    solution = maxmin.solve(gain, gain / 2, gain / 2, num_effective=4, num_similar=20)
    support = 5 + np.flatnonzero(np.asarray(solution.log_policy) > -np.inf)
    assert set(chosen.tolist()) <= set(support.tolist())


def test_a_game_with_fewer_items_than_questions_is_completed_by_value(key):
    value = np.r_[1.0, 0.5, 1e-3 * np.arange(1, 9), 0.0]
    assert selection.select_items(key, value, num=6, ratios=(0, 1, 9)).tolist() == [0, 1, 9, 8, 7, 6]
    with pytest.raises(ValueError, match="num is 11; expected 1 to 10"):
        selection.select_items(key, value, num=11)
    with pytest.raises(ValueError, match=r"value\[0\] is nan"):
        selection.select_items(key, np.array([np.nan]), num=1)
