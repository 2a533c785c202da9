"""Shuffled orders that are never written down."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from alkd_jax.ops.permutation import permuted_index


def orders(num, times, seed=0):
    keys = jax.random.split(jax.random.key(seed), times)
    return np.asarray(jax.jit(jax.vmap(lambda key: permuted_index(key, jnp.arange(num), num)))(keys))


@settings(max_examples=10)
@given(num=st.integers(1, 3000), seed=st.integers(0, 2**31 - 1))
def test_every_entry_comes_once(num, seed):
    order = permuted_index(jax.random.key(seed), jnp.arange(num), num)
    np.testing.assert_array_equal(np.sort(order), np.arange(num))


def test_any_place_can_be_read_alone(key):
    whole = np.asarray(permuted_index(key, jnp.arange(1000), 1000))
    places = jnp.asarray([[999, 3], [500, 3]])
    np.testing.assert_array_equal(permuted_index(key, places, 1000), whole[places])


@pytest.mark.parametrize("num", [2, 3, 4, 5])
def test_all_orders_come_equally_often(num):
    seen = [tuple(order) for order in orders(num, 12_000).tolist()]
    counts = [seen.count(order) for order in itertools.permutations(range(num))]
    assert stats.chisquare(counts).pvalue > 1e-3


def test_long_orders_look_drawn_by_lot():
    num, times = 97, 6000
    drawn = orders(num, times)
    places = [stats.chisquare(np.bincount(column, minlength=num)).pvalue for column in drawn.T]
    assert stats.kstest(places, "uniform").pvalue > 1e-3, "each place holds each entry equally often"
    for near in (1, 10, 48):
        apart = (drawn[:, near] - drawn[:, 0]) % num
        assert stats.chisquare(np.bincount(apart, minlength=num)[1:]).pvalue > 1e-3, "places are independent"
    ascents = (np.diff(drawn, axis=1) > 0).sum(1)
    assert ascents.mean() == pytest.approx((num - 1) / 2, abs=0.2)
    assert ascents.var() == pytest.approx((num + 1) / 12, rel=0.1)
    assert (drawn == np.arange(num)).sum(1).mean() == pytest.approx(1.0, abs=0.07)


def test_neighbouring_keys_give_unlike_orders():
    keys = jax.vmap(lambda n: jax.random.fold_in(jax.random.key(0), n))(jnp.arange(40))
    drawn = np.asarray(jax.vmap(lambda key: permuted_index(key, jnp.arange(500), 500))(keys))
    likeness = np.corrcoef(drawn)[np.triu_indices(40, 1)]
    assert np.abs(likeness).max() < 0.2
    assert likeness.std() == pytest.approx(500**-0.5, rel=0.15)


def test_long_orders_do_not_overflow(key):
    num = 2**31 - 1
    places = jnp.asarray([0, 1, 2**30, num - 1])
    entries = np.asarray(permuted_index(key, places, num))
    assert ((entries >= 0) & (entries < num)).all()
    assert len(set(entries.tolist())) == 4
