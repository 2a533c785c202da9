"""Losses against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import losses


def softplus(x):
    return np.log1p(np.exp(x))


def test_two_rows_give_the_mean_of_two_pairs():
    scores = jnp.asarray([[2.0, 0.5], [1.0, 1.5]])
    expected = (softplus(0.5 - 2.0) + softplus(1.0 - 1.5)) / 2
    np.testing.assert_allclose(losses.in_batch_bpr(scores, jnp.asarray([4, 9])), expected, rtol=1e-6)


def test_equal_targets_are_no_negatives():
    scores = jnp.asarray([[2.0, 9.0, 0.5], [9.0, 1.5, 1.0], [0.0, 0.0, 0.0]])
    target = jnp.asarray([4, 4, 7])
    expected = (softplus(0.5 - 2.0) + softplus(1.0 - 1.5) + 2 * softplus(0.0)) / 4
    np.testing.assert_allclose(losses.in_batch_bpr(scores, target), expected, rtol=1e-6)


def test_rows_of_weight_zero_neither_lose_nor_serve_as_negatives(key):
    scores = jax.random.normal(key, (5, 5))
    target, weight = jnp.arange(1, 6), jnp.asarray([1.0, 1.0, 0.0, 1.0, 0.0])
    kept = jnp.asarray([0, 1, 3])
    for released in (False, True):
        weighted = losses.in_batch_bpr(scores, target, weight=weight, released=released)
        alone = losses.in_batch_bpr(scores[kept][:, kept], target[kept], released=released)
        np.testing.assert_allclose(weighted, alone, rtol=1e-6)


def test_weights_scale_rows():
    scores = jnp.asarray([[2.0, 0.5], [1.0, 1.5]])
    expected = (3 * softplus(0.5 - 2.0) + softplus(1.0 - 1.5)) / 4
    loss = losses.in_batch_bpr(scores, jnp.asarray([4, 9]), weight=jnp.asarray([3.0, 1.0]))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_only_allowed_negatives_count():
    scores = jnp.asarray([[2.0, 0.5, 8.0], [1.0, 1.5, 8.0], [8.0, 8.0, 0.0]])
    negatives = jnp.asarray([[False, True, False], [True, False, False], [False, False, False]])
    expected = (softplus(0.5 - 2.0) + softplus(1.0 - 1.5)) / 2
    loss = losses.in_batch_bpr(scores, jnp.asarray([4, 9, 2]), negatives=negatives)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_released_form_keeps_the_diagonal_and_equal_targets():
    scores = np.asarray([[2.0, 0.5], [1.0, 1.5]])
    margins = np.diagonal(scores)[:, None] - scores
    expected = -np.log(1e-10 + 1 / (1 + np.exp(-margins))).mean()
    loss = losses.in_batch_bpr(jnp.asarray(scores), jnp.asarray([4, 4]), released=True)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_no_pair_gives_zero_with_a_finite_gradient():
    value, gradient = jax.value_and_grad(lambda s: losses.in_batch_bpr(s, jnp.asarray([4, 4])))(jnp.ones((2, 2)))
    assert value == 0.0
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_extreme_scores_stay_finite(size):
    scores = size * jnp.asarray([[-1.0, 1.0], [1.0, -1.0]])
    value, gradient = jax.value_and_grad(lambda s: losses.in_batch_bpr(s, jnp.asarray([1, 2])))(scores)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
