import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import baselines
from alkd_jax.types import Sequences
from tests.helpers.counted_sessions import sequences_of, sessions_of

METHODS = {
    "popularity": baselines.method("popularity"),
    "Markov": baselines.method("markov"),
    "co-occurrence": baselines.method("co_occurrence"),
    "item-kNN": baselines.method("item_knn"),
    "item-kNN, recency": baselines.method("item_knn", recency=0.8),
    "session-kNN": baselines.method("session_knn", neighbors=4),
    "sequential rules": baselines.method("sequential_rules", recency=0.7, backward=0.4, damping=0.5),
    "sequential rules, plain": baselines.method("sequential_rules", recency=1.0, damping=0.0),
}


def score(method, counts, *rows: list[int]) -> np.ndarray:
    return method(counts)(baselines.Histories.from_rows(rows))


def reference_scores(name: str, train: list[list[int]], num_items: int, query: list[int]) -> list[float]:
    """Loops over sessions and items, straight from the definitions."""
    pop = [sum(row.count(v) for row in train) for v in range(num_items + 1)]

    def both(x: int, v: int) -> int:
        return sum(x in row and v in row for row in train)

    def cosine(x: int, v: int) -> float:
        return both(x, v) / math.sqrt(pop[x] * pop[v]) if pop[x] and pop[v] else 0.0

    def similarity(row: list[int]) -> float:
        return len(set(query) & set(row)) / math.sqrt(len(set(row))) if row else 0.0

    def follows(x: int, v: int) -> float:
        pairs = [(row, i, j) for row in train for i in range(len(row)) for j in range(i + 1, len(row))]
        return sum(0.9 ** (j - i - 1) for row, i, j in pairs if (row[i], row[j]) == (x, v))

    def both_ways(x: int, v: int) -> float:
        return (follows(x, v) + 0.4 * follows(v, x)) / math.sqrt(max(pop[x], 1))

    nearest = sorted(train, key=lambda row: round(-similarity(row), 9))[:4]
    rules = {
        "popularity": lambda v: pop[v],
        "Markov": lambda v: sum((a, b) == (query[-1], v) for row in train for a, b in itertools.pairwise(row) if query),
        "co-occurrence": lambda v: sum(both(x, v) for x in query),
        "item-kNN": lambda v: sum(cosine(x, v) for x in query),
        "item-kNN, recency": lambda v: sum(0.8**j * cosine(x, v) for j, x in enumerate(reversed(query))),
        "session-kNN": lambda v: sum(similarity(row) for row in nearest if v in row),
        "sequential rules": lambda v: sum(0.7**j * both_ways(x, v) for j, x in enumerate(reversed(query))),
        "sequential rules, plain": lambda v: sum(follows(x, v) for x in query),
    }
    return [0.0] + [rules[name](v) for v in range(1, num_items + 1)]


def broken_ties(scores: list[float], train: list[list[int]]) -> list[float]:
    pop = [sum(row.count(v) for row in train) for v in range(len(scores))]
    return [score + 1e-6 * count / max(pop) for score, count in zip(scores, pop, strict=True)]


