"""Trees on a linear re-ranker: they start from its scores, follow the gradient of its likelihood, and find products."""

import dataclasses
import sys

import numpy as np
import pytest
import scipy.special

from alkd_jax.baselines import re_ranker, re_ranker_trees
from alkd_jax.evaluation.conditional_logit import Choices
from tests.helpers.extras import import_or_skip

LINEAR = re_ranker.ReRanker(np.array([0.7, 0.0]), np.array([0.1, 0.0]), np.array([2.0, 1.0]))


@pytest.fixture(autouse=True)
def installed():
    import_or_skip("lightgbm")


def lists(num_lists, seed=0):
    """Lists of up to six items; the chosen one follows a product of two features, which no sum of them can say."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num_lists, 6, 2))
    mask = np.arange(6) < rng.integers(3, 7, num_lists)[:, None]
    utility = 3 * features[..., 0] * features[..., 1] + rng.gumbel(size=(num_lists, 6))
    return Choices(features, mask, np.where(mask, utility, -np.inf).argmax(1))


def candidates(choices):
    return re_ranker.Candidates(np.where(choices.mask, np.arange(1, 7), 0), choices.features)


def log_likelihood(ranker, choices):
    logs = scipy.special.log_softmax(ranker.scores(candidates(choices)), axis=1)
    return logs[np.arange(len(choices)), choices.chosen].mean()


def test_trees_find_a_product_of_features_on_lists_that_they_have_not_seen():
    train, test = lists(2000), lists(500, seed=1)
    linear = re_ranker.fit_re_ranker(train)
    ranker = re_ranker_trees.fit_trees(train, linear, num_trees=200, num_leaves=8)
    assert log_likelihood(ranker, test) > log_likelihood(linear, test) + 0.4


def test_the_leaves_of_the_first_tree_are_newton_steps_from_the_linear_scores():
    choices = lists(400)
    ranker = re_ranker_trees.fit_trees(choices, LINEAR, num_trees=1, num_leaves=2, learning_rate=0.3)
    before = LINEAR.scores(candidates(choices))
    steps = ranker.scores(candidates(choices))[choices.mask] - before[choices.mask]
    leaves = np.unique(steps.round(9))
    assert len(leaves) == 2
    probability = scipy.special.softmax(before, axis=1)
    gradient = (probability - (np.arange(6) == choices.chosen[:, None]))[choices.mask]
    curvature = (probability * (1 - probability))[choices.mask]
    for leaf in leaves:
        of_leaf = np.abs(steps - leaf) < 1e-8
        expected = -0.3 * gradient[of_leaf].sum() / (curvature[of_leaf].sum() + 1.0)
        assert leaf == pytest.approx(expected, rel=1e-4)


def test_fewer_trees_are_the_first_ones_and_the_same_call_gives_the_same_trees():
    choices = lists(300)
    most = re_ranker_trees.fit_trees(choices, LINEAR, num_trees=20, num_leaves=4)
    few = re_ranker_trees.fit_trees(choices, LINEAR, num_trees=5, num_leaves=4)
    first = dataclasses.replace(most, num_trees=5).scores(candidates(choices))
    np.testing.assert_array_equal(few.scores(candidates(choices)), first)
    assert (most.scores(candidates(choices))[choices.mask] != first[choices.mask]).any()
    assert np.isneginf(first[~choices.mask]).all()
    nothing = re_ranker.Candidates(np.zeros((2, 3), np.int64), np.zeros((2, 3, 2)))
    assert np.isneginf(few.scores(nothing)).all()


def test_too_few_candidates_for_a_leaf_leave_the_linear_scores():
    choices = lists(3)
    ranker = re_ranker_trees.fit_trees(choices, LINEAR, num_trees=3)
    np.testing.assert_allclose(ranker.scores(candidates(choices)), LINEAR.scores(candidates(choices)), atol=0.2)


def test_features_that_are_all_the_same_are_refused():
    choices = lists(60)
    with pytest.raises(ValueError, match="are all the same"):
        re_ranker_trees.fit_trees(Choices(np.ones_like(choices.features), choices.mask, choices.chosen), LINEAR)


def test_bad_options_are_refused_and_a_missing_package_says_how_to_install_it(monkeypatch):
    for option in ({"num_trees": 0}, {"num_leaves": 1}, {"learning_rate": float("nan")}):
        with pytest.raises(ValueError, match=next(iter(option))):
            re_ranker_trees.fit_trees(lists(5), LINEAR, **option)
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(ModuleNotFoundError, match=r"alkd_jax\[trees\]"):
        re_ranker_trees.fit_trees(lists(5), LINEAR)
