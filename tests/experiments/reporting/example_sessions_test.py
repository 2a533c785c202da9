"""Example sessions represent all: every outcome has its share, at random."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.reporting.example_sessions import representative_rows


def test_groups_have_their_shares():
    group = np.repeat([0, 1, 2], [78, 378, 44])
    rows = representative_rows(group, 10, seed=0)
    assert np.bincount(group[rows]).tolist() == [2, 7, 1]
    assert not np.array_equal(rows, representative_rows(group, 10, seed=1))


@given(st.lists(st.integers(0, 2), max_size=40), st.integers(0, 12), st.integers(0, 5))
def test_rows_are_distinct_and_each_group_is_within_one_of_its_share(group, size, seed):
    group = np.array(group, int)
    rows = representative_rows(group, size, seed=seed)
    size = min(size, len(group))
    assert len(rows) == size
    assert (np.diff(rows) > 0).all()
    for name in range(3):
        share = size * np.mean(group == name) if len(group) else 0
        assert abs(np.sum(group[rows] == name) - share) < 1 or share == pytest.approx(np.sum(group[rows] == name))
