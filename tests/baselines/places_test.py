"""Places of targets under every protocol, against loops over sessions and positions."""

import numpy as np
import pytest

from alkd_jax import baselines, evaluation
from alkd_jax.baselines import lists
from alkd_jax.types import HeldOutSequences, Sessions
from tests.helpers.counted_sessions import sequences_of

NUM_ITEMS, WINDOW = 14, 10
METHODS = {
    "popularity": baselines.method("popularity"),
    "Markov": baselines.method("markov"),
    "session-kNN": baselines.method("session_knn", neighbors=5),
    "sequential rules": baselines.method("sequential_rules", backward=0.4),
}


@pytest.fixture(scope="module")
def counts() -> baselines.Counts:
    rng = np.random.default_rng(0)
    return baselines.count(sequences_of(*(rng.integers(1, 13, rng.integers(2, 6)).tolist() for _ in range(25))), 14)


@pytest.fixture(scope="module")
def held_out() -> tuple[list[list[int]], HeldOutSequences]:
    """Sessions longer and shorter than the window, with repeated items and first targets of every kind."""
    rng = np.random.default_rng(1)
    rows = [rng.integers(1, NUM_ITEMS + 1, length).tolist() for length in (2, 16, 3, 12, 5, 11, 2)]
    first = np.array([1, 13, 2, 1, 3, 10, 1], np.int32)
    return rows, HeldOutSequences(sequences_of(*rows), first, np.arange(50, 57, dtype=np.int32))


def expected_places(method, counts, known: list[int], target: int, *, seen: str) -> tuple[int, int]:
    """Better and equal items of one query, by a loop over the catalogue."""
    window = known[-WINDOW:]
    scores = method(counts)(baselines.Histories.from_rows([window]))[0]
    broken = 1e-6 * counts.popularity / counts.popularity.max()
    scores = [round(score + bonus, 12) for score, bonus in zip(scores, broken, strict=True)]
    others = [v for v in range(1, NUM_ITEMS + 1) if v != target and (seen == "keep" or v not in known)]
    return sum(scores[v] > scores[target] for v in others), sum(scores[v] == scores[target] for v in others)


@pytest.mark.parametrize("targets", ["last", "first", "all"])
@pytest.mark.parametrize("seen", ["exclude", "keep"])
@pytest.mark.parametrize("name", METHODS)
def test_places_equal_a_loop_over_queries_and_items(counts, held_out, name, seen, targets):
    rows, sequences = held_out
    expected = []
    for row, first in zip(rows, sequences.first_target, strict=True):
        last = len(row) - 1
        positions = {"last": [last], "first": [first], "all": range(first, len(row))}[targets]
        expected += [expected_places(METHODS[name], counts, row[:p], row[p], seen=seen) for p in positions]
    for batch_size in (2, 512):
        places = baselines.target_places(
            METHODS[name](counts), counts, sequences, seen=seen, targets=targets, batch_size=batch_size
        )
        assert list(zip(places.better, places.equal, strict=True)) == expected
    ranks = baselines.rank_targets(
        METHODS[name](counts), counts, sequences, seen=seen, targets=targets, ties="pessimistic"
    )
    assert ranks.tolist() == [1 + better + equal for better, equal in expected]


def test_an_item_that_left_the_window_is_still_known(counts):
    row = [1, *[2] * WINDOW, 3]
    sequences = HeldOutSequences(sequences_of(row), np.array([1], np.int32), np.array([0], np.int32))
    window = np.array([row[1:-1]], np.int32)
    sessions = Sessions(window, window > 0, np.array([3], np.int32), np.array([0], np.int32))

    def one_is_best(histories):
        return np.repeat(np.eye(counts.num_items + 1)[None, 1] * 1e3, len(histories), axis=0)

    places = [baselines.target_places(one_is_best, counts, split).better[0] for split in (sequences, sessions)]
    assert places[1] == places[0] + 1
    kept = [
        baselines.target_places(one_is_best, counts, split, seen="keep").better[0] for split in (sequences, sessions)
    ]
    assert kept[0] == kept[1] >= places[1]


def test_the_queries_are_those_of_models(counts, held_out):
    queries = evaluation.make_queries(held_out[1], NUM_ITEMS, targets="all")
    places = baselines.target_places(
        baselines.method("popularity")(counts), counts, held_out[1], seen="keep", targets="all"
    )
    popularity = counts.popularity[1:]
    assert places.better.tolist() == [(popularity > counts.popularity[v]).sum() for v in queries.target]
    assert places.num_tied == np.count_nonzero(places.equal)


def test_the_best_items_equal_those_of_a_sort():
    rng = np.random.default_rng(3)
    for _ in range(300):
        scores = rng.integers(0, rng.integers(2, 40), rng.integers(2, 60)).astype(float)
        scores[rng.random(scores.size) < rng.random()] = -np.inf
        scores[0] = -np.inf
        k = int(rng.integers(1, scores.size))
        listed = sorted(np.flatnonzero(scores > -np.inf), key=lambda v: (-scores[v], v))[:k]
        assert lists.best_items(scores, k).tolist() == [*listed, *[0] * (k - len(listed))]


@pytest.mark.parametrize("seen", ["exclude", "keep"])
def test_listed_items_are_counted_as_in_a_sort_of_the_catalogue(counts, held_out, seen):
    rows, sequences = held_out
    expected = {k: np.zeros(NUM_ITEMS + 1, int) for k in (1, 4, 99)}
    for row, first in zip(rows, sequences.first_target, strict=True):
        for position in range(first, len(row)):
            known = row[:position]
            scores = baselines.markov(counts, baselines.Histories.from_rows([known[-WINDOW:]]))[0]
            scores = np.round(scores + 1e-6 * counts.popularity / counts.popularity.max(), 12)
            listed = [v for v in range(1, NUM_ITEMS + 1) if seen == "keep" or v not in known]
            listed.sort(key=lambda v: (-scores[v], v))
            for k in expected:
                expected[k][listed[:k]] += 1
    for batch_size in (3, 512):
        options = {"seen": seen, "targets": "all", "batch_size": batch_size}
        places = baselines.target_places(
            baselines.method("markov")(counts), counts, sequences, ks=(1, 4, 99), **options
        )
        assert {k: exposure.tolist() for k, exposure in places.exposure.items()} == {
            k: exposure.tolist() for k, exposure in expected.items()
        }
    assert baselines.target_places(baselines.method("markov")(counts), counts, sequences, **options).exposure == {}
    with pytest.raises(ValueError, match="k is 0; expected at least 1"):
        baselines.target_places(baselines.method("markov")(counts), counts, sequences, ks=(0,))


def test_options_of_no_protocol_are_named(counts, held_out):
    for options, message in (
        ({"seen": "drop"}, "seen is 'drop'; expected 'exclude' or 'keep'"),
        ({"targets": "second"}, "targets is 'second'; expected"),
        ({"ties": "first"}, "ties is 'first'; expected"),
    ):
        with pytest.raises(ValueError, match=message):
            baselines.rank_targets(baselines.method("popularity")(counts), counts, held_out[1], **options)