def random_data(seed: int, *, num_items: int = 9):
    """Small enough that repeats, ties, unknown items, empty queries and whole-catalogue queries all occur."""
    rng = np.random.default_rng(seed)
    train = [rng.integers(1, num_items, rng.integers(0, 6)).tolist() for _ in range(12)] + [[1, 2, 2]]
    queries = [rng.integers(1, num_items + 1, rng.integers(0, 5)).tolist() for _ in range(11)]
    targets = [int(rng.choice([v for v in range(1, num_items + 1) if v not in query])) for query in queries]
    return train, queries, targets


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", METHODS)
def test_scores_equal_loops_over_the_definition(name, seed):
    train, queries, _ = random_data(seed)
    scores = score(METHODS[name], baselines.count(sequences_of(*train), 9), *queries)
    expected = [reference_scores(name, train, 9, query) for query in queries]
    np.testing.assert_allclose(scores, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("name", METHODS)
def test_ranks_and_lists_equal_a_sort_of_the_allowed_items(name, seed):
    train, queries, targets = random_data(seed)
    counts = baselines.count(sequences_of(*train), 9)
    sessions = sessions_of(*queries, targets=targets)
    places = baselines.target_places(METHODS[name](counts), counts, sessions)
    ranks = {ties: places.ranks(ties=ties) for ties in baselines.TIES}
    lists = baselines.top_k_lists(METHODS[name](counts), counts, sessions, 7)
    np.testing.assert_array_equal(lists.session_id, sessions.session_id)
    for row, (query, target, items, mask) in enumerate(zip(queries, targets, lists.items, lists.mask, strict=True)):
        scores = broken_ties(reference_scores(name, train, 9, query), train)
        order = sorted((v for v in range(1, 10) if v not in query), key=lambda v: (-round(scores[v], 11), v))
        shared = [place for place, v in enumerate(order, 1) if abs(scores[v] - scores[target]) < 1e-11]
        assert places.mean[row] == np.mean(shared)
        assert places.equal[row] == len(shared) - 1
        rounded = {"average": math.ceil(np.mean(shared)), "published": math.floor(np.mean(shared))}
        rounded |= {"optimistic": min(shared), "pessimistic": max(shared)}
        assert {ties: ranks[ties][row] for ties in ranks} == rounded
        assert items[mask].tolist() == order[:7]
        assert not items[~mask].any()


def test_followers_too_far_apart_to_count_are_left_out():
    counts = baselines.count(sequences_of([1, 2, 3, 4]), 4, decay=0.02)
    assert counts.followers[1, 2] == 1
    assert counts.followers[1, 3] == pytest.approx(0.02)
    assert counts.followers[1, 4] == 0


def test_recency_one_half_halves_the_weight_with_every_step_from_the_last_real_item():
    counts = baselines.count(sequences_of([1, 4], [2, 5], [3, 6]), 6)
    scores = score(baselines.method("item_knn", recency=0.5), counts, [1, 2, 3], [2, 1])
    np.testing.assert_allclose(scores[:, 4:], [[0.25, 0.5, 1.0], [1.0, 0.5, 0.0]])


def test_cosine_divides_by_the_popularity_of_both_items():
    counts = baselines.count(sequences_of([1, 2], [1, 3], [1, 2], [2, 4]), 4)
    np.testing.assert_allclose(score(baselines.method("item_knn"), counts, [1])[0, 2:], [2 / 3, 1 / math.sqrt(3), 0.0])


def test_markov_looks_at_the_last_item_and_at_adjacent_pairs_inside_one_session():
    counts = baselines.count(sequences_of([1, 2, 3], [1, 2], [4, 1]), 4)
    np.testing.assert_array_equal(
        score(baselines.method("markov"), counts, [4, 1], [2], [3]), [[0, 0, 2, 0, 0], [0, 0, 0, 1, 0], [0] * 5]
    )


def test_of_equally_similar_sessions_the_earlier_are_neighbors():
    counts = baselines.count(sequences_of([1, 2], [1, 3], [1, 4], [1, 4, 5]), 5)
    scores = score(baselines.method("session_knn", neighbors=2), counts, [1])
    np.testing.assert_allclose(scores[0, 2:], [2**-0.5, 2**-0.5, 0.0, 0.0])


def test_equal_similarities_with_unequal_float_quotients_are_a_tie():
    long = list(range(1, 19))
    assert 3 / math.sqrt(18) != 1 / math.sqrt(2), "the sessions below tie only in exact arithmetic"
    for rows in ([long, [1, 19]], [[1, 19], long]):
        counts = baselines.count(sequences_of(*rows), 19)
        scores = score(baselines.method("session_knn", neighbors=1), counts, [1, 2, 3])
        assert scores[0, rows[0][-1]] > 0
        assert scores[0, rows[1][-1]] == 0


@pytest.mark.parametrize("name", METHODS)
def test_queries_nobody_has_seen_get_popularity_order(name):
    counts = baselines.count(sequences_of([1, 2, 3], [2, 3], [3, 5]), 7)
    lists = baselines.top_k_lists(METHODS[name](counts), counts, sessions_of([6], [6, 7], []), 7)
    assert lists.items.tolist() == [[3, 2, 1, 5, 4, 7, 0], [3, 2, 1, 5, 4, 0, 0], [3, 2, 1, 5, 4, 6, 7]]


def test_popularity_breaks_ties_before_the_mean_rank_does():
    counts = baselines.count(sequences_of([1, 2], [1, 3], [1, 4], [5, 3]), 6)
    sessions = sessions_of([1], [1], [1], targets=[3, 2, 4])
    assert baselines.target_places(baselines.method("co_occurrence")(counts), counts, sessions).mean.tolist() == [
        1,
        2.5,
        2.5,
    ]
    assert baselines.rank_targets(baselines.method("co_occurrence")(counts), counts, sessions).tolist() == [1, 3, 3]


def test_popularity_never_outweighs_a_count():
    counts = baselines.count(sequences_of([1, 2], *[[3]] * 1000), 3)
    assert baselines.rank_targets(
        baselines.method("co_occurrence")(counts), counts, sessions_of([1], targets=[2])
    ).tolist() == [1]


def test_one_occurrence_breaks_a_tie_in_a_large_dataset():
    counts = baselines.count(sequences_of([1], [2], [2], *[[3]] * 50_000), 4)
    sessions = sessions_of([4], [4], targets=[1, 2])
    scorer = baselines.method("item_knn")(counts)
    assert baselines.rank_targets(scorer, counts, sessions, ties="pessimistic").tolist() == [3, 2]


def test_sums_in_another_order_still_tie():
    def shuffled_sums(histories):
        return np.array([[0.0, 0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1, 0.5]])

    counts = baselines.count(sequences_of([1], [2], [3]), 3)
    assert baselines.target_places(shuffled_sums, counts, sessions_of([], targets=[1])).mean.tolist() == [1.5]


def test_a_target_inside_its_own_session_is_ranked_but_not_listed():
    counts = baselines.count(sequences_of([1, 2], [2, 3], [2, 4]), 4)
    session = sessions_of([1, 2], targets=[2])
    assert baselines.rank_targets(baselines.method("popularity")(counts), counts, session).tolist() == [1]
    assert baselines.top_k_lists(baselines.method("popularity")(counts), counts, session, 3).items.tolist() == [
        [3, 4, 0]
    ]


@pytest.mark.parametrize("name", METHODS)
def test_results_do_not_depend_on_batch_mates(name):
    train, queries, targets = random_data(3)
    counts = baselines.count(sequences_of(*train), 9)
    sessions = sessions_of(*queries, targets=targets)
    ranks = baselines.rank_targets(METHODS[name](counts), counts, sessions)
    lists = baselines.top_k_lists(METHODS[name](counts), counts, sessions, 5)
    for batch_size in (1, 3):
        np.testing.assert_array_equal(
            ranks, baselines.rank_targets(METHODS[name](counts), counts, sessions, batch_size=batch_size)
        )
        np.testing.assert_array_equal(
            lists.items, baselines.top_k_lists(METHODS[name](counts), counts, sessions, 5, batch_size=batch_size).items
        )


def test_arrays_on_a_device_give_what_arrays_on_the_host_give():
    train, queries, targets = random_data(4)
    host = (sequences_of(*train), sessions_of(*queries, targets=targets))
    device = jax.tree.map(jnp.asarray, host)
    counts = [baselines.count(sequences, 9) for sequences, _ in (host, device)]
    scorers = map(baselines.method("item_knn"), counts)
    ranks = list(map(baselines.rank_targets, scorers, counts, (host[1], device[1])))
    np.testing.assert_array_equal(*ranks)


def test_lists_longer_than_the_catalogue_end_in_padding():
    counts = baselines.count(sequences_of([2, 3], [3]), 3)
    lists = baselines.top_k_lists(baselines.method("popularity")(counts), counts, sessions_of([1]), 5)
    assert lists.items.tolist() == [[3, 2, 0, 0, 0]]
    assert lists.mask.tolist() == [[True, True, False, False, False]]


def test_no_sessions_give_no_ranks_and_no_lists():
    counts, none = baselines.count(sequences_of([1, 2]), 2), sessions_of()
    for method in METHODS.values():
        scorer = method(counts)
        assert scorer(baselines.Histories(none.items, none.mask)).shape == (0, 3)
        assert baselines.rank_targets(scorer, counts, none).shape == (0,)
        assert baselines.top_k_lists(scorer, counts, none, 4).items.shape == (0, 4)


@pytest.mark.parametrize("folds", [2, 3, 11])
@pytest.mark.parametrize("name", METHODS)
def test_held_out_lists_are_those_of_counts_without_the_fold(name, folds):
    train, queries, targets = random_data(1)
    train, sessions = train[:11], sessions_of(*queries, targets=targets)
    lists = baselines.held_out_lists(METHODS[name], sequences_of(*train), 9, sessions, 5, folds=folds)
    np.testing.assert_array_equal(lists.session_id, sessions.session_id)
    for n, query in enumerate(queries):
        others = [row for m, row in enumerate(train) if m % folds != n % folds]
        counts = baselines.count(sequences_of(*others), 9)
        alone = baselines.top_k_lists(METHODS[name](counts), counts, sessions_of(query), 5)
        assert lists.items[n].tolist() == alone.items[0].tolist()
        assert lists.mask[n].tolist() == alone.mask[0].tolist()


def test_held_out_lists_do_not_know_the_target_that_only_this_session_shows():
    train = [[1, 2], [1, 3], [1, 3], [1, 3], [4, 5]]
    sessions = sessions_of(*[row[:-1] for row in train], targets=[row[-1] for row in train])
    markov, counts = baselines.method("markov"), baselines.count(sequences_of(*train), 5)
    seen = baselines.top_k_lists(markov(counts), counts, sessions, 1)
    held_out = baselines.held_out_lists(markov, sequences_of(*train), 5, sessions, 1, folds=5)
    assert seen.items[:, 0].tolist() == [3, 3, 3, 3, 5]
    assert held_out.items[:, 0].tolist() == [3, 3, 3, 3, 1]


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        (sequences_of(), "number of items in the training sequences is 0"),
        (sequences_of([], []), "number of items in the training sequences is 0"),
        (sequences_of([1, 2], [4]), "items of the training sequences span 1..4; expected 1..3"),
        (sequences_of([1, 0]), "items of the training sequences span 0..1; expected 1..3"),
        (Sequences(items=np.array([1, 2, 3]), offsets=np.array([0, 2])), "offsets are from 0 to 2; .* to 3, the items"),
        (Sequences(items=np.array([1, 2, 3]), offsets=np.array([1, 3])), "offsets are from 1 to 3"),
        (Sequences(items=np.array([1, 2, 3]), offsets=np.array([0, 3, 2, 3])), "expected ascending ones"),
    ],
)
def test_training_sequences_that_cannot_be_counted_are_named(sequences, message):
    with pytest.raises(ValueError, match=message):
        baselines.count(sequences, 3)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("item", [-1, 4])
