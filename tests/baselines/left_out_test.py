"""Counts without one session are those of the other sessions, counted again."""

import numpy as np
import pytest

from alkd_jax import baselines
from alkd_jax.data.sessions import pack, take_sequences


@pytest.mark.parametrize("seed", range(3))
def test_pair_counts_are_those_of_the_other_sessions(seed):
    rng = np.random.default_rng(seed)
    # Few items, so that they repeat within sessions, also as the target.
    sequences = pack([rng.integers(1, 7, length).tolist() for length in rng.integers(2, 9, 30)])
    candidates = np.arange(1, 7)
    counts = baselines.count(sequences, 6, decay=0.6)
    for session in range(30):
        found = baselines.pair_counts_without(counts, session, candidates)
        others = np.delete(np.arange(30), session)
        expected = baselines.count(take_sequences(sequences, others), 6, decay=0.6)
        start, stop = sequences.offsets[session : session + 2]
        history = np.asarray(sequences.items)[start : stop - 1]
        at = np.ix_(history, candidates)
        np.testing.assert_allclose(found.followers, expected.followers.toarray()[at], atol=1e-12)
        np.testing.assert_allclose(found.preceders, expected.followers.toarray().T[at], atol=1e-12)
        np.testing.assert_allclose(found.transitions, expected.transitions.toarray()[at], atol=1e-12)
        np.testing.assert_allclose(found.co_occurrence, expected.co_occurrence.toarray()[at], atol=1e-12)
        np.testing.assert_array_equal(found.popularity, expected.popularity[candidates])
        np.testing.assert_array_equal(found.history_popularity, expected.popularity[history])


def test_sessions_and_items_that_do_not_exist_are_refused():
    counts = baselines.count(pack([[1, 2, 3]]), 3)
    with pytest.raises(ValueError, match="session is 1; expected from 0 to 0"):
        baselines.pair_counts_without(counts, 1, np.array([1]))
    with pytest.raises(ValueError, match="candidates"):
        baselines.pair_counts_without(counts, 0, np.array([4]))
