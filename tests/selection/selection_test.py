import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from alkd_jax import maxmin, selection
from alkd_jax.maxmin.ranked import sample_position

# difficulty -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["fpmc", "stamp", "attmix"])
@pytest.mark.parametrize("width", ["d4", "d10"])
def test_difficulty_agrees_with_golden_consistency(golden, backbone, width):
    with np.load(golden / "backbones.npz") as arrays:
        found = selection.difficulty(
            arrays[f"{backbone}/{width}/session_vector"],
            arrays[f"{backbone}/{width}/params/output_embedding"],
            arrays["items"],
            arrays["mask"].astype(bool),
        )
        np.testing.assert_allclose(found, -arrays[f"{backbone}/{width}/consistency"], atol=1e-5)


def random_sessions(seed=0):
    rng = np.random.default_rng(seed)
    vectors, table = rng.normal(size=(7, 3)).astype(np.float32), rng.normal(size=(9, 3)).astype(np.float32)
    mask = np.arange(4) < rng.integers(1, 5, size=(7, 1))
    return vectors, table, np.where(mask, rng.integers(1, 9, size=(7, 4)), 0), mask


def test_difficulty_is_the_negative_mean_agreement_with_the_sessions_items():
    vectors, table, items, mask = random_sessions()
    agreement = 1 / (1 + np.exp(-np.einsum("nd,nld->nl", vectors, table[items])))
    expected = [-agreement[n, mask[n]].mean() for n in range(7)]
    np.testing.assert_allclose(selection.difficulty(vectors, table, items, mask), expected, rtol=1e-5)


def test_difficulty_ignores_what_lies_under_the_mask_and_the_size_of_chunks():
    vectors, table, items, mask = random_sessions()
    base = selection.difficulty(vectors, table, items, mask)
    filled = np.where(mask, items, 8)
    np.testing.assert_array_equal(selection.difficulty(vectors, table, filled, mask, chunk_size=3), base)


def test_difficulty_refuses_what_it_cannot_score():
    vectors, table, items, mask = random_sessions()
    with pytest.raises(ValueError, match=r"items\[0, 0\] is 9; expected a row of the table, 0 to 8"):
        selection.difficulty(vectors, table, np.full_like(items, 9), mask)
    with pytest.raises(ValueError, match=r"length\[0\] is 0; expected at least 1 real item"):
        selection.difficulty(vectors, table, items, np.zeros_like(mask))
    with pytest.raises(ValueError, match="width of item_embeddings is 2; expected 3"):
        selection.difficulty(vectors, table[:, :2], items, mask)
    with pytest.raises(ValueError, match=r"shape of mask is \[7, 3\]"):
        selection.difficulty(vectors, table, items, mask[:, :3])
    with pytest.raises(ValueError, match=r"shape of items is \[6, 4\]; expected \[7, L\]"):
        selection.difficulty(vectors, table, items[:6], mask)


DIFFICULTY = np.float32([-0.5, -0.2, -0.5, -0.2, -0.9])


def test_rank_1_is_the_hardest_and_ties_go_to_the_lower_index():
    np.testing.assert_array_equal(selection.difficulty_rank(DIFFICULTY), [3, 1, 4, 2, 5])


def test_easiest_and_hardest_come_in_order_with_ties_to_the_lower_index():
    np.testing.assert_array_equal(selection.easiest(DIFFICULTY, 4), [4, 0, 2, 1])
    np.testing.assert_array_equal(selection.hardest(DIFFICULTY, 3), [1, 3, 0])
    with pytest.raises(ValueError, match="num is 6; expected 1 to 5"):
        selection.easiest(DIFFICULTY, 6)
    with pytest.raises(ValueError, match="num is 500; expected 1 to 5"):
        selection.hardest(DIFFICULTY)
    with pytest.raises(ValueError, match=r"difficulty\[1\] is nan"):
        selection.difficulty_rank(np.float32([0, np.nan]))


# gains and counts -----------------------------------------------------------------------------------------------------