def test_queries_with_unknown_ids_are_refused_by_every_method(name, item):
    counts = baselines.count(sequences_of([1, 2], [3]), 3)
    items = np.array([[1, 2], [item, 0]])
    with pytest.raises(ValueError, match=r"items of the queries span .*; expected 1\.\.3"):
        METHODS[name](counts)(baselines.Histories(items, items != 0))


@pytest.mark.parametrize("target", [0, 4])
def test_targets_with_unknown_ids_are_refused(target):
    counts = baselines.count(sequences_of([1, 2], [3]), 3)
    with pytest.raises(ValueError, match=rf"targets span {target}\.\.{target}; expected 1\.\.3"):
        baselines.rank_targets(baselines.method("popularity")(counts), counts, sessions_of([1], targets=[target]))


def test_what_lies_under_the_mask_is_ignored():
    counts = baselines.count(sequences_of([1, 2, 3], [2, 3], [1, 3]), 3)
    clean, dirty = np.array([[1, 0, 0]]), np.array([[1, 2, 99]])
    histories = [baselines.Histories(items, clean > 0) for items in (clean, dirty)]
    for method in METHODS.values():
        np.testing.assert_array_equal(*map(method(counts), histories))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c, s: baselines.method("item_knn", recency=0.0)(c), "recency is 0.0"),
        (lambda c, s: baselines.method("item_knn", recency=1.1)(c), "recency is 1.1"),
        (lambda c, s: baselines.method("session_knn", neighbors=0)(c), "neighbors is 0"),
        (lambda c, s: baselines.rank_targets(baselines.method("markov")(c), c, s, batch_size=0), "batch_size is 0"),
        (lambda c, s: baselines.top_k_lists(baselines.method("markov")(c), c, s, 0), "k is 0"),
        (lambda c, s: baselines.rank_targets(lambda histories: np.full((1, 4), np.nan), c, s), "finite"),
        (lambda c, s: baselines.rank_targets(lambda histories: np.zeros((1, 3)), c, s), r"shape \(1, 4\)"),
        (lambda c, s: baselines.held_out_lists(METHODS["Markov"], sequences_of([1]), 3, s, 1, folds=2), "folds is 2"),
        (
            lambda c, s: baselines.held_out_lists(METHODS["Markov"], sequences_of([1], [2]), 3, s, 1),
            "number of sessions is 1; expected 2",
        ),
    ],
)
def test_options_out_of_range_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(baselines.count(sequences_of([1, 2], [3]), 3), sessions_of([1], targets=[2]))


