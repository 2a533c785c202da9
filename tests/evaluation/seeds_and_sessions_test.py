"""The error over seeds and sessions against simulated studies, a worked table, and limits that are known."""

import numpy as np
import pytest
from scipy import stats

from alkd_jax.evaluation.seeds_and_sessions import spread


def ranks_of(hits):
    """Ranks of which recall@10 is 1 where hits is 1."""
    return np.where(hits, 1, 100)


def study(rng, num_seeds, num_sessions, *, shift=0.0, seed_sd=0.1, session_sd=0.2):
    """Hits of two methods, where seeds and sessions raise the chance of the first."""
    chance = 0.5 + shift + seed_sd * rng.normal(size=(num_seeds, 1)) + session_sd * rng.normal(size=(1, num_sessions))
    shape = (num_seeds, num_sessions)
    return ranks_of(rng.random(shape) < chance), ranks_of(rng.random(shape) < 0.5)


def test_a_table_worked_by_hand():
    # Differences 1 0 / 1 1 / 0 -1 of three seeds (rows) and two sessions: mean 1/3, seed means 1/2, 1, -1/2.
    first, second = ranks_of(np.array([[1, 0], [1, 1], [0, 0]])), ranks_of(np.array([[0, 0], [0, 0], [0, 1]]))
    found = spread(first, second)
    of_seeds, of_sessions = 2 * 7 / 6 / 2, 3 * 2 / 9 / 1
    of_rest = (4 - 6 / 9 - 2 * of_seeds - of_sessions) / 2
    assert found.difference == pytest.approx(1 / 3)
    variance = (of_seeds + of_sessions - of_rest) / 6
    assert found.standard_error == pytest.approx(np.sqrt(variance))
    assert found.sd_rest == pytest.approx(np.sqrt(of_rest))
    assert found.sd_seeds == pytest.approx(np.sqrt((of_seeds - of_rest) / 2))
    assert found.sd_sessions == pytest.approx(np.sqrt((of_sessions - of_rest) / 3))
    degrees = (6 * variance) ** 2 / (of_seeds**2 / 2 + of_sessions**2 / 1 + of_rest**2 / 2)
    half = stats.t.ppf(0.975, degrees) * np.sqrt(variance)
    assert found.interval == pytest.approx((1 / 3 - half, 1 / 3 + half))


def test_the_interval_over_seeds_is_students():
    first, second = study(np.random.default_rng(0), 6, 300)
    seed_means = (first <= 10).mean(1) - (second <= 10).mean(1)
    expected = stats.ttest_1samp(seed_means, 0.0).confidence_interval()
    found = spread(first, second)
    assert found.interval_seeds == pytest.approx(tuple(expected))
    assert found.sd_seed_means == pytest.approx(seed_means.std(ddof=1))


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """An interval over seeds alone, or over sessions alone, misses it far more often here."""
    rng = np.random.default_rng(1)
    covered, covered_seeds = 0, 0
    for _ in range(200):
        found = spread(*study(rng, 8, 60))
        covered += found.interval[0] <= 0 <= found.interval[1]
        covered_seeds += found.interval_seeds[0] <= 0 <= found.interval_seeds[1]
    assert 0.92 <= covered / 200 <= 0.99
    assert covered_seeds < covered


def test_the_promised_power_is_the_share_of_studies_that_find_the_difference():
    rng = np.random.default_rng(2)
    shift = np.mean([spread(*study(rng, 10, 200)).detectable(0.8) for _ in range(20)])
    found = sum(spread(*study(rng, 10, 200, shift=shift)).interval[0] > 0 for _ in range(200))
    assert 0.7 <= found / 200 <= 0.9


def test_seeds_for_a_width_are_the_fewest():
    found = spread(*study(np.random.default_rng(3), 12, 100))
    num = found.seeds_for(0.02)
    half = [stats.t.ppf(0.975, n - 1) * found.sd_seed_means / np.sqrt(n) for n in (num - 1, num)]
    assert half[0] > 0.02 >= half[1]
    assert found.seeds_for(1e-6) is None


def test_equal_methods_have_no_error():
    same = np.tile(np.arange(1, 30), (3, 1))
    found = spread(same, same)
    assert found.difference == 0
    assert found.interval == (0, 0)
    assert found.detectable() == 0
    assert found.seeds_for(0.001) == 2


def test_sessions_with_several_queries_weigh_by_their_number():
    rng = np.random.default_rng(4)
    session = np.repeat(np.arange(40), rng.integers(1, 6, 40))
    first, second = study(rng, 5, len(session))
    found = spread(first, second, session_id=session)
    assert found.difference == pytest.approx((first <= 10).mean() - (second <= 10).mean())
    assert found.num_sessions == 40
    # One query each is the same as no sessions at all, in any order of the ids.
    alone = spread(first, second, session_id=rng.permutation(len(session)))
    assert alone.interval == pytest.approx(spread(first, second).interval)


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((3, 5), (3, 6)), {}, "shapes are"),
        (((5,), (5,)), {}, "shapes are"),
        (((1, 5), (1, 5)), {}, "num_seeds is 1"),
        (((3, 1), (3, 1)), {}, "num_sessions is 1"),
        (((3, 5), (3, 5)), {"confidence": 1.0}, "confidence is 1.0"),
        (((3, 5), (3, 5)), {"session_id": np.zeros(4, int)}, "session_id has shape"),
    ],
)
def test_what_cannot_be_estimated_is_refused(shapes, options, message):
    first, second = (np.ones(shape, int) for shape in shapes)
    with pytest.raises(ValueError, match=message):
        spread(first, second, **options)
