"""Products, dropout and tiles that are shaped for speed, against the plain formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax.ops import products, tiles
from alkd_jax.ops.dropout import dropout


def assert_same_gradients(fast, plain, *args):
    """Compares values and gradients of two functions of arrays."""
    both = [jax.value_and_grad(lambda *a, f=f: (f(*a) ** 2).sum(), range(len(args)))(*args) for f in (fast, plain)]
    for one, other in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dim", [4, 10, 40])
def test_products_over_the_items_of_sessions_have_the_values_and_gradients_of_the_plain_formulas(key, dim):
    keys = jax.random.split(key, 6)
    x, other = jax.random.normal(keys[0], (3, 6, dim)), jax.random.normal(keys[1], (3, 5, dim))
    kernel, bias, query = (jax.random.normal(k, s) for k, s in zip(keys[2:5], ((dim, 7), (7,), (3, dim)), strict=True))
    weight = jax.random.normal(keys[5], (3, 6))
    for linear in (products.linear, products.linear_of_stored):
        assert_same_gradients(linear, lambda x, w, b: jnp.einsum("bld,de->ble", x, w) + b[None, None], x, kernel, bias)
    (tangent,) = jax.jvp(lambda x: products.linear_of_stored(x, kernel, bias), (x,), (x,))[1:]
    np.testing.assert_allclose(tangent, products.linear(x, kernel), rtol=1e-5, atol=1e-6)
    assert_same_gradients(products.project_items, lambda x, w: jnp.einsum("bld,de->ble", x, w), x, kernel)
    assert_same_gradients(products.add_to_items, lambda x, q: x + q[:, None], x, query)
    assert_same_gradients(products.weighted_sum, lambda w, x: (w[..., None] * x).sum(1), weight, x)
    assert_same_gradients(products.batched_product, lambda q, k: jnp.einsum("nkp,nlp->nkl", q, k), other, x)


@pytest.mark.parametrize("num", [1, 4, 5])
def test_prefix_products_multiply_the_first_vectors_by_each_kernel(key, num):
    x = jax.random.normal(key, (2, num, 3))
    kernels = [jax.random.normal(jax.random.key(i), (i * 3, 3)) for i in range(1, num + 1)]

    def plain(x, *kernels):
        return jnp.stack([x[:, :i].reshape(2, -1) @ kernel for i, kernel in enumerate(kernels, start=1)], axis=1)

    assert_same_gradients(lambda x, *kernels: products.prefix_products(x, kernels), plain, x, *kernels)


@pytest.mark.parametrize("width", [7, 64])
def test_dropout_drops_at_its_rate_and_keeps_the_mean(key, width):
    dropped = dropout(key, jnp.ones((2000, width)), 0.3)
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.7)}
    np.testing.assert_allclose((np.asarray(dropped) == 0).mean(0), 0.3, atol=0.06)
    np.testing.assert_allclose(dropped.mean(), 1.0, atol=0.02)
    # Entries that share a random word fall independently.
    falls = np.asarray(dropped == 0, float)
    half = -(-width // 2)
    assert abs(np.corrcoef(falls[:, 0], falls[:, half])[0, 1]) < 0.1


@pytest.mark.parametrize("max_rows", [1, 3, 4, 7, 20])
def test_tiles_of_rows_are_put_together_in_their_order(max_rows):
    x, y = jnp.arange(14.0).reshape(7, 2), jnp.arange(7.0)
    total, double = tiles.map_tiles(lambda x, y: (x.sum(1) + y, 2 * x), max_rows, x, y)
    np.testing.assert_array_equal(total, x.sum(1) + y)
    np.testing.assert_array_equal(double, 2 * x)
