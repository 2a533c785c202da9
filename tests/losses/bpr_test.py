"""Losses against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import losses
from alkd_jax.losses import bpr
from alkd_jax.ops import in_batch_pairs


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


def random_rows(key, rows=37, dim=5):
    """Rows with repeated targets, repeated sessions and some of weight zero."""
    keys = jax.random.split(key, 5)
    vectors, target_vectors = jax.random.normal(keys[0], (rows, dim)), jax.random.normal(keys[1], (rows, dim))
    target, session = jax.random.randint(keys[2], (rows,), 1, 12), jax.random.randint(keys[3], (rows,), 0, 15)
    return vectors, target_vectors, target, session, jax.random.randint(keys[4], (rows,), 0, 4).astype(jnp.float32)


def from_scores(vectors, target_vectors, target, session, weight, released):
    negatives = session[:, None] != session[None, :]
    scores = vectors @ target_vectors.T
    return losses.in_batch_bpr(scores, target, weight=weight, negatives=negatives, released=released)


@pytest.mark.parametrize("released", [False, True])
def test_fused_loss_and_gradient_equal_the_plain_ones(key, released):
    rows = random_rows(key)
    both = [
        jax.value_and_grad(loss, argnums=(0, 1))(*rows, released) for loss in (losses.fused_in_batch_bpr, from_scores)
    ]
    for fused, plain in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(fused, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("form", [in_batch_pairs._gradients_at_once, in_batch_pairs._gradients_on_tpu])
def test_the_forms_for_accelerators_have_the_same_gradient(key, released, form):
    vectors, target_vectors, target, session, weight = random_rows(key)
    rows = in_batch_pairs.Rows(vectors, target_vectors, weight, (target, session))
    pair_loss = bpr._RELEASED if released else bpr._CLEAN
    expected = in_batch_pairs._gradients(pair_loss, rows, len(weight))
    for one, other in zip(jax.jit(form, static_argnums=0)(pair_loss, rows), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("tile", [1, 8, 37, 100])
def test_tiles_of_any_size_add_up_to_the_plain_loss_and_gradient(key, released, tile):
    vectors, target_vectors, target, session, weight = random_rows(key)
    rows = in_batch_pairs.Rows(vectors, target_vectors, weight, (target, session))
    pair_loss = bpr._RELEASED if released else bpr._CLEAN
    loss_sum, total = in_batch_pairs._pair_sums(pair_loss, rows, tile)
    gradients = in_batch_pairs._gradients(pair_loss, rows, tile)
    plain = jax.value_and_grad(from_scores, argnums=(0, 1))
    expected = plain(vectors, target_vectors, target, session, weight, released)
    for one, other in zip(jax.tree.leaves((loss_sum / total, gradients)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_fused_gradient_equals_finite_differences(key):
    vectors, *rest = random_rows(key, rows=9, dim=3)
    gradient = jax.grad(losses.fused_in_batch_bpr)(vectors, *rest)
    direction = jax.random.normal(jax.random.key(7), vectors.shape)
    step = 1e-2
    ahead, behind = (losses.fused_in_batch_bpr(vectors + sign * step * direction, *rest) for sign in (1, -1))
    np.testing.assert_allclose((gradient * direction).sum(), (ahead - behind) / (2 * step), rtol=1e-3)


def test_fused_loss_maps_over_seeds(key):
    rows = [random_rows(k) for k in jax.random.split(key, 3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
    together = jax.vmap(jax.grad(losses.fused_in_batch_bpr))(*stacked)
    for one, row in zip(together, rows, strict=True):
        np.testing.assert_allclose(one, jax.grad(losses.fused_in_batch_bpr)(*row), rtol=1e-5, atol=1e-7)


def test_fused_gradient_without_any_pair_is_zero():
    same = jnp.asarray([4, 4])
    gradient = jax.grad(losses.fused_in_batch_bpr)(jnp.ones((2, 3)), jnp.ones((2, 3)), same, same, jnp.ones(2))
    assert not gradient.any()
