"""The k largest by counting are those of a sort, and a draw of many is the draw of few."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import models, selection
from alkd_jax.selection import sampling, threshold


def test_bits_are_in_the_order_of_numbers_and_turn_back():
    numbers = np.float32([-np.inf, -3e38, -1.5, -1e-45, -0.0, 0.0, 1e-45, 2.0, 2.0000002, np.inf])
    bits = np.asarray(threshold.ordered_bits(jnp.asarray(numbers)))
    assert (np.diff(bits.astype(np.int64)) > 0).all()
    np.testing.assert_array_equal(
        np.asarray(threshold.number_of_bits(jnp.asarray(bits))).view(np.uint32), numbers.view(np.uint32)
    )


@pytest.mark.parametrize("k", [1, 7, 400, 999, 1000])
@pytest.mark.parametrize("levels", [3, 10**6])
def test_the_k_largest_are_those_of_a_stable_sort(k, levels):
    numbers = np.random.default_rng(k).integers(0, levels, 1000).astype(np.float32) - levels // 2
    bits, index = jax.jit(threshold.k_largest, static_argnums=1)(threshold.ordered_bits(jnp.asarray(numbers)), k)
    expected = np.argsort(-numbers.astype(np.float64), kind="stable")[:k]
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_array_equal(threshold.number_of_bits(bits), numbers[expected])


def test_few_and_many_are_drawn_alike(key, monkeypatch):
    # Three blocks, the last one short, and sessions that must not be drawn.
    monkeypatch.setattr(sampling, "RANDOM_BLOCK", 1024)
    policy = np.where(np.arange(2_500) % 5 == 0, -np.inf, np.linspace(-8, 0, 2_500)).astype(np.float32)
    chosen = np.asarray(selection.select(key, policy, num=300))
    monkeypatch.setattr(sampling, "MAX_TOP_K", 1)
    jax.clear_caches()
    np.testing.assert_array_equal(selection.select(key, policy, num=300), chosen)
    noise = [
        jax.random.gumbel(jax.random.fold_in(key, block), (1024,), jnp.float32, mode="highest") for block in range(3)
    ]
    keys = policy.astype(np.float64) + np.concatenate(noise)[:2_500]
    np.testing.assert_array_equal(chosen, np.argsort(-keys, kind="stable")[:300])
    everyone = np.sort(selection.select(key, policy, num=2_000))
    np.testing.assert_array_equal(everyone, np.flatnonzero(np.isfinite(policy)))
    inside = jax.jit(lambda p: selection.select(key, p, num=2_001))(jnp.asarray(policy))
    assert int(inside[-1]) == -1
    jax.clear_caches()


def test_difficulty_of_batches_is_that_of_all_at_once(key):
    rng = np.random.default_rng(0)
    mask = np.arange(4) < rng.integers(1, 5, (50, 1))
    items = np.where(mask, rng.integers(1, 31, (50, 4)), 0).astype(np.int32)
    model = models.create("stamp", num_items=30, dim=5)
    params = jax.tree.map(lambda leaf: leaf + jax.random.normal(key, leaf.shape), models.init_params(key, model))
    table = model.apply(params, method="item_embeddings")
    vectors = model.apply(params, jnp.asarray(items), jnp.asarray(mask))
    expected = selection.difficulty(vectors, table, items, mask)
    for size, batch_ends in ((7, [*range(7, 50, 7), 50]), (50, [50]), (10**6, [50])):
        done = []
        found = selection.session_difficulty(model, params, items, mask, batch_size=size, progress=done.append)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        assert done == batch_ends
    with pytest.raises(ValueError, match=r"items span 31\.\.31; expected 0\.\.30"):
        selection.session_difficulty(model, params, np.full((2, 4), 31), mask[:2])
    with pytest.raises(ValueError, match=r"length\[1\] is 0"):
        selection.session_difficulty(model, params, items[:2], np.array([[True] * 4, [False] * 4]))
    with pytest.raises(ValueError, match=r"shapes are items \[50, 4\], mask \[2, 4\]"):
        selection.session_difficulty(model, params, items, mask[:2])
    with pytest.raises(ValueError, match="batch_size is 0"):
        selection.session_difficulty(model, params, items, mask, batch_size=0)
    name = sorted(params["params"])[-1]
    broken = {"params": params["params"] | {name: np.full_like(params["params"][name], np.nan)}}
    with pytest.raises(ValueError, match=rf"params/{name}\[.*\] is nan; expected a finite number"):
        selection.session_difficulty(model, broken, items, mask)
    with pytest.raises(ValueError, match=r"session_vectors\[0, 0\] is inf"):
        selection.difficulty(vectors.at[0, 0].set(np.inf), table, items, mask)
