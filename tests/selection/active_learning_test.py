"""Active learning's selections against references in NumPy, and the properties that each promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from alkd_jax import selection

NONE = -np.inf


def softmax(scores):
    shifted = np.exp(scores - scores.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


# uncertainty ----------------------------------------------------------------------------------------------------------


def test_uncertainties_are_those_of_the_softmax_of_the_candidates():
    scores = 3 * np.random.default_rng(0).normal(size=(40, 7))
    scores[:20, 5:] = NONE
    prob = softmax(scores)
    nats = -np.where(prob > 0, prob * np.log(np.where(prob > 0, prob, 1)), 0).sum(1)
    np.testing.assert_allclose(selection.entropy(scores), nats / np.log(np.r_[[5] * 20, [7] * 20]), rtol=1e-4)
    best = np.sort(prob, 1)
    np.testing.assert_allclose(selection.margin(scores), 1 - best[:, -1] + best[:, -2], rtol=1e-4)


@pytest.mark.parametrize("measure", [selection.entropy, selection.margin])
def test_uncertainty_is_1_for_equal_scores_and_0_for_one_candidate(measure):
    scores = np.array([[2.0, 2.0, 2.0], [-900.0, -900.0, NONE], [5.0, NONE, NONE], [800.0, 0.0, 0.0]])
    np.testing.assert_allclose(measure(scores), [1, 1, 0, 0], atol=1e-6)
    assert (np.asarray(measure(scores)) <= 1).all()
    for wrong in (np.full((2, 2), np.nan), np.full((2, 2), np.inf), np.full((2, 2), NONE)):
        with pytest.raises(ValueError, match=r"scores\[0, 0\]|number of candidates\[0\] is 0"):
            measure(wrong)
    with pytest.raises(ValueError, match=r"shape of scores is \[2, 0\]"):
        measure(np.zeros((2, 0)))


# randomized acceptance ------------------------------------------------------------------------------------------------


def test_a_session_is_accepted_in_the_order_of_its_probability(key):
    """Two sessions are visited in either order, again and again: P(the first comes first) is known."""
    p, q = 0.5, 0.2
    keys = jax.random.split(key, 20_000)
    first = np.asarray(jax.vmap(lambda k: selection.randomized_acceptance(k, jnp.array([p, q, 0.0]), num=1))(keys))
    neither = (1 - p) * (1 - q)
    expected = (0.5 * p + 0.5 * p * (1 - q)) / (1 - neither)
    assert (
        chisquare([(first == 0).sum(), (first == 1).sum()], 20_000 * np.array([expected, 1 - expected])).pvalue > 1e-3
    )


def test_the_share_accepted_in_one_pass_is_the_probability(key):
    probability = np.repeat([0.9, 0.3, 0.0], 4_000)
    num = int(4_000 * (0.9 + 0.3))
    chosen = np.asarray(selection.randomized_acceptance(key, probability, num=num))
    assert len(set(chosen.tolist())) == num
    counts = np.bincount(chosen // 4_000, minlength=3)
    assert counts[2] == 0
    assert abs(counts[0] - 3_600) < 120
    everyone = np.sort(selection.randomized_acceptance(key, probability, num=8_000))
    np.testing.assert_array_equal(everyone, np.arange(8_000))


def test_certain_sessions_are_accepted_first_and_impossible_ones_never(key):
    probability = np.array([1e-6, 1.0, 1e-6, 1.0, 0.0])
    assert set(np.asarray(selection.randomized_acceptance(key, probability, num=2)).tolist()) == {1, 3}
    with pytest.raises(ValueError, match="num is 5; expected 1 to 4"):
        selection.randomized_acceptance(key, probability, num=5)
    with pytest.raises(ValueError, match=r"uncertainty\[1\] is 1.5"):
        selection.randomized_acceptance(key, np.array([0.0, 1.5]), num=1)


# k-center -------------------------------------------------------------------------------------------------------------


def farthest_points(vectors, first, num):
    chosen = [first]
    while len(chosen) < num:
        distance = ((vectors[:, None] - vectors[chosen][None]) ** 2).sum(2).min(1)
        distance[chosen] = -1
        chosen.append(int(distance.argmax()))
    return chosen


def test_k_center_is_the_greedy_farthest_point(key):
    vectors = np.random.default_rng(1).normal(size=(60, 3)).astype(np.float32)
    vectors[30:] = vectors[:30]
    chosen = np.asarray(selection.k_center(key, vectors, num=60)).tolist()
    assert sorted(chosen) == list(range(60)), "duplicates are selected once"
    assert chosen[:12] == farthest_points(vectors.astype(np.float64), chosen[0], 12)
    assert chosen[:5] == np.asarray(selection.k_center(key, vectors, num=5)).tolist()
    with pytest.raises(ValueError, match="num is 61; expected 1 to 60"):
        selection.k_center(key, vectors, num=61)
    with pytest.raises(ValueError, match=r"session_vectors\[0, 0\] is nan"):
        selection.k_center(key, np.full((2, 2), np.nan), num=1)


@pytest.mark.slow
def test_k_center_and_gradients_take_a_hundred_thousand_sessions(key):
    rng = np.random.default_rng(0)
    num, width, candidates = 10**5, 10, 20
    vectors = rng.normal(size=(num, width)).astype(np.float32)
    assert len(set(np.asarray(selection.k_center(key, vectors, num=50)).tolist())) == 50
    items = np.argsort(rng.random((num, 100)), axis=1)[:, :candidates].astype(np.int32) + 1
    embeddings = selection.gradient_embeddings(
        rng.normal(size=(num, candidates)).astype(np.float32), items, vectors, num_items=10**6
    )
    assert len(set(np.asarray(selection.k_means_plus_plus(key, embeddings, num=50)).tolist())) == 50


# gradient embeddings --------------------------------------------------------------------------------------------------


def made_embeddings():
    rng = np.random.default_rng(2)
    items = np.stack([rng.permutation(12)[:5] + 1 for _ in range(20)]).astype(np.int32)
    scores, vectors = rng.normal(size=(20, 5)), rng.normal(size=(20, 4))
    items[0, 3:], scores[0, 3:] = -1, NONE
    return items, scores, vectors, selection.gradient_embeddings(scores, items, vectors, num_items=12)


def test_factored_distances_are_those_of_the_written_out_gradients():
    items, scores, vectors, embeddings = made_embeddings()
    gradients = np.zeros((20, 13, 4))
    for row in range(20):
        residual = softmax(scores[row : row + 1])[0]
        residual[scores[row].argmax()] -= 1
        for item, weight in zip(items[row], residual, strict=True):
            gradients[row, max(item, 0)] += weight * vectors[row]
    flat = gradients.reshape(20, -1)
    np.testing.assert_allclose(embeddings.squared_norms(), (flat**2).sum(1), rtol=1e-4)
    for center in (0, 7):
        expected = ((flat - flat[center]) ** 2).sum(1)
        np.testing.assert_allclose(embeddings.squared_distances(center), expected, rtol=1e-4, atol=1e-5)


def test_the_embedding_is_the_gradient_of_the_cross_entropy_of_the_best_item():
    items, scores, vectors, embeddings = made_embeddings()
    row, best = 3, int(scores[3].argmax())
    table = jnp.zeros((13, 4))

    def loss(table):
        # Scores are linear in the table: a table of zeros with the given scores added has the same gradient.
        return -jax.nn.log_softmax(jnp.asarray(scores[row], jnp.float32) + table[items[row]] @ vectors[row])[best]

    gradient = jax.grad(loss)(table)
    np.testing.assert_allclose(jnp.sum(gradient**2), embeddings.squared_norms()[row], rtol=1e-4)


def test_k_means_plus_plus_draws_by_squared_distance(key):
    """Three sessions on a line of one item: the second draw after each first one has known probabilities."""
    embeddings = selection.GradientEmbeddings(
        items=jnp.ones((3, 1), jnp.int32),
        residual=jnp.ones((3, 1)),
        vectors=jnp.array([[0.0], [1.0], [3.0]]),
        num_items=1,
    )
    keys = jax.random.split(key, 20_000)
    drawn = np.asarray(jax.vmap(lambda k: selection.k_means_plus_plus(k, embeddings, num=2))(keys))
    expected = {(0, 1): 0.1, (0, 2): 0.9, (1, 0): 0.2, (1, 2): 0.8, (2, 0): 9 / 13, (2, 1): 4 / 13}
    observed = [int(((drawn == pair).all(1)).sum()) for pair in expected]
    assert sum(observed) == 20_000
    assert chisquare(observed, 20_000 / 3 * np.array(list(expected.values()))).pvalue > 1e-3


def test_k_means_plus_plus_selects_everyone_once_also_where_all_are_equal(key):
    embeddings = selection.gradient_embeddings(np.zeros((6, 2)), np.full((6, 2), [1, 2]), np.ones((6, 3)), num_items=2)
    assert sorted(np.asarray(selection.k_means_plus_plus(key, embeddings, num=6)).tolist()) == list(range(6))
    with pytest.raises(ValueError, match=r"shapes are scores \[6, 2\], items \[6, 1\]"):
        selection.gradient_embeddings(np.zeros((6, 2)), np.ones((6, 1), int), np.ones((6, 3)), num_items=2)
    with pytest.raises(ValueError, match=r"items span 3\.\.3; expected -1\.\.2"):
        selection.gradient_embeddings(np.zeros((6, 1)), np.full((6, 1), 3), np.ones((6, 3)), num_items=2)


# rounds ---------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 1_000).flatmap(lambda num: st.tuples(st.just(num), st.integers(1, num))))
@settings(max_examples=50)
def test_rounds_split_the_budget_evenly(numbers):
    num, rounds = numbers
    sizes = selection.round_sizes(num, rounds)
    assert (sum(sizes), len(sizes), max(sizes) - min(sizes) <= 1) == (num, rounds, True)


def test_each_round_sees_what_was_selected_and_never_draws_it_again(key):
    seen = []

    def policy_after(chosen):
        seen.append(chosen.tolist())
        return np.zeros(10)

    chosen = selection.select_in_rounds(key, policy_after, num=10, rounds=3)
    assert sorted(chosen.tolist()) == list(range(10))
    assert seen == [[], chosen[:4].tolist(), chosen[:7].tolist()]
    once = selection.select_in_rounds(key, policy_after, num=4, rounds=1)
    np.testing.assert_array_equal(once, selection.select(key, np.zeros(10), num=4))
    with pytest.raises(ValueError, match="rounds is 3; expected 1 to 2"):
        selection.select_in_rounds(key, policy_after, num=2, rounds=3)


# the measured game ----------------------------------------------------------------------------------------------------


def test_shares_and_gains_of_a_pilot_are_those_of_its_lists():
    teacher, student = np.array([1, 2, 3, 0, 0, 40]), np.array([50, 3, 3, 1, 60, 7])
    game = selection.measure_game(teacher, student)
    assert game.ratios == (1 + 1, 2 + 1, 3 + 1)
    value = [1 / np.log2(1 + rank) for rank in range(1, 8)]
    assert game.similar_ratio == pytest.approx((value[1] - value[2]) / 2 / value[0])
    assert game.incorrect_ratio == pytest.approx((value[0] + value[6]) / 3 / value[0])


@pytest.mark.usefixtures("unchecked_types")
def test_what_a_pilot_cannot_tell_is_as_in_the_paper():
    game = selection.measure_game(np.array([0, 0]), np.array([1, 90]))
    assert (game.similar_ratio, game.incorrect_ratio, game.ratios) == (0.5, 0.5, (1, 1, 3))
    worse = selection.measure_game(np.array([1, 25]), np.array([90, 1]))
    assert worse.similar_ratio == 0.01, "the game needs a gain above 0"
    with pytest.raises(ValueError, match="num_sessions is 0"):
        selection.measure_game(np.zeros(0, int), np.zeros(0, int))
    with pytest.raises(ValueError, match="student_rank has 1 numbers; expected 2"):
        selection.measure_game(np.array([1, 1]), np.array([1]))
