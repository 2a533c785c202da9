"""The conditional logit against closed forms, and against an optimizer that shares no code with it."""

import numpy as np
import pytest
import scipy.optimize

from alkd_jax.evaluation import conditional_logit
from alkd_jax.evaluation.conditional_logit import Choices


def random_choices(num_lists=300, length=6, num_features=3, *, coefficients=(1.0, -0.5, 0.0), seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num_lists, length, num_features))
    mask = np.arange(length) < rng.integers(2, length + 1, num_lists)[:, None]
    noise = rng.gumbel(size=(num_lists, length))
    scores = np.where(mask, features @ np.asarray(coefficients) + noise, -np.inf)
    return Choices(np.where(mask[..., None], features, np.nan), mask, scores.argmax(1))


def negative_objective(coefficients, choices, ridge):
    """Written list by list, without masks."""
    total = -0.5 * ridge * np.dot(coefficients, coefficients)
    for features, mask, chosen in zip(choices.features, choices.mask, choices.chosen, strict=True):
        scores = {k: float(features[k] @ coefficients) for k in np.flatnonzero(mask)}
        total += scores[chosen] - np.log(sum(np.exp(score) for score in scores.values()))
    return -total


def test_a_choice_between_two_items_has_a_closed_form():
    # The first item is chosen in 3 of 4 lists: exp(β) / (1 + exp(β)) = 3/4.
    features = np.broadcast_to(np.array([[1.0], [0.0]]), (4, 2, 1))
    choices = Choices(features, np.ones((4, 2), bool), np.array([0, 0, 0, 1]))
    assert conditional_logit.fit(choices, ridge=0.0) == pytest.approx([np.log(3)], abs=1e-7)
    expected = np.log([0.75, 0.75, 0.75, 0.25])
    assert conditional_logit.log_likelihood(np.log([3.0]), choices) == pytest.approx(expected)


@pytest.mark.parametrize("ridge", [0.0, 1.0, 30.0])
def test_the_maximum_is_that_of_an_independent_optimizer(ridge):
    choices = random_choices(num_lists=60)
    found = conditional_logit.fit(choices, ridge=ridge)
    expected = scipy.optimize.minimize(
        negative_objective, np.zeros(3), args=(choices, ridge), method="Nelder-Mead", options={"xatol": 1e-7}
    )
    assert found == pytest.approx(expected.x, abs=1e-4)
    assert negative_objective(found, choices, ridge) <= expected.fun + 1e-9


def test_what_informs_gains_and_noise_does_not():
    choices = random_choices(num_lists=2000, length=5)
    nothing = Choices(np.zeros((2000, 5, 1)), choices.mask, choices.chosen)
    uniform = -np.log(choices.mask.sum(1))
    assert conditional_logit.cross_fitted(nothing) == pytest.approx(uniform)
    informed = Choices(choices.features[..., :1], choices.mask, choices.chosen)
    noise = Choices(choices.features[..., 2:], choices.mask, choices.chosen)
    assert (conditional_logit.cross_fitted(informed) - uniform).mean() > 0.1
    gain = conditional_logit.cross_fitted(noise) - uniform
    assert -0.002 < gain.mean() < 0.002, "out of sample, a useless feature gains nothing"


def test_scaling_and_shifting_features_changes_nothing():
    choices = random_choices()
    other = Choices(choices.features * [10.0, 0.01, 3.0] + [5.0, -1.0, 2.0], choices.mask, choices.chosen)
    found, expected = (conditional_logit.cross_fitted(each, folds=3) for each in (other, choices))
    assert found == pytest.approx(expected, abs=1e-7)


def test_a_held_out_list_is_predicted_by_the_others():
    choices = random_choices(num_lists=20)
    found = conditional_logit.cross_fitted(choices, folds=20)
    scaled = conditional_logit.standardized(choices)
    others = conditional_logit.fit(scaled.take(np.arange(20) != 7))
    assert found[7] == pytest.approx(conditional_logit.log_likelihood(others, scaled)[7])


def test_a_feature_that_separates_the_chosen_has_no_maximum_without_a_penalty():
    features = np.broadcast_to(np.array([[1.0], [0.0]]), (4, 2, 1))
    choices = Choices(features, np.ones((4, 2), bool), np.zeros(4, int))
    assert np.isfinite(conditional_logit.fit(choices)).all()
    likelihood = conditional_logit.log_likelihood(conditional_logit.fit(choices, ridge=1e-6), choices)
    assert likelihood == pytest.approx(0, abs=1e-4)


def test_bad_choices_are_refused_in_one_line():
    features, mask = np.zeros((2, 3, 1)), np.array([[True, True, False]] * 2)
    with pytest.raises(ValueError, match=r"chosen of list 1 is 2, where there is no item"):
        Choices(features, mask, np.array([0, 2]))
    with pytest.raises(ValueError, match=r"shapes are features \(0, 3, 1\)"):
        Choices(features[:0], mask[:0], np.zeros(0, int))
    with pytest.raises(ValueError, match="features"):
        Choices(np.full((2, 3, 1), np.inf), mask, np.array([0, 1]))
    with pytest.raises(ValueError, match="folds is 3"):
        conditional_logit.cross_fitted(Choices(features, mask, np.array([0, 1])), folds=3)