RECALL_AT_10 = {
    "ML": {
        "popularity": 0.0110,
        "Markov": 0.0329,
        "co-occurrence": 0.0479,
        "item-kNN": 0.0381,
        "item-kNN, recency": 0.0414,
        "session-kNN": 0.0548,
    },
    "Games": {
        "popularity": 0.0027,
        "Markov": 0.0819,
        "co-occurrence": 0.0784,
        "item-kNN": 0.0684,
        "item-kNN, recency": 0.0729,
        "session-kNN": 0.0821,
    },
}
# recall@5, ndcg@5, ndcg@10
OTHER_METRICS = {
    "ML": {
        "popularity": (0.0065, 0.0036, 0.0049),
        "Markov": (0.0248, 0.0177, 0.0203),
        "co-occurrence": (0.0333, 0.0222, 0.0269),
        "item-kNN, recency": (0.0284, 0.0202, 0.0244),
        "session-kNN": (0.0365, 0.0231, 0.0289),
    },
    "Games": {
        "popularity": (0.0012, 0.0007, 0.0011),
        "Markov": (0.0714, 0.0553, 0.0586),
        "co-occurrence": (0.0560, 0.0379, 0.0452),
        "item-kNN, recency": (0.0545, 0.0394, 0.0454),
        "session-kNN": (0.0580, 0.0406, 0.0484),
    },
}


