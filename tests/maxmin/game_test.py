import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq, linear_sum_assignment, linprog

from alkd_jax import maxmin
from alkd_jax.maxmin.assignment import least_cost
from alkd_jax.ops.sums import accurate_sum

LOG_HALF = np.log(0.5)


def cheapest_assignment(effective, similar, incorrect, num_effective, num_similar):
    """The adversary's problem in float64, with one column for each place in a class."""
    counts = [num_effective, num_similar, len(effective) - num_effective - num_similar]
    places = np.repeat(np.stack([effective, similar, -incorrect]), counts, axis=0).T
    return places[linear_sum_assignment(places)].sum()


def definition_1(a, b, d, num_effective, num_similar):
    """Definition 1 of the paper, word for word, in float64: policy, Γ, k*."""
    num = len(a)
    order = np.argsort(-a, kind="stable")
    gain = np.where(np.arange(num) < num - num_effective, b[order], a[order])
    h = 1 / (gain + d[order])
    gamma = (num_effective + num_similar - num + np.cumsum(gain * h)) / np.cumsum(h)
    best = int(gamma.argmax()) + 1
    policy = np.zeros(num)
    policy[order[:best]] = h[:best] / h[:best].sum()
    return policy, gamma[best - 1], best


def random_game(rng, num, kind):
    """Gains of one of four kinds, a policy, and counts that may be 0."""
    a = {
        "moderate": lambda: rng.gamma(0.7, size=num) + 1e-3,
        "steep": lambda: np.exp(rng.uniform(-30, 30, num)),
        "tied": lambda: rng.integers(2, 5, num).astype(float),
        "sparse": lambda: rng.gamma(0.7, size=num) + 1e-3,
    }[kind]()
    b = a * (0.5 if kind == "tied" else rng.uniform(0.02, 0.98, num))
    d = a * 0.5 if kind == "tied" else a * rng.gamma(1.0, size=num) + 1e-3
    policy = np.full(num, 1 / num) if kind == "tied" else rng.dirichlet(np.full(num, 0.5))
    if kind == "sparse":
        policy = np.where(np.arange(num) % 2, 0, policy)
        policy /= policy.sum()
    num_effective = int(rng.integers(0, num + 1))
    return policy, a, b, d, num_effective, int(rng.integers(0, num - num_effective + 1))


def power_law(num, exponent=10.0):
    """The paper's gains as logarithms, in float64."""
    a = -exponent * np.log(np.arange(1, num + 1))
    return a, a + LOG_HALF, a + LOG_HALF


