"""Tests of significance against enumeration, closed forms, a worked table, and their own promises."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from alkd_jax.evaluation import metrics, significance


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("metric", ["recall@1", "recall@10", "ndcg@5", "ndcg@10", "mrr@5", "mrr"])
def test_values_of_sessions_average_to_the_reported_metric(rng, metric):
    ranks = rng.integers(1, 40, 300)
    averages = metrics.from_ranks(ranks, ks=(1, 5, 10))
    np.testing.assert_allclose(significance.per_session(ranks, metric).mean(), averages[metric], rtol=1e-6)


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), num=st.integers(2, 9))
def test_randomization_of_few_pairs_equals_the_enumeration_of_all_signs(seed, num):
    difference = np.random.default_rng(seed).integers(-3, 4, num).astype(float)
    sums = [np.dot(signs, difference) for signs in itertools.product((-1, 1), repeat=num)]
    expected = np.mean(np.abs(sums) >= abs(difference.sum()))
    assert significance.randomization_test(np.random.default_rng(0), difference) == pytest.approx(expected)


def test_randomization_of_many_pairs_follows_the_normal_limit(rng):
    difference = rng.normal(0.1, 1.0, 400)
    z = difference.sum() / np.sqrt((difference**2).sum())
    found = significance.randomization_test(rng, difference)
    assert found == pytest.approx(2 * stats.norm.sf(abs(z)), abs=0.01)


def test_randomization_that_draws_never_says_zero(rng):
    assert significance.randomization_test(rng, np.ones(100), sign_patterns=999) == pytest.approx(2 / 1000)


@pytest.mark.parametrize("num", [0, 1, 1023, 1024, 5000, 100_000])
def test_randomization_takes_any_number_of_pairs(rng, num):
    difference = rng.normal(0.0, 1.0, num)
    expected = 1.0 if num < 2 else 2 * stats.norm.sf(abs(difference.sum()) / np.sqrt((difference**2).sum()))
    assert significance.randomization_test(rng, difference, sign_patterns=400) == pytest.approx(expected, abs=0.15)


def test_randomization_of_many_pairs_holds_few_of_their_signs_at_a_time(monkeypatch):
    """Blocks are of one pattern where the pairs alone are more than a block is to hold."""
    drawn = []

    class Generator(np.random.Generator):
        def integers(self, low, high, size, dtype):
            drawn.append(size)
            return super().integers(low, high, size, dtype)

    monkeypatch.setattr(significance, "_BATCH_VALUES", 4_000)
    for num, block in ((1_500, 2), (5_000, 1)):
        drawn.clear()
        significance.randomization_test(Generator(np.random.PCG64(0)), np.ones(num), sign_patterns=20)
        assert drawn == [(block, num)] * (20 // block)


def test_methods_are_compared_over_a_hundred_thousand_sessions(rng):
    ranks = rng.integers(1, 30, (2, 100_000)), rng.integers(1, 31, (2, 100_000))
    found = significance.compare(rng, *ranks, metric="ndcg@10", sign_patterns=99, resamples=99)
    assert found.p_randomization == pytest.approx(0.02)
    assert found.interval[0] < found.difference < found.interval[1]


@pytest.mark.parametrize("interval", significance.INTERVALS)
def test_bootstrap_of_a_mean_follows_the_normal_limit(rng, interval):
    difference = rng.normal(0.1, 1.0, 2000)
    p, (low, high) = significance.bootstrap(rng, difference, resamples=10_000, interval=interval)
    error = difference.std() / np.sqrt(2000)
    np.testing.assert_allclose([low, high], difference.mean() + np.array([-1.96, 1.96]) * error, atol=0.1 * error)
    assert p == pytest.approx(2 * stats.norm.sf(difference.mean() / error), abs=2e-3)


def test_bca_moves_towards_the_long_tail(rng):
    difference = rng.lognormal(0.0, 1.5, 60)
    _, plain = significance.bootstrap(np.random.default_rng(1), difference)
    _, corrected = significance.bootstrap(np.random.default_rng(1), difference, interval="bca")
    assert corrected[0] > plain[0]
    assert corrected[1] > plain[1]


def test_t_over_seeds_equals_its_closed_form():
    difference = np.array([0.010, 0.012, 0.007, 0.011])
    error = difference.std(ddof=1) / 2
    p, (low, high) = significance.paired_t(difference)
    assert p == pytest.approx(2 * stats.t.sf(difference.mean() / error, 3))
    np.testing.assert_allclose([low, high], difference.mean() + np.array([-1, 1]) * 3.182446305 * error)
    assert significance.effect_size(difference) == pytest.approx(difference.mean() / (2 * error))


def test_holm_of_a_worked_table():
    np.testing.assert_allclose(significance.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(significance.holm([0.5, 0.6]), [1.0, 1.0])
    np.testing.assert_allclose(significance.holm([0.02, np.nan, 0.01]), [0.02, np.nan, 0.02])
    assert significance.holm([]).size == 0


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.01, 0.5))
def test_holm_rejects_as_its_procedure_steps_down(p_values, level):
    stands = set(range(len(p_values)))
    for least in sorted(stands, key=lambda i: p_values[i]):
        if len(stands) * p_values[least] > level:
            break
        stands.remove(least)
    adjusted = significance.holm(p_values)
    clear = [i for i in range(len(p_values)) if abs(adjusted[i] - level) > 1e-9]
    assert all((adjusted[i] > level) == (i in stands) for i in clear)


def two_methods(rng, seeds=4, sessions=200):
    """Ranks of two methods, the first the better."""
    return rng.integers(1, 30, (seeds, sessions)), rng.integers(1, 60, (seeds, sessions))


def test_a_comparison_pairs_seeds_with_seeds_and_sessions_with_sessions(rng):
    better, worse = two_methods(rng)
    found = significance.compare(rng, better, worse, metric="ndcg@10")
    values, others = (significance.per_session(ranks, "ndcg@10") for ranks in (better, worse))
    assert found.difference == pytest.approx(values.mean() - others.mean())
    assert found.p_seeds == pytest.approx(stats.ttest_rel(values.mean(1), others.mean(1)).pvalue)
    by_session = values.mean(0) - others.mean(0)
    assert found.effect == pytest.approx(by_session.mean() / by_session.std(ddof=1))
    assert found.interval[0] < found.difference < found.interval[1]
    assert found.interval_seeds[0] < found.difference < found.interval_seeds[1]
    assert (found.num_sessions, found.num_seeds) == (200, 4)
    assert found.p_randomization < 0.05
    assert found.p_bootstrap < 0.05


def test_turning_a_comparison_round_turns_its_sign_and_nothing_else(rng):
    better, worse = two_methods(rng)
    one = significance.compare(np.random.default_rng(1), better, worse)
    back = significance.compare(np.random.default_rng(1), worse, better)
    assert (one.difference, one.effect, one.effect_seeds) == pytest.approx(
        (-back.difference, -back.effect, -back.effect_seeds)
    )
    assert (one.p_seeds, one.p_randomization) == pytest.approx((back.p_seeds, back.p_randomization))


@pytest.mark.parametrize("shape", [(200,), (1, 200)])
def test_a_side_of_one_row_is_compared_over_sessions_only(rng, shape):
    better, worse = two_methods(rng)
    found = significance.compare(rng, better, worse[0].reshape(shape))
    assert found.num_seeds == 1
    assert np.isnan([found.p_seeds, found.effect_seeds, *found.interval_seeds]).all()
    assert found.p_randomization < 0.05


def test_a_session_of_each_query_is_the_comparison_without_sessions(rng):
    better, worse = two_methods(rng)
    order = rng.permutation(200)
    one = significance.compare(np.random.default_rng(1), better, worse, session_id=order, resamples=4_000)
    plain = significance.compare(np.random.default_rng(1), better, worse, resamples=4_000)
    assert (one.difference, one.effect, one.num_sessions) == pytest.approx((plain.difference, plain.effect, 200))
    assert one.interval == pytest.approx(plain.interval, abs=0.2 * (plain.interval[1] - plain.interval[0]))


def test_queries_of_a_session_are_resampled_together(rng):
    """A session with one difference, repeated by all its queries, is one observation."""
    num_queries = rng.integers(1, 50, 60)
    session_id = np.repeat(np.arange(60), num_queries)
    ranks, other = (rng.integers(1, 30, 60)[session_id] for _ in range(2))
    found = significance.compare(rng, ranks, other, session_id=session_id, metric="mrr@20")
    naive = significance.compare(rng, ranks, other, metric="mrr@20")
    difference = significance.per_session(ranks, "mrr@20") - significance.per_session(other, "mrr@20")
    assert found.difference == pytest.approx(difference.mean())
    assert (found.num_sessions, found.num_queries) == (60, num_queries.sum())
    # The linearized standard error of a ratio of two sums.
    residual = np.bincount(session_id, weights=difference - difference.mean())
    error = np.sqrt((residual**2).sum()) / num_queries.sum()
    np.testing.assert_allclose(found.interval, difference.mean() + np.array([-1.96, 1.96]) * error, atol=0.3 * error)
    sums = np.bincount(session_id, weights=difference)
    z = sums.sum() / np.sqrt((sums**2).sum())
    assert found.p_randomization == pytest.approx(2 * stats.norm.sf(abs(z)), abs=0.05)
    assert np.ptp(naive.interval) < 0.5 * np.ptp(found.interval)


def test_a_weighted_bootstrap_is_the_ratio_of_its_sums(rng):
    difference, weight = rng.normal(1.0, 1.0, 40), rng.integers(1, 9, 40)
    for interval in significance.INTERVALS:
        _, (low, high) = significance.bootstrap(rng, difference * weight, weight=weight, interval=interval)
        assert low < np.average(difference, weights=weight) < high
    same = significance.bootstrap(rng, 0.5 * weight, weight=weight, resamples=9)
    assert same == (0.2, (0.5, 0.5))


def test_equal_methods_do_not_differ(rng):
    ranks, _ = two_methods(rng)
    found = significance.compare(rng, ranks, ranks)
    assert (found.difference, found.interval, found.p_randomization, found.p_bootstrap) == (0.0, (0.0, 0.0), 1.0, 1.0)
    assert np.isnan([found.p_seeds, found.effect]).all()


def test_the_generator_alone_decides_the_resamples():
    better, worse = two_methods(np.random.default_rng(5))
    one, same, another = (significance.compare(np.random.default_rng(s), better, worse) for s in (1, 1, 2))
    assert one == same
    assert one.interval != another.interval


def test_without_a_difference_p_is_uniform_and_intervals_cover(rng):
    trials = 200
    alarms = covered = 0
    for _ in range(trials):
        difference = rng.normal(size=40) * (rng.random(40) < 0.5)
        alarms += significance.randomization_test(rng, difference, sign_patterns=199) <= 0.1
        _, (low, high) = significance.bootstrap(rng, difference, resamples=199, confidence=0.9)
        covered += low <= 0 <= high
    assert 0.05 * trials <= alarms <= 0.16 * trials
    assert 0.83 * trials <= covered <= 0.96 * trials


def test_memory_does_not_change_the_result(rng, monkeypatch):
    difference = rng.normal(size=50)
    p, whole = significance.bootstrap(np.random.default_rng(0), difference, resamples=300)
    monkeypatch.setattr(significance, "_BATCH_VALUES", 2_000)
    p_in_pieces, pieces = significance.bootstrap(np.random.default_rng(0), difference, resamples=300)
    assert (p_in_pieces, *pieces) == pytest.approx((p, *whole))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "recall"}, "metric is 'recall'; expected"),
        ({"metric": "recall@0"}, "metric is 'recall@0'"),
        ({"metric": "auc@5"}, "metric is 'auc@5'"),
        ({"resamples": 0}, "resamples is 0"),
        ({"sign_patterns": 0}, "sign_patterns is 0"),
        ({"confidence": 95.0}, "confidence is 95.0; expected a number in \\(0, 1\\)"),
        ({"interval": "normal"}, "interval is 'normal'"),
        ({"other": np.ones((4, 7), int)}, "numbers of queries are 8 and 7"),
        ({"other": np.ones((3, 8), int)}, "numbers of seeds are 4 and 3"),
        ({"other": np.ones((0, 8), int)}, r"shape of other is \[0, 8\]"),
        ({"other": np.ones((1, 4, 8), int)}, r"shape of other is \[1, 4, 8\]"),
        ({"other": np.ones((4, 8), int) * 0}, r"other\[0, 0\] is 0; expected at least 1"),
        ({"other": np.full((4, 8), np.nan)}, "other are numbers of type float64"),
        ({"session_id": np.zeros(7, int)}, r"session_id has shape \(7,\); expected \(8,\)"),
        ({"session_id": np.zeros(8, int)}, "session_id has 1 session; expected at least 2"),
        ({"resamples": 2.5}, "resamples is 2.5; expected a whole number"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_what_cannot_be_compared_is_refused(rng, change, message):
    options = {"other": np.ones((4, 8), int)} | change
    with pytest.raises(ValueError, match=message):
        significance.compare(rng, np.ones((4, 8), int), **options)


def test_a_p_value_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"p_values span 0\.1\.\.1\.5"):
        significance.holm([0.1, 1.5])


FUNCTIONS = [
    lambda differences: significance.randomization_test(np.random.default_rng(0), differences),
    lambda differences: significance.bootstrap(np.random.default_rng(0), differences, resamples=20),
    significance.paired_t,
    significance.effect_size,
]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.usefixtures("unchecked_types")
def test_differences_that_are_no_finite_numbers_are_refused(function):
    for wrong in (np.nan, np.inf, -np.inf, 1e300, 1e-300):
        with pytest.raises(ValueError, match=r"differences?\[1\] is .*; expected 0, or from 1e-100 to 1e100 in size"):
            function(np.array([0.1, wrong, 0.2]))
    for wrong in (np.ones((2, 2)), np.array(0.5), np.array([True, False]), np.array(["0.5"]), np.array([None, 1])):
        with pytest.raises(ValueError, match=r"differences? has shape \[.*; expected \[N\] numbers"):
            function(wrong)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.usefixtures("unchecked_types")
def test_whole_differences_are_numbers_too(function):
    assert function(np.array([1, -2, 3])) == function(np.array([1.0, -2.0, 3.0]))


def test_one_difference_has_no_bootstrap_interval():
    for short in (np.zeros(0), np.ones(1)):
        with pytest.raises(ValueError, match=r"expected \[N\] numbers with N ≥ 2"):
            significance.bootstrap(np.random.default_rng(0), short)
        assert significance.randomization_test(np.random.default_rng(0), short) == 1.0
