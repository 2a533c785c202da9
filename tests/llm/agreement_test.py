"""Fusion and agreement of rankings, compared with closed forms and counts of pairs."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alkd_jax.llm import agreement

RANKINGS = st.lists(st.lists(st.integers(1, 12), unique=True, max_size=8), max_size=5)


def test_fusion_adds_reciprocal_ranks():
    # 1/61 + 1/63 < 1/62 + 1/61, so that 2 comes before 1.
    assert agreement.fuse_rankings([(1, 2, 3), (2, 3, 1)], 3) == (2, 1, 3)
    assert agreement.fuse_rankings([(1, 2), (3, 4)], 4) == (1, 3, 2, 4)
    assert agreement.fuse_rankings([(7, 5)], 1) == (7,)
    assert agreement.fuse_rankings([], 3) == ()


@given(RANKINGS, st.integers(1, 12))
def test_fusion_agrees_with_the_sum_and_not_with_the_order_of_the_rankings(rankings, k):
    fused = agreement.fuse_rankings(rankings, k)
    score = {
        item: math.fsum(1 / (61 + ranking.index(item)) for ranking in rankings if item in ranking)
        for item in set(itertools.chain(*rankings))
    }
    assert len(fused) == min(k, len(score))
    assert all(score[a] >= score[b] - 1e-12 for a, b in itertools.pairwise(fused))
    assert all(score[item] <= score[fused[-1]] + 1e-12 for item in score.keys() - set(fused))


@given(st.permutations(range(8)), st.permutations(range(8)))
def test_kendall_tau_counts_pairs(first, second):
    pairs = list(itertools.combinations(range(8), 2))
    agree = sum((first.index(a) < first.index(b)) == (second.index(a) < second.index(b)) for a, b in pairs)
    assert agreement.kendall_tau(first, second) == pytest.approx((2 * agree - len(pairs)) / len(pairs))


def test_a_teacher_that_repeats_itself_agrees_fully():
    assert agreement.self_agreement([(3, 1, 2)] * 3) == agreement.Agreement(1.0, 1.0, 3)
    assert agreement.self_agreement([(1, 2, 3), (3, 2, 1)]) == agreement.Agreement(-1.0, 1.0, 1)
    half = agreement.self_agreement([(1, 2), (1, 3)])
    assert math.isnan(half.kendall_tau)
    assert (half.overlap, half.pairs) == (0.5, 1)
    assert math.isnan(agreement.self_agreement([(1, 2)]).overlap)


def test_position_bias_is_one_for_an_echo_and_near_zero_for_a_judge():
    rng = np.random.default_rng(0)
    shown = [rng.permutation(20).tolist() for _ in range(400)]
    assert agreement.position_bias(shown, [order[:10] for order in shown]) == 1
    assert agreement.position_bias(shown, [order[::-1] for order in shown]) == -1
    assert abs(agreement.position_bias(shown, [sorted(order)[:10] for order in shown])) < 0.05


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="k is 0"):
        agreement.fuse_rankings([(1,)], 0)
    with pytest.raises(ValueError, match="ranking 1 lists an item twice"):
        agreement.fuse_rankings([(1,), (2, 2)], 1)
    with pytest.raises(ValueError, match="rankings are 1; expected 2"):
        agreement.position_bias([(1, 2), (2, 1)], [(1, 2)])