def paper_counts(num):
    return {"num_effective": num // 10, "num_similar": num // 2}


def probability(solution):
    return np.exp(np.asarray(solution.log_policy, np.float64))


# the exact worst case ------------------------------------------------------------------------------------------------


def test_worst_case_agrees_with_the_golden_linear_programs(golden):
    for case in json.loads((golden / "maxmin_cases.json").read_text())["random_cases"]:
        arrays = [np.array(case[name]) for name in ("some_policy", "effective_gain", "similar_gain", "incorrect_loss")]
        found = maxmin.worst_case(*arrays, num_effective=case["num_effective"], num_similar=case["num_similar"])
        assert float(found) == pytest.approx(case["some_policy_worst_case"], rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("kind", ["moderate", "steep", "tied", "sparse"])
def test_worst_case_agrees_with_an_assignment_solver(kind):
    rng = np.random.default_rng(1)
    for _ in range(40):
        policy, a, b, d, num_effective, num_similar = random_game(rng, 11, kind)
        found = maxmin.worst_case(policy, a, b, d, num_effective=num_effective, num_similar=num_similar)
        unit = (policy * np.maximum(a, d)).max()
        costs = [policy * gain / unit for gain in (a, b, d)]
        expected = cheapest_assignment(*costs, num_effective, num_similar)
        assert float(found) / unit == pytest.approx(expected, rel=5e-7, abs=5e-7)


def test_the_least_cost_is_exactly_the_least_of_all_assignments_of_whole_numbers():
    rng = np.random.default_rng(2)
    classes = np.array(list(itertools.product(range(3), repeat=8)))
    for _ in range(30):
        effective = rng.integers(0, 9, 8).astype(np.float32)
        similar = rng.integers(0, effective + 1).astype(np.float32)
        incorrect = rng.integers(0, 9, 8).astype(np.float32)
        totals = np.stack([effective, similar, -incorrect])[classes, np.arange(8)].sum(axis=1)
        num_effective, num_similar = int(rng.integers(0, 5)), int(rng.integers(0, 5))
        counted = ((classes == 0).sum(axis=1) == num_effective) & ((classes == 1).sum(axis=1) == num_similar)
        assert float(least_cost(effective, similar, incorrect, num_effective, num_similar)) == totals[counted].min()


@pytest.mark.parametrize("num", [1, 4])
def test_worst_case_is_right_for_every_pair_of_counts(num):
    rng = np.random.default_rng(3)
    policy, a, b, d, *_ = random_game(rng, num, "moderate")
    for num_effective in range(num + 1):
        for num_similar in range(num - num_effective + 1):
            found = maxmin.worst_case(policy, a, b, d, num_effective=num_effective, num_similar=num_similar)
            expected = cheapest_assignment(policy * a, policy * b, policy * d, num_effective, num_similar)
            assert float(found) == pytest.approx(expected, rel=1e-6, abs=1e-7)


def test_log_worst_case_works_where_float32_underflows():
    rng = np.random.default_rng(4)
    policy, a, b, d, num_effective, num_similar = random_game(rng, 11, "sparse")
    counts = {"num_effective": num_effective, "num_similar": num_similar}
    expected = cheapest_assignment(policy * a, policy * b, policy * d, *counts.values())
    with np.errstate(divide="ignore"):
        log_policy = np.log(policy)
    for shift in (-300.0, 300.0):
        value, log_scale = maxmin.log_worst_case(log_policy, *(np.log(gain) + shift for gain in (a, b, d)), **counts)
        assert float(value) * np.exp(float(log_scale) - shift) == pytest.approx(expected, rel=1e-5)


def test_worst_case_maps_over_policies_and_counts():
    rng = np.random.default_rng(5)
    _, a, b, d, *_ = random_game(rng, 11, "moderate")
    policies = rng.dirichlet(np.ones(11), size=3).astype(np.float32)
    num_effective, num_similar = jnp.array([0, 3, 11]), jnp.array([5, 4, 0])
    one = functools.partial(maxmin.worst_case, effective_gain=a, similar_gain=b, incorrect_loss=d)
    mapped = jax.vmap(lambda p, ke, ks: one(p, num_effective=ke, num_similar=ks))(policies, num_effective, num_similar)
    for i in range(3):
        alone = one(policies[i], num_effective=int(num_effective[i]), num_similar=int(num_similar[i]))
        assert float(mapped[i]) == pytest.approx(float(alone), rel=1e-6)


def test_accurate_sum_survives_cancellation():
    rng = np.random.default_rng(6)
    terms = rng.normal(size=50_000).astype(np.float32) * 1e3
    terms = rng.permutation(np.concatenate([terms, -terms, np.float32([1e-3])]))
    assert abs(float(terms.sum()) - 1e-3) > 1e-3
    assert float(jax.jit(accurate_sum)(terms)) == pytest.approx(1e-3, rel=1e-3)
    assert float(accurate_sum(jnp.array([2.5]))) == 2.5


def test_accurate_sum_does_not_drift_over_many_equal_terms():
    terms = np.full(10**6, 2 / 3, np.float32)
    assert float(jax.jit(accurate_sum)(terms)) == pytest.approx(float(terms[0]) * 10**6, rel=1e-7)


# the closed form ------------------------------------------------------------------------------------------------------


def test_closed_form_agrees_with_golden_gamma_and_support(golden):
    for case in json.loads((golden / "maxmin_cases.json").read_text())["power_law_cases"]:
        a, b, d = power_law(case["num_instances"], case["exponent"])
        counts = {"num_effective": case["num_effective"], "num_similar": case["num_similar"]}
        for gains in ((a, b, d), [jnp.asarray(gain, jnp.float32) for gain in (a, b, d)]):
            solution = maxmin.closed_form(*gains, **counts, log_gains=True)
            value = float(solution.value) * np.exp(float(solution.log_scale))
            assert int(solution.support_size) == case["closed_form_support"]
            assert value == pytest.approx(case["closed_form_gamma"], rel=2e-6)
            # The paper's setting: the guarantee is the exact worst case. It is not the value of the game.
            assert float(solution.lower) == pytest.approx(float(solution.value), rel=2e-5)
            assert value < 0.98 * case["game_value"]


def test_closed_form_is_definition_1_for_gains_in_any_order():
    rng = np.random.default_rng(7)
    for _ in range(40):
        _, a, b, d, num_effective, num_similar = random_game(rng, 11, "moderate")
        policy, gamma, support_size = definition_1(a, b, d, num_effective, num_similar)
        solution = maxmin.closed_form(a, b, d, num_effective=num_effective, num_similar=num_similar)
        np.testing.assert_allclose(probability(solution), policy, rtol=2e-6)
        assert int(solution.support_size) == support_size == np.isfinite(solution.log_policy).sum()
        assert float(solution.value) == pytest.approx(gamma, rel=1e-5, abs=1e-6)
        assert float(solution.log_scale) == 0


def test_closed_form_lower_is_the_worst_case_of_its_policy_and_may_miss_gamma():
    rng = np.random.default_rng(8)
    missed = 0
    for _ in range(25):
        _, a, b, d, num_effective, num_similar = random_game(rng, 11, "moderate")
        solution = maxmin.closed_form(a, b, d, num_effective=num_effective, num_similar=num_similar)
        costs = [probability(solution) * gain for gain in (a, b, d)]
        expected = cheapest_assignment(*costs, num_effective, num_similar)
        assert float(solution.lower) == pytest.approx(expected, rel=1e-5, abs=1e-6)
        assert np.isposinf(solution.upper)
        missed += expected < float(solution.value) - 1e-3
    assert missed > 0


def test_closed_form_guarantees_gamma_where_gains_are_proportional():
    rng = np.random.default_rng(9)
    for _ in range(25):
        _, a, _, _, num_effective, num_similar = random_game(rng, 11, "moderate")
        similar_ratio, incorrect_ratio = rng.uniform(0.05, 0.95), rng.uniform(0.1, 3)
        gains = (a, similar_ratio * a, incorrect_ratio * a)
        solution = maxmin.closed_form(*gains, num_effective=num_effective, num_similar=num_similar)
        assert float(solution.lower) == pytest.approx(float(solution.value), rel=2e-5, abs=2e-6)


def test_closed_form_is_not_optimal():
    a = 1 / np.arange(1.0, 61)
    counts = paper_counts(60)
    solution = maxmin.closed_form(a, a / 2, a / 2, **counts)
    inverse = 1 / a
    better_worst = maxmin.worst_case(inverse / inverse.sum(), a, a / 2, a / 2, **counts)
    assert float(solution.value) == pytest.approx(0.0040816, abs=1e-7)
    assert float(better_worst) == pytest.approx(0.0049180, abs=1e-7)


def test_a_common_factor_of_all_gains_changes_no_policy():
    gains = power_law(60, exponent=3.0)
    base = maxmin.closed_form(*gains, **paper_counts(60), log_gains=True)
    for shift in (-1000.3, 77.7):
        shifted = maxmin.closed_form(*(gain + shift for gain in gains), **paper_counts(60), log_gains=True)
        np.testing.assert_allclose(shifted.log_policy, base.log_policy, rtol=1e-6)
        ratio = float(shifted.value / base.value) * np.exp(float(shifted.log_scale - base.log_scale) - shift)
        assert ratio == pytest.approx(1, rel=1e-5)
    linear = maxmin.closed_form(*(np.exp(gain) for gain in gains), **paper_counts(60))
    np.testing.assert_allclose(linear.log_policy, base.log_policy, rtol=1e-6)
    for name in ("value", "lower"):
        expected = float(getattr(base, name)) * np.exp(float(base.log_scale))
        assert float(getattr(linear, name)) == pytest.approx(expected, rel=1e-5)


def continuous_support(num_effective=0.1, num_incorrect=0.4):
    """The limit of k*/N for many instances, gains rank^-10 and ratios of one half."""

    def first_order(x):
        start = 1 - num_effective
        weight = (start**11 + (x**11 - start**11) / 1.5) / 11
        return x**-10 * weight - (start / 2 + (x - start) / 1.5 - num_incorrect)

    return brentq(first_order, 0.9, 1.0)


@pytest.mark.parametrize("num", [12_054, pytest.param(10**7, marks=pytest.mark.slow)])
def test_closed_form_is_finite_in_float32_at_the_papers_exponent(num):
    assert not jax.config.jax_enable_x64
    log_fraction = np.log(np.arange(1, num + 1) / num).astype(np.float32)
    a = -10 * jnp.asarray(log_fraction)
    solution = maxmin.closed_form(a, a + LOG_HALF, a + LOG_HALF, **paper_counts(num), log_gains=True)
    assert all(np.isfinite(number) for number in (solution.value, solution.lower, solution.log_scale))
    assert not np.isnan(solution.log_policy).any()
    assert probability(solution).sum() == pytest.approx(1, abs=2e-6)
    assert int(solution.support_size) / num == pytest.approx(continuous_support(), abs=2e-4)
    assert float(solution.lower) == pytest.approx(float(solution.value), rel=2e-5)


def test_drop_last_leaves_out_the_last_instance_and_nothing_else():
    gains = power_law(60)
    kept = maxmin.closed_form(*gains, **paper_counts(60), log_gains=True)
    dropped = maxmin.closed_form(*gains, **paper_counts(60), log_gains=True, drop_last=True)
    support = int(kept.support_size)
    assert int(dropped.support_size) == support - 1
    expected = probability(kept)
    expected[support - 1] = 0
    np.testing.assert_allclose(probability(dropped), expected / expected.sum(), rtol=2e-5)
    assert float(dropped.value) < float(kept.value)
    alone = maxmin.closed_form(
        *(np.array([x]) for x in (3.0, 2.0, 1.0)), num_effective=0, num_similar=0, drop_last=True
    )
    assert float(alone.log_policy[0]) == 0


def test_the_policies_stay_within_the_released_bands_of_easiness():
    a, b, d = power_law(12_054)
    counts = paper_counts(12_054)
    ours = maxmin.closed_form(a, b, d, **counts, log_gains=True)
    rad = maxmin.rad_bc(a, d, num_correct=sum(counts.values()), log_gains=True)
    # Two classes with ratios of one half: k* solves 11 (2k/3 - 0.4) = 2k/3, and the policy is rank^10 up to it.
    rad_band = 0.66 * np.array([0.1, 0.5, 0.9]) ** (1 / 11)
    for solution, band, end in ((ours, [0.75, 0.87, 0.93], 0.9375), (rad, rad_band, 0.66)):
        percentiles = np.searchsorted(np.cumsum(probability(solution)), [0.1, 0.5, 0.9]) / 12_054
        np.testing.assert_allclose(percentiles, band, atol=0.005)
        assert int(solution.support_size) / 12_054 == pytest.approx(end, abs=5e-4)


def test_closed_form_maps_over_games_and_counts():
    rng = np.random.default_rng(11)
    gains = np.stack([random_game(rng, 11, "moderate")[1:4] for _ in range(2)]).astype(np.float32)
    num_effective = jnp.array([1, 4])
    closed_form = functools.partial(maxmin.closed_form, num_similar=5)
    mapped = jax.vmap(lambda game, k: closed_form(*game, num_effective=k))(jnp.asarray(gains), num_effective)
    for i in range(2):
        alone = closed_form(*jnp.asarray(gains[i]), num_effective=int(num_effective[i]))
        assert int(mapped.support_size[i]) == int(alone.support_size)
        np.testing.assert_allclose(mapped.log_policy[i], alone.log_policy, rtol=1e-6)
        np.testing.assert_allclose([mapped.value[i], mapped.lower[i]], [alone.value, alone.lower], rtol=1e-5)


# two classes ----------------------------------------------------------------------------------------------------------


def two_class_value(a, d, num_correct):
    """The value of the game with two classes as a linear program: the least Γ the adversary can force."""
    num = len(a)
    result = linprog(
        np.append(np.zeros(num), 1.0),
        A_ub=np.hstack([np.diag(a + d), -np.ones((num, 1))]),
        b_ub=d,
        A_eq=np.append(np.ones(num), 0.0)[None],
        b_eq=[num_correct],
        bounds=[(0, 1)] * num + [(None, None)],
    )
    assert result.success
    return result.fun


def test_rad_bc_is_optimal_where_it_says_so():
    rng = np.random.default_rng(10)
    proved = 0
    for _ in range(40):
        _, a, _, d, num_correct, _ = random_game(rng, 11, "moderate")
        solution = maxmin.rad_bc(a, d, num_correct=num_correct)
        expected = two_class_value(a, d, num_correct)
        assert float(solution.lower) <= expected + 1e-5
        if np.isfinite(solution.upper):
            proved += 1
            assert float(solution.lower) == pytest.approx(expected, rel=1e-5, abs=1e-5)
            assert float(solution.upper) == pytest.approx(expected, rel=1e-5, abs=1e-5)
        else:
            assert expected < 0
    assert 10 < proved < 40
    assert np.isposinf(maxmin.rad_bc(a, d, num_correct=11, drop_last=True).upper)


# refusals -------------------------------------------------------------------------------------------------------------
