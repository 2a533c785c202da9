"""Metrics against values worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax.evaluation import metrics

RANKS = np.asarray([1, 3, 5, 6, 11])


def test_values_by_hand():
    averages = metrics.from_ranks(RANKS, ks=(5, 10))
    assert averages["recall@5"] == pytest.approx(3 / 5)
    assert averages["recall@10"] == pytest.approx(4 / 5)
    assert averages["ndcg@5"] == pytest.approx((1 + 1 / 2 + 1 / np.log2(6)) / 5)
    assert averages["ndcg@10"] == pytest.approx((1 + 1 / 2 + 1 / np.log2(6) + 1 / np.log2(7)) / 5)
    assert averages["mrr"] == pytest.approx((1 + 1 / 3 + 1 / 5 + 1 / 6 + 1 / 11) / 5)


@pytest.mark.parametrize("metric", [metrics.recall, metrics.ndcg])
def test_same_eager_jitted_and_vmapped(metric):
    eager = metric(RANKS, 5)
    np.testing.assert_array_equal(jax.jit(metric, static_argnums=1)(RANKS, 5), eager)
    np.testing.assert_array_equal(jax.vmap(lambda r: metric(r, 5))(jnp.asarray(RANKS)), eager)


@pytest.mark.usefixtures("unchecked_types")
def test_bad_ranks_are_refused():
    with pytest.raises(ValueError, match="number of ranks is 0"):
        metrics.from_ranks(np.zeros(0, int))
    with pytest.raises(ValueError, match=r"ranks\[0\] is 0"):
        metrics.from_ranks(np.asarray([0, 1]))
    with pytest.raises(ValueError, match="k is 0"):
        metrics.from_ranks(RANKS, ks=(0,))
    for wrong in ([1.9, 2.0], [np.nan, 1.0], [True, False]):
        for metric in (metrics.from_ranks, metrics.reciprocal_rank, lambda ranks: metrics.recall(ranks, 5)):
            with pytest.raises(ValueError, match="ranks are numbers of type"):
                metric(np.asarray(wrong))
    with pytest.raises(ValueError, match=r"ranks\[1\] is 2147483648"):
        metrics.ndcg(np.asarray([1, 2**31]), 5)
    for wrong in (2.5, True):
        with pytest.raises(ValueError, match="expected a whole number"):
            metrics.from_ranks(RANKS, ks=(wrong,))


def test_a_cut_off_beyond_every_rank_excludes_none():
    assert metrics.from_ranks(np.asarray([1, 2**31 - 1]), ks=(10**12,))["recall@1000000000000"] == 1.0
