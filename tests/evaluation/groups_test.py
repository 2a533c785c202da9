"""Groups of queries by hand, and their sizes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alkd_jax.evaluation import groups, metrics

COUNTS = np.array([7, 30, 20, 10, 10, 10, 5, 5, 0])
"""Of 90 interactions, items more popular than item 2 have 30, than items 3 to 5 50, than items 6 and 7 80."""


def test_popularity_by_hand():
    found = groups.by_popularity(np.arange(1, 9), COUNTS)
    assert [found.names[number] for number in found.number] == ["head"] + ["mid"] * 4 + ["tail"] * 2 + ["unseen"]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_popularity_follows_its_definition(counts):
    found = groups.by_popularity(np.arange(1, len(counts) + 1), np.array([0, *counts]))
    for count, number in zip(counts, found.number, strict=True):
        above = 3 * sum(other for other in counts if other > count)
        total = sum(counts)
        name = "unseen" if not count else "head" if above < total else "mid" if above < 2 * total else "tail"
        assert found.names[number] == name


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(2, 30)), min_size=9, max_size=9))
def test_groups_add_up_to_all_queries(rows):
    ranks, length = (np.array(column) for column in zip(*rows, strict=True))
    table = groups.metrics_of_groups(ranks, groups.by_session_length(length))
    assert list(table) == ["length ≤ 5", "length 6–10", "length 11–20", "length ≥ 21"]
    assert sum(row["queries"] for row in table.values()) == len(rows)
    weighted = sum(row["queries"] * row.get("mrr@10", 0.0) for row in table.values())
    assert weighted / len(rows) == pytest.approx(metrics.from_ranks(ranks)["mrr@10"])
    assert all(len(row) == 1 for row in table.values() if not row["queries"])


def test_positions_by_hand():
    found = groups.by_position(np.array([0, 1, 2, 4, 5, 90]))
    assert [found.names[number] for number in found.number] == [
        "position ≤ 0",
        "position 1",
        "position 2–4",
        "position 2–4",
        "position 5–9",
        "position ≥ 10",
    ]


@pytest.mark.usefixtures("unchecked_types")
def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"target span 9\.\.9; expected 1\.\.8"):
        groups.by_popularity(np.array([9]), COUNTS)
    with pytest.raises(ValueError, match=r"counts\[8\] is -1"):
        groups.by_popularity(np.array([1]), COUNTS - (np.arange(9) == 8))
    for bounds in ((), (3, 3)):
        with pytest.raises(ValueError, match="upper_bounds are"):
            groups.by_value(np.array([1]), bounds, name="length")
    with pytest.raises(ValueError, match=r"ranks has shape \(2,\); expected \(1,\)"):
        groups.metrics_of_groups(np.array([1, 2]), groups.by_position(np.array([0])))
