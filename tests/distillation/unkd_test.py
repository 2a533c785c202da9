"""Unbiased distillation: strata, budgets, the exact law of the pairs, and blindness to a group's level."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alkd_jax.distillation import popularity_strata, unkd
from alkd_jax.distillation.teacher import TeacherEmbeddings
from alkd_jax.types import Sequences

NUM_ITEMS = 40


@given(st.lists(st.integers(0, 60), min_size=1, max_size=40), st.integers(1, 6))
@settings(max_examples=200)
def test_groups_have_similar_totals_and_descending_popularity(counts, num_groups):
    counts = np.array([0, *counts])
    if not counts.sum():
        return
    groups = popularity_strata.popularity_groups(counts, num_groups=num_groups)
    np.testing.assert_array_equal(groups < 0, counts == 0)
    limit = counts.sum() / num_groups
    last = groups.max()
    for group in range(last + 1):
        members = counts[groups == group]
        assert len(members)
        assert group == last or len(members) == 1 or members.sum() <= limit
        if group < last:
            assert members.min() >= counts[groups == group + 1].max()
            opener = counts[groups == group + 1].max()
            assert members.sum() + opener > limit
    assert last == 0 or counts[groups == last].sum() > limit / 2


def test_a_small_remainder_joins_the_group_before():
    counts = np.array([0, 6, 4, 4, 4, 1, 1])
    assert popularity_strata.popularity_groups(counts, num_groups=2).tolist() == [-1, 0, 0, 1, 1, 1, 1]
    assert popularity_strata.popularity_groups(np.array([0, 9, 9, 2]), num_groups=2).tolist() == [-1, 0, 1, 1]


def test_items_without_interactions_are_refused():
    with pytest.raises(ValueError, match="counts is 0 for every item"):
        popularity_strata.popularity_groups(np.zeros(4, int))
    with pytest.raises(ValueError, match="num_groups is 0"):
        popularity_strata.popularity_groups(np.ones(4, int), num_groups=0)


def test_padding_is_not_counted():
    sequences = Sequences(np.array([3, 1, 3, 0, 2], np.int32), np.array([0, 3, 5], np.int32))
    assert popularity_strata.item_counts(sequences, 4).tolist() == [0, 1, 1, 2, 0]


def test_pairs_per_group_equal_the_authors():
    counts, four = np.array([0, 4, 4, 4, 4]), np.array([-1, 0, 1, 2, 3], np.int32)
    assert popularity_strata.allocate_pairs(counts, four) == (8, 8, 8, 8)
    assert popularity_strata.allocate_pairs(counts[:3], four[:3]) == (15, 15)
    # Three groups share 10 as 3 each; the first gets the one that is short.
    assert popularity_strata.allocate_pairs(counts[:4], four[:4], num_pairs=10) == (4, 3, 3)
    steep = popularity_strata.allocate_pairs(np.array([0, 90, 5]), four[:3], gamma=1.0)
    assert steep == (3, 27)


def test_pairs_of_ranks_have_the_distribution_of_rejection_sampling():
    length, draws, mu = 6, 60_000, 2.0
    better, worse = unkd.sample_rank_pairs(jax.random.key(0), jnp.full(draws, length), mu=mu)
    chance = np.exp(-np.arange(1, length + 1) / mu)
    law = np.triu(np.outer(chance, chance), 1)
    law /= law.sum()
    seen = np.zeros((length, length))
    np.add.at(seen, (np.asarray(better), np.asarray(worse)), 1 / draws)
    np.testing.assert_allclose(seen, law, atol=4 * np.sqrt(0.25 / draws))
    assert np.tril(seen).sum() == 0


def test_the_first_ranks_of_a_long_list_have_the_right_marginals():
    better, worse = unkd.sample_rank_pairs(jax.random.key(1), jnp.full(50_000, 400))
    chance = np.exp(-np.arange(1, 401) / 20)
    chance /= chance.sum()
    both = np.bincount(np.concatenate([better, worse]), minlength=400)[:60] / 50_000
    # p_i p_j over pairs of different ranks: a rank is in the pair with chance 2 p_i (1 − p_i) / (1 − Σ p²).
    pair = 2 * (chance * (1 - chance))[:60] / (1 - (chance**2).sum())
    np.testing.assert_allclose(both, pair, atol=0.006)
    assert float(worse.max()) < 400


def test_two_items_form_the_only_pair():
    better, worse = unkd.sample_rank_pairs(jax.random.key(2), jnp.full(100, 2))
    assert set(zip(better.tolist(), worse.tolist(), strict=True)) == {(0, 1)}


@pytest.fixture
def lists():
    rng = np.random.default_rng(0)
    teacher = TeacherEmbeddings(
        jnp.asarray(rng.normal(size=(30, 5)), jnp.float32),
        jnp.asarray(rng.normal(size=(NUM_ITEMS + 1, 5)), jnp.float32),
    )
    groups = np.repeat([-1, 0, 1, 2], [4, 3, 10, 24]).astype(np.int32)
    exclude = rng.integers(0, NUM_ITEMS + 1, (30, 6)).astype(np.int32)
    return teacher, groups, exclude, unkd.group_lists(teacher, groups, exclude, depth=12)


def test_lists_have_the_teachers_order_within_a_group_and_exclude_the_session(lists):
    teacher, groups, exclude, (items, length) = lists
    scores = np.asarray(teacher.sessions @ teacher.items.T)
    for session in range(30):
        for group in range(3):
            members = [v for v in np.flatnonzero(groups == group) if v not in exclude[session]]
            best = sorted(members, key=lambda v: -scores[session, v])[:12]
            assert items[session, group, : length[session, group]].tolist() == best
            assert not items[session, group, length[session, group] :].any()


def test_sampled_pairs_are_of_one_group_in_the_teachers_order(lists):
    _, groups, exclude, (items, length) = lists
    better, worse, where = unkd.sample_pairs(jax.random.key(0), jnp.asarray(items), jnp.asarray(length), (4, 3, 5))
    expected = np.repeat([0, 1, 2], [4, 3, 5])
    for session in range(30):
        place = {int(v): n for row in items[session] for n, v in enumerate(row) if v}
        for up, down, group, real in zip(better[session], worse[session], expected, where[session], strict=True):
            assert real == (length[session, group] >= 2)
            if real:
                assert groups[up] == groups[down] == group
                assert place[int(up)] < place[int(down)]
                assert int(up) not in exclude[session]


def test_lists_too_short_for_pairs_are_refused(lists):
    with pytest.raises(ValueError, match="depth is 1; expected at least 2"):
        unkd.group_lists(*lists[:3], depth=1)


def test_the_loss_of_equal_scores_is_log_two_and_does_not_depend_on_a_groups_mean(lists):
    _, groups, _, (items, length) = lists
    better, worse, where = unkd.sample_pairs(jax.random.key(0), jnp.asarray(items), jnp.asarray(length), (4, 3, 5))

    def loss(scores):
        def session_items(chosen):
            return jnp.take_along_axis(scores, chosen, axis=1)

        return float(unkd.pair_loss(session_items(better) - session_items(worse), where))

    scores = jax.random.normal(jax.random.key(3), (30, NUM_ITEMS + 1))
    assert loss(jnp.zeros_like(scores)) == pytest.approx(np.log(2), abs=1e-6)
    level = jnp.array([5.0, -3.0, 11.0, 0.5])[groups]
    assert loss(scores + level[None]) == pytest.approx(loss(scores), rel=1e-5)
    assert abs(loss(scores + jnp.linspace(0, 4, NUM_ITEMS + 1)[None]) - loss(scores)) > 0.01


def test_the_loss_is_the_mean_over_pairs_of_a_session_then_over_sessions():
    margin = jnp.array([[1.0, 2.0, -1.0], [0.5, 9.0, 9.0], [7.0, 7.0, 7.0]])
    where = jnp.array([[True, True, True], [True, False, False], [True, True, True]])
    weight = jnp.array([1.0, 1.0, 0.0])
    expected = (np.log1p(np.exp([-1.0, -2.0, 1.0])).mean() + np.log1p(np.exp(-0.5))) / 2
    assert unkd.pair_loss(margin, where, weight=weight) == pytest.approx(expected, rel=1e-5)


def test_with_one_group_pairs_are_sampled_from_all_items():
    counts = np.array([0, 5, 4, 3, 2])
    assert popularity_strata.popularity_groups(counts, num_groups=1).tolist() == [-1, 0, 0, 0, 0]
    lists = jnp.array([[[4, 2, 1, 3]]])
    better, worse, _ = unkd.sample_pairs(jax.random.key(0), lists, jnp.array([[4]]), (500,))
    seen = collections.Counter(zip(better[0].tolist(), worse[0].tolist(), strict=True))
    assert len(seen) == 6
