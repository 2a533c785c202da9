"""Sparse places are those of dense scores."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from alkd_jax import baselines
from alkd_jax.types import Sequences, Sessions

NUM_ITEMS = 25


@pytest.mark.parametrize("density", [0.0, 0.05, 0.4])
def test_sparse_places_are_those_of_the_whole_catalogue(density):
    rng = np.random.default_rng(0)
    offsets = np.arange(0, 121, 4, dtype=np.int32)
    counts = baselines.count(Sequences(rng.integers(1, 16, 120).astype(np.int32), offsets), NUM_ITEMS)
    rules = np.where(rng.random((26, 26)) < density, rng.integers(0, 4, (26, 26)) / 2.0, 0.0)
    rules[0] = rules[:, 0] = 0
    mask = np.arange(5) < rng.integers(1, 6, (60, 1))
    items = np.where(mask, rng.integers(1, NUM_ITEMS + 1, (60, 5)), 0).astype(np.int32)
    target = rng.integers(1, NUM_ITEMS + 1, 60).astype(np.int32)
    sessions = Sessions(items=items, mask=mask, target=target, session_id=np.arange(60, dtype=np.int32))
    scores = baselines.rule_scores(counts, csr_array(rules), sessions, recency=0.5)

    def scorer(histories):
        weights = 0.5 ** baselines.steps_to_end(histories.mask)
        return baselines.query_matrix(counts, histories, weights).toarray() @ rules

    found = baselines.sparse_places(scores, counts, sessions)
    expected = baselines.target_places(scorer, counts, sessions)
    np.testing.assert_array_equal(found.better, expected.better)
    np.testing.assert_array_equal(found.equal, expected.equal)
