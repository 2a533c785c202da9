"""Methods by name, and the times that they get."""

import functools

import numpy as np
import pytest

import alkd_jax as alkd
from alkd_jax import baselines, evaluation
from alkd_jax.data.sessions import leave_one_out, most_recent
from alkd_jax.types import Sequences
from tests.helpers.counted_sessions import sequences_of, sessions_of


def test_methods_and_options_that_do_not_exist_are_named_with_those_that_do():
    with pytest.raises(ValueError, match=r"method is 'knn'; expected 'popularity' or .*'sequential_rules'"):
        baselines.fit("knn", sequences_of([1, 2]), 2)
    with pytest.raises(ValueError, match="option of the method item_knn is 'k'; expected recency"):
        baselines.fit("item_knn", sequences_of([1, 2]), 2, k=3)
    with pytest.raises(ValueError, match="option of the method markov is 'k'; expected no option"):
        baselines.method("markov", k=3)
    with pytest.raises(ValueError, match="training sequences time has shape"):
        baselines.fit("markov", Sequences(np.array([1, 2]), np.array([0, 2]), np.array([5])), 2)


def test_folds_and_lists_get_the_times_of_the_last_known_items():
    time = np.arange(10, 80, 10)
    sequences, asked = Sequences(np.array([1, 2, 3, 1, 2, 3, 1]), np.array([0, 3, 5, 7]), time), []

    def method(counts):
        assert np.isin(counts.sequences.time, time).all()
        assert len(counts.sequences.time) == len(counts.sequences.items)

        def scorer(histories):
            asked.extend(histories.time.tolist())
            return np.zeros((len(histories), 4))

        return scorer

    baselines.held_out_lists(method, sequences, 3, sessions_of([1, 2], [1], [3]), 2, folds=3)
    assert sorted(asked) == [20, 40, 60]


def test_a_query_has_the_time_of_its_last_known_item():
    held_out = alkd.HeldOutSequences(
        Sequences(np.array([1, 2, 3, 1, 2], np.int32), np.array([0, 3, 5]), np.array([5, 6, 7, 8, 9])),
        np.array([1, 1], np.int32),
        np.array([0, 1], np.int32),
    )
    asked = {}

    def scorer(histories, *, targets):
        asked.setdefault(targets, []).extend(histories.time.tolist())
        return np.zeros((len(histories), 4))

    counts = baselines.count(held_out.sequences, 3)
    for targets in ("last", "first", "all"):
        baselines.target_places(functools.partial(scorer, targets=targets), counts, held_out, targets=targets)
    assert asked == {"last": [6, 8], "first": [5, 8], "all": [5, 6, 8]}


def test_the_most_recent_items_are_the_inputs_of_a_model_with_their_times():
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, 9, length).tolist() for length in (2, 9, 4, 5, 3)]
    sequences = sequences_of(*rows)
    sequences = sequences.replace(time=np.arange(len(sequences.items)))
    held_out = alkd.HeldOutSequences(sequences, np.array([1, 4, 1, 2, 1], np.int32), np.arange(5, dtype=np.int32))
    queries = evaluation.make_queries(most_recent(held_out, 3), 8, max_length=3)
    expected = leave_one_out(sequences, max_length=3)
    found = queries.sessions()
    for name in ("items", "mask", "target", "session_id"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_array_equal(queries.last_time(slice(None)), sequences.offsets[1:] - 2)


def timed_train():
    rng = np.random.default_rng(2)
    rows = [rng.integers(1, 9, rng.integers(1, 7)).tolist() for _ in range(25)]
    return sequences_of(*rows, [], [3], time=rng.integers(0, 10**9, 1 + sum(map(len, rows))).tolist())


@pytest.mark.parametrize("name", baselines.METHODS)
def test_every_method_reads_whole_histories_alone_or_together(name):
    scorer = baselines.fit(name, timed_train(), 9)
    rng = np.random.default_rng(3)
    rows = [[], *(rng.integers(1, 10, length).tolist() for length in (1, 3, 40, 12, 2))]
    together = scorer(baselines.Histories.from_rows(rows))
    assert together.shape == (6, 10)
    assert together.dtype == np.float64
    assert not together[:, 0].any()
    for row, scores in zip(rows, together, strict=True):
        np.testing.assert_allclose(scorer(baselines.Histories.from_rows([row]))[0], scores, rtol=1e-9, atol=1e-14)
    assert scorer(baselines.Histories.from_rows([])).shape == (0, 10)
    dirty = np.array([[2, 5, 99, -3]])
    clean = baselines.Histories.from_rows([[2, 5]])
    found = scorer(baselines.Histories(dirty, np.array([[True, True, False, False]])))
    np.testing.assert_allclose(found, scorer(clean), rtol=1e-12)


@pytest.mark.parametrize("name", baselines.METHODS)
def test_every_method_refuses_unknown_items_and_gives_held_out_lists(name):
    scorer, sequences = baselines.fit(name, timed_train(), 9), timed_train()
    for item in (10, -1):
        histories = baselines.Histories(np.array([[1, item]]), np.ones((1, 2), bool))
        with pytest.raises(ValueError, match=r"items of the queries span .*; expected 1\.\.9"):
            scorer(histories)
    sessions = sessions_of(*[[1, 2]] * len(sequences))
    assert baselines.held_out_lists(baselines.method(name), sequences, 9, sessions, 3, folds=2).items.shape == (27, 3)


def test_a_method_of_ones_own_is_found_and_its_options_are_passed():
    scorer = baselines.fit("tests.helpers.counted_sessions:constant", timed_train(), 9, value=2.5)
    assert scorer(baselines.Histories.from_rows([[1]])).tolist() == [[2.5] * 10]
    with pytest.raises(ValueError, match="value is 'x'; expected a number"):
        baselines.method("tests.helpers.counted_sessions:constant", value="x")