@pytest.mark.parametrize("name", ["ML", pytest.param("Games", marks=pytest.mark.slow)])
def test_figures_on_the_released_test_sessions(released_dataset, name):
    dataset = released_dataset(name)
    counts = baselines.count(dataset.train_sequences, dataset.num_items)
    for method, expected in RECALL_AT_10[name].items():
        fit = baselines.method("session_knn") if method == "session-kNN" else METHODS[method]
        places = baselines.target_places(fit(counts), counts, dataset.test)
        ranks, mean = places.ranks(ties="published"), places.mean
        assert np.mean(ranks <= 10) == pytest.approx(expected, abs=5e-4), method
        assert np.mean(places.ranks() <= 10) == np.mean(mean <= 10), "a half is rounded up"
        if method in OTHER_METRICS[name]:
            gain = 1 / np.log2(1 + mean)
            found = (np.mean(ranks <= 5), np.mean(gain * (ranks <= 5)), np.mean(gain * (ranks <= 10)))
            assert found == pytest.approx(OTHER_METRICS[name][method], abs=5e-4), method


def test_impossible_options_of_sequential_rules_are_refused():
    counts = baselines.count(sequences_of([1, 2]), 2)
    for options, message in (({"recency": 0.0}, "recency is 0.0"), ({"backward": -1.0}, "backward is -1.0")):
        with pytest.raises(ValueError, match=message):
            score(baselines.method("sequential_rules", **options), counts, [1])
    with pytest.raises(ValueError, match=r"decay is 1.0"):
        baselines.count(sequences_of([1, 2]), 2, decay=1.0)
