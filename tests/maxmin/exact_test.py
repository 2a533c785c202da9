import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from scipy.optimize import linear_sum_assignment, linprog

from alkd_jax import maxmin
from alkd_jax.maxmin import instances
from alkd_jax.maxmin.instances import from_gains
from alkd_jax.maxmin.proportional import best_prefix, sort_weights
from alkd_jax.ops import blocks

KINDS = ["moderate", "proportional", "tied", "steep", "lossy"]


def game_value(a, b, d, num_effective, num_similar):
    """The value of the game by HiGHS: the least Γ at which the adversary can label fractionally."""
    num = len(a)
    pays = scipy.sparse.hstack([scipy.sparse.diags(a + d), scipy.sparse.diags(b + d), -np.ones((num, 1))])
    shares = scipy.sparse.hstack([scipy.sparse.identity(num)] * 2 + [scipy.sparse.csr_matrix((num, 1))])
    totals = np.zeros((2, 2 * num + 1))
    totals[0, :num] = totals[1, num:-1] = 1
    result = linprog(
        np.append(np.zeros(2 * num), 1.0),
        A_ub=scipy.sparse.vstack([pays, shares]).tocsr(),
        b_ub=np.append(d, np.ones(num)),
        A_eq=scipy.sparse.csr_matrix(totals),
        b_eq=[num_effective, num_similar],
        bounds=[(0, None)] * (2 * num) + [(None, None)],
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    assert result.success
    return result.fun


def random_game(rng, num, kind):
    a = rng.gamma(0.7, size=num) + 1e-3
    b, d = a * rng.uniform(0.02, 0.98, num), a * rng.gamma(1.0, size=num) + 1e-3
    if kind == "steep":
        factor = np.exp(rng.uniform(-8, 8, num))
        a, b, d = a * factor, b * factor, d * factor
    if kind == "lossy":
        d = a * rng.uniform(20, 60, num)
    if kind == "tied":
        a = rng.integers(2, 5, num).astype(float)
    if kind in ("tied", "proportional"):
        b, d = a * rng.uniform(0.05, 0.95), a * rng.uniform(0.1, 3)
    num_effective = int(rng.integers(0, num + 1))
    return a, b, d, num_effective, int(rng.integers(0, num - num_effective + 1))


def power_law(num, exponent=10.0):
    a = -exponent * np.log(np.arange(1, num + 1) / num)
    return a, a + np.log(0.5), a + np.log(0.5)


def probability(solution):
    return np.exp(np.asarray(solution.log_policy, np.float64))


def check(solution, a, b, d, value):
    """The certificate holds, and is as tight as promised; returns whether only rounding of the stakes allows it."""
    found, lower, upper = (float(number) for number in (solution.value, solution.lower, solution.upper))
    policy = probability(solution)
    assert lower <= found <= upper
    assert policy.sum() == pytest.approx(1, abs=1e-6)
    # Where gains and losses cancel, the last digit of the stakes shows: see the test of the finest policy.
    last_digit = float(np.finfo(np.float32).eps) * (policy * (a + d)).sum()
    allowed = max(1e-4 * abs(value), last_digit)
    assert upper - lower <= allowed
    assert abs(found - value) <= allowed
    assert int(solution.support_size) == (policy > 0).sum()
    return upper - lower > 1e-4 * abs(value)


@functools.cache
def traced_solver():
    """Gains that cannot be seen take the general path, whatever they are."""
    return jax.jit(
        lambda a, b, d, effective, similar: maxmin.solve(a, b, d, num_effective=effective, num_similar=similar)
    )


def games_known_to_a_digit_only(seed, num_games, sizes):
    """Checks random games against HiGHS on both paths; returns which are within 1e-4 only by the stakes' last digit."""
    rng = np.random.default_rng(seed)
    coarse = set()
    for i in range(num_games):
        a, b, d, num_effective, num_similar = random_game(rng, sizes[i % len(sizes)], KINDS[i // len(sizes) % 5])
        value = game_value(a, b, d, num_effective, num_similar)
        seen = maxmin.solve(a, b, d, num_effective=num_effective, num_similar=num_similar)
        traced = traced_solver()(a, b, d, num_effective, num_similar)
        coarse |= {i for solution in (seen, traced) if check(solution, a, b, d, value)}
    return coarse


def test_value_and_certificate_agree_with_a_linear_program():
    assert games_known_to_a_digit_only(0, 60, [1, 20]) == set()


@pytest.mark.slow
def test_value_and_certificate_agree_with_a_linear_program_on_five_hundred_games():
    # In game 183 gains and losses cancel to 4e-4 of the stakes, and the gap is 1.5e-4 of the value.
    assert games_known_to_a_digit_only(1, 500, [1, 2, 3, 7, 20, 40]) <= {183}


def test_no_float32_policy_is_better_where_gains_and_losses_cancel():
    """Two instances, one effective: equal stakes p (a + d) are best, and log p on its grid misses them."""
    a, d = np.float32([1.0, 0.9]), np.float32([1.1, 0.9 / 1.1 * (1 - 1e-5)])
    solution = maxmin.solve(a, a / 2, d, num_effective=1, num_similar=0)
    (a1, a2), (d1, d2) = a.astype(float), d.astype(float)
    total = a1 + d1 + a2 + d2
    value = (a1 * a2 - d1 * d2) / total
    assert float(solution.lower) <= value <= float(solution.upper)
    assert float(solution.upper - solution.lower) <= 4 * np.finfo(np.float32).eps * (probability(solution) @ (a + d))

    def neighbours(log_policy):
        bits = np.float32(log_policy).view(np.int32) + np.arange(-200, 201)
        return np.exp(bits.astype(np.int32).view(np.float32).astype(float))

    # Two hundred steps change the sum of the policy by 1e-5, more than any that sums to 1 could.
    first, second = neighbours(np.log((a2 + d2) / total))[:, None], neighbours(np.log((a1 + d1) / total))
    worst = np.minimum(first * a1 - second * d2, second * a2 - first * d1) / (first + second)
    assert 0 < value < 1e-5
    assert worst.max() < value * (1 - 1e-4)


def test_prices_of_the_many_outside_the_support_cost_the_certificate_no_digits():
    a, b, d, *_ = random_game(np.random.default_rng(9), 3000, "lossy")
    solution = maxmin.solve(a, b, d, num_effective=1800, num_similar=1200)
    assert int(solution.support_size) < 10
    assert float(solution.upper - solution.lower) <= 1e-6 * float(solution.value)


def test_the_proof_does_not_rest_on_the_last_digit_of_the_search():
    a, b = np.array([0.59233673, 0.89115391, 0.86821698]), np.array([0.31461488, 0.50188076, 0.15917076])
    d = np.array([23.1892863, 30.35115969, 20.65076448])
    solution = maxmin.solve(a, b, d, num_effective=0, num_similar=1)
    assert float(solution.upper) == pytest.approx(game_value(a, b, d, 0, 1), rel=1e-6)


def test_the_golden_games_are_solved_with_a_gap_below_a_ten_thousandth(golden):
    cases = json.loads((golden / "maxmin_cases.json").read_text())
    for case in cases["random_cases"][::3] + cases["random_cases"][-1:]:
        gains = [np.array(case[name]) for name in ("effective_gain", "similar_gain", "incorrect_loss")]
        solution = maxmin.solve(*gains, num_effective=case["num_effective"], num_similar=case["num_similar"])
        size = abs(case["game_value"]) if abs(case["game_value"]) > 1e-9 else gains[1].min()
        assert float(solution.upper - solution.lower) <= 1e-4 * size
        assert float(solution.value) == pytest.approx(case["game_value"], rel=1e-5, abs=1e-7)
    for case in cases["power_law_cases"][::3]:
        solution = maxmin.solve(
            *power_law(case["num_instances"], case["exponent"]),
            num_effective=case["num_effective"],
            num_similar=case["num_similar"],
            log_gains=True,
        )
        unit = np.exp(float(solution.log_scale) - case["exponent"] * np.log(case["num_instances"]))
        assert float(solution.value) * unit == pytest.approx(case["game_value"], rel=2e-6)
        assert float(solution.upper - solution.lower) <= 2e-5 * float(solution.value)
        assert int(solution.case) == maxmin.SPLIT
        assert float(solution.theta) == pytest.approx(0.6, abs=1e-6)


@pytest.mark.slow
def test_the_gap_is_closed_to_a_billionth_with_x64(golden):
    rng = np.random.default_rng(2)
    with jax.enable_x64(True):
        for kind in KINDS:
            a, b, d, num_effective, num_similar = random_game(rng, 20, kind)
            value = game_value(a, b, d, num_effective, num_similar)
            solution = maxmin.solve(a, b, d, num_effective=num_effective, num_similar=num_similar)
            assert solution.log_policy.dtype == jnp.float64
            assert float(solution.upper - solution.lower) <= 1e-9 * abs(value)
            assert float(solution.value) == pytest.approx(value, rel=1e-7)


def test_lower_is_the_exact_worst_case_of_the_policy():
    rng = np.random.default_rng(3)
    for i in range(20):
        a, b, d, num_effective, num_similar = random_game(rng, 20, KINDS[i % 5])
        solution = maxmin.solve(a, b, d, num_effective=num_effective, num_similar=num_similar)
        policy = probability(solution)
        columns = np.repeat([a, b, -d], [num_effective, num_similar, 20 - num_effective - num_similar], axis=0).T
        costs = policy[:, None] * columns
        worst = costs[linear_sum_assignment(costs)].sum()
        assert float(solution.lower) == pytest.approx(worst, abs=1e-6 * (policy * (a + d)).sum())


def test_no_policy_near_the_solution_has_a_better_worst_case():
    rng = np.random.default_rng(4)
    a, b, d, *_ = random_game(rng, 20, "moderate")
    counts = {"num_effective": 8, "num_similar": 6}
    solution = maxmin.solve(a, b, d, **counts)
    for _ in range(20):
        other = probability(solution) * np.exp(0.1 * rng.normal(size=20)) + 1e-3 * rng.dirichlet(np.ones(20))
        assert float(maxmin.worst_case(other / other.sum(), a, b, d, **counts)) < float(solution.upper)


def test_where_nothing_is_correct_all_instances_of_least_loss_share_the_policy():
    d = np.array([3.0, 1.0, 2.0])
    for loss, policy in ((d, [0, 1, 0]), (np.array([1.0, 1.0, 2.0]), [0.5, 0.5, 0])):
        solution = maxmin.solve(d + 2, d + 1, loss, num_effective=0, num_similar=0)
        np.testing.assert_allclose(probability(solution), policy, atol=1e-7)
        assert [float(x) for x in (solution.value, solution.lower, solution.upper)] == pytest.approx([-1] * 3)
        assert int(solution.case) == maxmin.LEAST_LOSS
        assert np.isnan(solution.theta)


def test_where_hardly_anything_is_correct_the_least_loss_is_the_value_and_proved():
    a, b, d, *_ = random_game(np.random.default_rng(7), 3000, "moderate")
    solution = maxmin.solve(a, b, d, num_effective=1, num_similar=1)
    assert int(solution.case) == maxmin.LEAST_LOSS
    assert float(solution.upper - solution.lower) <= 1e-6 * d.min()


def test_where_all_are_effective_the_largest_gain_is_asked_for():
    solution = maxmin.solve(
        np.array([1.0, 4.0, 3.0]), np.full(3, 0.5), np.array([9.0, 1.0, 1.0]), num_effective=3, num_similar=0
    )
    np.testing.assert_allclose(probability(solution), [0, 1, 0], atol=1e-7)
    assert float(solution.value) == pytest.approx(4)


def test_steep_gains_beyond_float32_are_solved_by_their_logarithms():
    log_gain = np.array([0.0, 300.0, -300.0, 150.0])
    for num_effective, expected in ((4, 300.0), (3, 150.0)):
        solution = maxmin.solve(
            log_gain, log_gain - 1, log_gain, num_effective=num_effective, num_similar=4 - num_effective, log_gains=True
        )
        found = float(jnp.log(solution.value) + solution.log_scale)
        assert found == pytest.approx(expected if num_effective == 4 else 299.0, abs=1e-3)
        assert float(solution.upper) == pytest.approx(float(solution.lower), rel=1e-4)


def test_the_solver_maps_over_gains_and_counts():
    rng = np.random.default_rng(5)
    games = [random_game(rng, 20, kind) for kind in KINDS]
    stacked = [jnp.asarray(np.stack(column), None) for column in zip(*games, strict=True)]
    mapped = jax.vmap(traced_solver())(*stacked)
    for i, game in enumerate(games):
        alone = maxmin.solve(*game[:3], num_effective=game[3], num_similar=game[4])
        size = float((probability(alone) * (game[0] + game[2])).sum())
        assert float(mapped.value[i]) == pytest.approx(float(alone.value), abs=1e-6 * size)
        assert float(mapped.upper[i] - mapped.lower[i]) < 1e-5 * size


def test_a_common_factor_changes_nothing_in_the_exact_policy():
    gains = power_law(60, 3.0)
    counts = {"num_effective": 6, "num_similar": 30, "log_gains": True}
    base = maxmin.solve(*gains, **counts)
    for shift in (-1000.25, 77.5):
        shifted = maxmin.solve(*(gain + shift for gain in gains), **counts)
        np.testing.assert_allclose(shifted.log_policy, base.log_policy, rtol=1e-6)
        ratio = float(shifted.value / base.value) * np.exp(float(shifted.log_scale - base.log_scale) - shift)
        assert ratio == pytest.approx(1, rel=1e-5)


def test_the_closed_form_loses_where_the_spec_says_so():
    gains = power_law(60, 1.0)
    counts = {"num_effective": 6, "num_similar": 30, "log_gains": True}
    exact, paper = maxmin.solve(*gains, **counts), maxmin.closed_form(*gains, **counts)
    share = float(paper.lower / exact.value) * np.exp(float(paper.log_scale - exact.log_scale))
    assert share == pytest.approx(0.0040816 / 0.0049180, rel=1e-4)


def test_a_hundred_thousand_general_instances_take_at_most_fifty_passes():
    rng = np.random.default_rng(6)
    for _ in range(2):
        a, b, d, *_ = random_game(rng, 10**5, "moderate")
        solution = maxmin.solve(a, b, d, num_effective=10**4, num_similar=5 * 10**4)
        assert int(solution.num_passes) <= 48
        assert float(solution.upper - solution.lower) <= 1e-4 * abs(float(solution.value))


@pytest.mark.slow
def test_ten_million_instances_at_the_papers_exponent_are_solved_in_float32():
    num = 10**7
    a = jnp.asarray(power_law(num)[0], jnp.float32)
    solution = maxmin.solve(
        a, a + np.log(0.5), a + np.log(0.5), num_effective=num // 10, num_similar=num // 2, log_gains=True
    )
    assert float(solution.upper - solution.lower) <= 1e-4 * float(solution.value)
    assert int(solution.support_size) / num == pytest.approx(0.935, abs=1e-3)
    assert not np.isnan(solution.log_policy).any()


def test_the_sorted_path_finds_the_value_of_proportional_gains_by_itself():
    rng = np.random.default_rng(8)
    negative = 0
    for _ in range(20):
        a, b, d, num_effective, num_similar = random_game(rng, 20, "proportional")
        game = from_gains(a, b, d, log_gains=False)
        exponent = -jnp.max(game.exponent)
        _, value, resolution = jax.jit(best_prefix)(sort_weights(game, exponent), num_effective, num_similar)
        solution = maxmin.solve(a, b, d, num_effective=num_effective, num_similar=num_similar)
        negative += float(solution.value) < 0
        if int(solution.case) != maxmin.LEAST_LOSS:
            assert float(jnp.ldexp(value, exponent)) == pytest.approx(
                float(solution.value), abs=2e-6 * float(jnp.ldexp(resolution, exponent))
            )
    assert 0 < negative < 20


@pytest.mark.parametrize("kind", ["moderate", "steep"])
def test_blocks_of_instances_add_up_to_one_pass_over_all(kind, monkeypatch):
    a, b, d, num_effective, num_similar = random_game(np.random.default_rng(5), 1000, kind)
    counts = {"num_effective": num_effective, "num_similar": num_similar}
    whole = maxmin.solve(a, b, d, **counts)
    # Four blocks, of which the last begins within the third.
    monkeypatch.setattr(blocks, "_CPU_BLOCK", 300)
    jax.clear_caches()
    cut = maxmin.solve(a, b, d, **counts)
    jax.clear_caches()
    assert float(cut.value) == pytest.approx(float(whole.value), rel=2e-6)
    assert cut.lower <= cut.value <= cut.upper
    assert float(cut.upper - cut.lower) <= 1e-4 * abs(float(cut.value))
    np.testing.assert_allclose(probability(cut), probability(whole), atol=1e-6)


def test_a_pass_holds_no_more_than_a_block_of_what_it_works_out():
    def one_pass(a, b, d, ratio, value):
        game = from_gains(a, b, d, log_gains=False)
        return instances.evaluate_constraint(
            game, ratio, instances.ScaledValue(value, jnp.int32(0)), jnp.int32(1), jnp.int32(1)
        )

    gains = [jax.ShapeDtypeStruct((10**6,), jnp.float32)] * 3
    compiled = jax.jit(one_pass).lower(*gains, jnp.float32(0.5), jnp.float32(0.5)).compile()
    # Five numbers of a session and what taking gains apart needs: what one pass used to hold was ten more.
    assert compiled.memory_analysis().temp_size_in_bytes < 8 * 4 * 10**6
