import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import losses


def softplus(x):
    return np.log1p(np.exp(x))


def test_generalized_cross_entropy_by_hand():
    positive, negative = jnp.array([0.5, -1.0], jnp.float32), jnp.array([[1.0, 2.0], [0.0, -3.0]], jnp.float32)
    # α = 2/8 and t = 0.75: β = 0.25 (0.75 (1 − 4) + 4).
    beta = 0.25 * (0.75 * (1 - 4) + 4)
    rows = (beta * softplus(-np.float64(positive)) + softplus(np.float64(negative)).sum(1)) / 3
    found = losses.generalized_cross_entropy(positive, negative, num_items=9, calibration=0.75)
    np.testing.assert_allclose(found, rows.mean(), rtol=1e-6)
    where = jnp.array([[True, False], [True, True]])
    rows[0] = (beta * softplus(-0.5) + softplus(1.0)) / 3
    found = losses.generalized_cross_entropy(
        positive, negative, num_items=9, where=where, weight=jnp.array([3.0, 1.0], jnp.float32)
    )
    np.testing.assert_allclose(found, (3 * rows[0] + rows[1]) / 4, rtol=1e-6)


def test_without_calibration_it_is_the_binary_cross_entropy_over_target_and_negatives():
    positive, negative = jnp.array([0.5], jnp.float32), jnp.array([[1.0, 2.0]], jnp.float32)
    found = losses.generalized_cross_entropy(positive, negative, num_items=9, calibration=0.0)
    np.testing.assert_allclose(found, (softplus(-0.5) + softplus(1.0) + softplus(2.0)) / 3, rtol=1e-6)


def test_a_calibration_out_of_range_is_refused():
    positive, negative = jnp.zeros(1, jnp.float32), jnp.zeros((1, 2), jnp.float32)
    with pytest.raises(ValueError, match=r"calibration is 1.5; expected"):
        losses.generalized_cross_entropy(positive, negative, num_items=9, calibration=1.5)