def test_gains_are_powers_of_the_rank():
    rank = np.random.default_rng(0).permutation(12_054) + 1
    gains = selection.gains(rank, exponent=10.0, similar_ratio=0.25, incorrect_ratio=2.0)
    for log_gain, ratio in ((gains.effective, 1), (gains.similar, 0.25), (gains.incorrect, 2)):
        true = np.asarray(log_gain, np.float64) + gains.log_scale
        np.testing.assert_allclose(true, np.log(ratio) - 10 * np.log(rank), atol=1.2e-5)


@pytest.mark.parametrize("num", [1_000, 10**8])
def test_the_gains_of_the_easier_half_are_precise_for_any_number_of_sessions(num):
    rank = np.unique(np.concatenate([np.linspace(num // 2 + 1, num, 2_000).astype(int), num - np.arange(50)]))
    found = np.asarray(-10 * selection.log_fraction(jnp.asarray(rank, jnp.int32), num), np.float64)
    np.testing.assert_allclose(found, -10 * np.log1p(-(num - rank) / num), rtol=3e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exponent": -1.0}, "exponent is -1.0"),
        ({"exponent": 1e300}, "exponent is 1e[+]300; expected a finite number of at least 0 and at most 9102"),
        ({"similar_ratio": float("nan")}, "similar_ratio is nan"),
        ({"similar_ratio": 1.0}, "similar_ratio is 1.0; expected a number between 0 and 1"),
        ({"incorrect_ratio": 0.0}, "incorrect_ratio is 0.0"),
    ],
)
def test_gains_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        selection.gains(np.arange(1, 4), **options)


def test_a_rank_below_1_is_refused():
    with pytest.raises(ValueError, match=r"rank\[0\] is 0; expected at least 1"):
        selection.gains(np.arange(3))


@pytest.mark.usefixtures("unchecked_types")
def test_ranks_with_a_fraction_or_beyond_the_sessions_are_refused(key):
    for wrong, message in (([1.0, 1.9], "rank are numbers of type float64"), ([1, 3], r"rank\[1\] is 3")):
        with pytest.raises(ValueError, match=message):
            selection.gains(np.array(wrong))
        with pytest.raises(ValueError, match=message):
            selection.select(key, maxmin.RankedGame(np.array(wrong)), num=1, resolve="each")


def test_class_counts_agree_with_golden_counts(golden):
    for case in json.loads((golden / "maxmin_cases.json").read_text())["power_law_cases"][:3]:
        expected = (case["num_effective"], case["num_similar"], case["num_incorrect"])
        assert selection.class_counts(case["num_instances"]) == expected


@pytest.mark.usefixtures("unchecked_types")
def test_class_counts_take_decimal_ratios_as_written():
    assert selection.class_counts(10, (0.7, 0.1, 0.2)) == (7, 1, 2)
    assert selection.class_counts(1_000, (0.29, 0.57, 0.14)) == (290, 570, 140)
    for num in range(200):
        assert selection.class_counts(num, (0.1, 0.5, 0.4)) == selection.class_counts(num)
    with pytest.raises(ValueError, match="expected three numbers"):
        selection.class_counts(10, (1, -1, 4))
    with pytest.raises(ValueError, match="num_sessions is -1"):
        selection.class_counts(-1)
    for wrong in ((True, 1, 1), ("1", 1, 1), (np.nan, 1, 1), (0, 0, 0)):
        with pytest.raises(ValueError, match="expected three numbers"):
            selection.class_counts(10, wrong)


# drawing --------------------------------------------------------------------------------------------------------------


def test_select_draws_one_after_another_in_proportion_to_what_is_left(key):
    policy = np.array([0.5, 0.25, 0.2, 0.05])
    pairs = list(itertools.permutations(range(4), 2))
    expected = [policy[i] * policy[j] / (1 - policy[i]) for i, j in pairs]
    keys = jax.random.split(key, 20_000)
    drawn = jax.vmap(lambda k: selection.select(k, np.log(policy), num=2))(keys)
    observed = [int(((drawn[:, 0] == i) & (drawn[:, 1] == j)).sum()) for i, j in pairs]
    assert sum(observed) == 20_000
    assert chisquare(observed, 20_000 * np.array(expected)).pvalue > 1e-3


def test_select_never_draws_twice_nor_outside_the_support(key):
    log_policy = np.where(np.arange(1_000) % 3 == 0, -np.inf, -np.arange(1_000) / 10.0)
    support = np.flatnonzero(np.isfinite(log_policy))
    np.testing.assert_array_equal(np.sort(selection.select(key, log_policy, num=len(support))), support)
    with pytest.raises(ValueError, match="num is 667; expected 1 to 666"):
        selection.select(key, log_policy, num=667)
    inside = jax.jit(lambda p: selection.select(key, p, num=667))(jnp.asarray(log_policy, jnp.float32))
    assert int(inside[-1]) == -1
    assert set(inside[:-1].tolist()) == set(support.tolist())


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_select_refuses_what_is_no_logarithm_of_a_probability(key, wrong):
    with pytest.raises(ValueError, match=rf"log_policy\[1\] is {wrong}"):
        selection.select(key, np.array([0.0, wrong]), num=1)


def test_select_depends_on_the_policy_only_up_to_a_factor(key):
    log_policy = np.float32(np.linspace(-3, 0, 1_000))
    chosen = selection.select(key, log_policy, num=50)
    np.testing.assert_array_equal(selection.select(key, log_policy + 64, num=50), chosen)


def test_random_numbers_come_in_blocks_of_a_million_by_number(key):
    num = selection.RANDOM_BLOCK + 1_000
    policy = np.zeros(num, np.float32)
    policy[: selection.RANDOM_BLOCK] = -6
    blocks = [
        jax.random.gumbel(jax.random.fold_in(key, block), (2**20,), jnp.float32, mode="highest") for block in range(2)
    ]
    expected = np.argsort(-(policy + np.concatenate(blocks)[:num]), kind="stable")[:500]
    assert 50 < (expected < selection.RANDOM_BLOCK).sum() < 450
    np.testing.assert_array_equal(selection.select(key, policy, num=500), expected)


def test_a_million_equal_sessions_are_drawn_without_ties(key):
    # Tied keys come out by index, so ties show as more rises than falls; 2^23 levels of noise tie one in eight here.
    drawn = np.asarray(selection.select(key, selection.random_policy(2**20), num=2**15))
    rising = (np.diff(drawn) > 0).mean()
    assert abs(rising - 0.5) < 4 * 0.5 / np.sqrt(2**15)


def test_the_mean_rank_drawn_is_that_of_successive_sampling(key):
    # One percent of the sessions drawn by rank^10: a session survives with exp(-t r^10), where t solves the total.
    num = 10**6
    fraction = (np.arange(num) + 0.5) / num
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if -np.expm1(-middle * fraction**10).mean() < 0.01 else (low, middle)
    included = -np.expm1(-low * fraction**10)
    drawn = selection.select(key, 10 * np.log(fraction), num=num // 100)
    expected = (included * fraction).sum() / included.sum()
    assert expected == pytest.approx(0.9155, abs=1e-4)
    assert float(fraction[np.asarray(drawn)].mean()) == pytest.approx(expected, abs=0.003)


def test_random_policy_is_uniform():
    np.testing.assert_allclose(np.exp(selection.random_policy(8)), np.full(8, 1 / 8), rtol=1e-6)
    with pytest.raises(ValueError, match="num_sessions is 0"):
        selection.random_policy(0)


# drawing with the game solved anew ------------------------------------------------------------------------------------


def probability(solution):
    return np.exp(np.asarray(solution.log_policy, np.float64))


def policy_of_places(num, solver, **options):
    """The policy over the places of ``num`` sessions, hardest first, by the solver of whole games."""
    num_effective, num_similar, _ = selection.class_counts(num, (3, 3, 4))
    a = np.arange(1.0, num + 1) ** -2
    solution = solver(a, a / 2, a / 2, num_effective=num_effective, num_similar=num_similar, **options)
    return probability(solution)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "solver", "solver_options"),
    [
        ({}, maxmin.solve, {}),
        ({"policy": "closed_form", "drop_last": True}, maxmin.closed_form, {"drop_last": True}),
    ],
)
def test_resolving_draws_from_the_policy_of_the_game_that_is_left(key, options, solver, solver_options):
    rank = np.array([3, 1, 7, 6, 2, 5, 4])
    game = maxmin.RankedGame(rank, ratios=(3, 3, 4), exponent=2, **options)
    keys = jax.random.split(key, 20_000)
    drawn = rank[np.asarray(jax.vmap(lambda k: maxmin.sample_with_resolving(k, game, num=2))(keys))]
    first, second = (policy_of_places(num, solver, **solver_options) for num in (7, 6))
    expected = np.zeros((7, 7))
    for i in range(7):
        expected[i, np.delete(np.arange(7), i)] = first[i] * second
    observed = np.zeros((7, 7))
    np.add.at(observed, tuple(drawn.T - 1), 1)
    assert observed[expected < 1e-9].sum() == 0
    likely = expected > 1e-9
    expected = expected[likely] / expected[likely].sum() * observed.sum()
    assert chisquare(observed[likely], expected).pvalue > 1e-3


def test_resolving_never_draws_twice_and_ends_with_everyone(key):
    game = maxmin.RankedGame(np.random.default_rng(0).permutation(60) + 1)
    np.testing.assert_array_equal(np.sort(selection.select(key, game, num=60, resolve="each")), np.arange(60))


@pytest.mark.slow
def test_resolving_tells_millions_of_sessions_apart(key):
    # Where all are equally likely, one number of 2^23 levels falls on every other of 2^24 places only.
    num = 2**24
    game = maxmin.RankedGame(np.arange(1, 4), exponent=0)
    equal = jnp.ones(num), jnp.arange(num + 1, dtype=jnp.float32)
    within = jnp.tile(jnp.arange(1, 1025, dtype=jnp.float32), (num // 1024, 1))
    draw = jax.jit(jax.vmap(lambda uniforms: sample_position(game, *equal, within, jnp.int32(num), uniforms)))
    drawn = np.asarray(draw(jax.random.uniform(key, (100, 2))))
    assert 25 < (drawn % 2).sum() < 75
    assert 0.3 < drawn.mean() / num < 0.7


@pytest.mark.slow
def test_resolving_draws_by_rank_across_blocks(key):
    game = maxmin.RankedGame(np.arange(1, 10_001))
    gains = selection.gains(np.arange(1, 10_001))
    counts = {"num_effective": 1_000, "num_similar": 5_000, "log_gains": True}
    solution = maxmin.solve(gains.effective, gains.similar, gains.incorrect, **counts)
    places = jax.vmap(lambda k: maxmin.sample_with_resolving(k, game, num=1))(jax.random.split(key, 10_000))[:, 0]
    mass = np.concatenate([[0], np.cumsum(probability(solution))])
    edges = np.array([0, *np.linspace(7_000, int(solution.support_size), 25).astype(int)])
    observed = np.histogram(places, bins=edges)[0]
    expected = np.diff(mass[edges]) / mass[edges[-1]] * 10_000
    assert observed.sum() == 10_000
    assert chisquare(observed, expected).pvalue > 1e-3


@pytest.mark.usefixtures("unchecked_types")
def test_resolving_needs_a_game_and_drawing_once_a_policy(key):
    game = maxmin.RankedGame(np.arange(1, 4))
    with pytest.raises(ValueError, match='expected a RankedGame for resolve="each"'):
        selection.select(key, np.zeros(3), num=1, resolve="each")
    with pytest.raises(ValueError, match='expected an array of log p for resolve="once"'):
        selection.select(key, game, num=1)
    with pytest.raises(ValueError, match="num is 4; expected 1 to 3"):
        selection.select(key, game, num=4, resolve="each")
    with pytest.raises(ValueError, match=r"num is 1\.5; expected a whole number"):
        selection.select(key, np.zeros(3), num=1.5)
    with pytest.raises(ValueError, match="resolve is 'twice'"):
        selection.select(key, np.zeros(3), num=1, resolve="twice")
