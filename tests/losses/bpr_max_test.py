"""BPR-max against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import losses


@pytest.mark.parametrize("elu", [0.0, 0.5])
def test_bpr_max_is_its_definition(elu):
    rng = np.random.default_rng(0)
    positive, negative, weight = rng.normal(size=4), rng.normal(size=(4, 6)), np.array([1.0, 0.0, 2.0, 0.5])
    expected = 0.0
    for own, others, w in zip(positive, negative, weight, strict=True):
        own, *others = [s if s > 0 or not elu else elu * (np.exp(s) - 1) for s in [own, *others]]
        shares = np.exp(others) / np.exp(others).sum()
        wins = sum(share / (1 + np.exp(other - own)) for share, other in zip(shares, others, strict=True))
        penalty = sum(share * other**2 for share, other in zip(shares, others, strict=True))
        expected += w * (-np.log(wins) + 0.7 * penalty) / weight.sum()
    arrays = (jnp.asarray(array, jnp.float32) for array in (positive, negative))
    found = losses.bpr_max(*arrays, regularization=0.7, elu=elu, weight=jnp.asarray(weight, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_single_negative_gives_bpr():
    positive, negative = jnp.array([0.3, -1.0]), jnp.array([[0.5], [-2.0]])
    found = losses.bpr_max(positive, negative, regularization=0.0)
    np.testing.assert_allclose(found, losses.sampled_bpr(positive, negative), rtol=1e-6)


def test_negatives_that_do_not_count_have_neither_a_share_nor_a_gradient():
    positive, negative = jnp.array([0.3, 0.1]), jnp.array([[0.5, 9.0, -1.0], [1.0, 2.0, 3.0]])
    where = jnp.array([[True, False, True], [False, False, False]])

    def loss(negative):
        return losses.bpr_max(positive, negative, where=where, weight=jnp.array([1.0, 0.0]))

    value, gradient = jax.value_and_grad(loss)(negative)
    np.testing.assert_allclose(value, losses.bpr_max(positive[:1], negative[:1, ::2]), rtol=1e-6)
    assert np.isfinite(gradient).all()
    assert not gradient[0, 1]
    assert not gradient[1].any()
