"""Sequential rules against a plain count, shuffles that keep every item, and drift by hand."""

import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from alkd_jax.data.drift import drift, js_divergence
from alkd_jax.data.sequentiality import compare_rules, count_rules, shuffle_items
from alkd_jax.data.sessions import pack, unpack

sessions = st.lists(st.lists(st.integers(1, 4), max_size=9), max_size=12)


@given(sessions, st.integers(2, 4), st.integers(1, 4), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_rules_are_those_of_a_plain_count(rows, size, support, confidence):
    rules, antecedents = collections.Counter(), collections.Counter()
    for row in rows:
        for start in range(len(row) - size + 1):
            rules[tuple(row[start : start + size])] += 1
            antecedents[tuple(row[start : start + size - 1])] += 1
    expected = sum(n >= support and n / antecedents[rule[:-1]] >= confidence for rule, n in rules.items())
    assert count_rules(pack(rows), size, min_support=support, min_confidence=confidence) == expected


@given(sessions, st.booleans(), st.integers(0, 2**32))
def test_a_shuffle_keeps_the_items_of_each_session(rows, keep_last, seed):
    shuffled = unpack(shuffle_items(pack(rows), np.random.default_rng(seed), keep_last=keep_last))
    assert [sorted(row) for row in shuffled] == [sorted(row) for row in rows]
    if keep_last:
        assert [row[-1:] for row in shuffled] == [row[-1:] for row in rows]


def test_every_order_of_a_session_is_as_likely():
    rows = unpack(shuffle_items(pack([[1, 2, 3]] * 6000), np.random.default_rng(0)))
    counts = collections.Counter(map(tuple, rows))
    assert len(counts) == 6
    assert max(abs(count - 1000) for count in counts.values()) < 150


def test_ordered_sessions_lose_their_rules_and_random_ones_do_not():
    ordered = compare_rules(pack([[*range(start, start + 6)] for start in range(1, 40) for _ in range(8)]))
    assert ordered["2-grams"]["ordered"] == 43
    assert ordered["2-grams"]["ratio"] > 0.1
    assert ordered["3-grams"]["ratio"] < 0.2
    rng = np.random.default_rng(0)
    random = compare_rules(pack(rng.integers(1, 6, (200, 8)).tolist()))
    assert 0.8 < random["2-grams"]["ratio"] < 1.2
    assert compare_rules(pack([[1, 2]]))["3-grams"] == {"ordered": 0, "shuffled": 0.0, "ratio": None}


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=8))
def test_the_divergence_is_that_of_scipy(pairs):
    first, second = (np.array(column, np.float64) + (np.arange(len(pairs)) == 0) for column in zip(*pairs, strict=True))
    assert js_divergence(first, second) == pytest.approx(jensenshannon(first, second, base=2) ** 2, abs=1e-12)


def test_drift_by_hand():
    rows = [[1, 1, 2], [1, 3], [2, 1, 3], [1, 4, 1, 5]]
    time = np.arange(12)
    found = drift(pack(rows), (2, 1, 1), 5, first_target=np.array([1, 1, 1, 2]), time=time)
    # Training has 1 three times, 2 and 3 once; a tenth of three items is one, item 1.
    assert found["train"] == {"events": 5, "on_head": 0.6, "first_time": 0, "last_time": 4}
    assert found["validation"] | {"events": 2, "on_head": 0.5, "unseen": 0.0} == found["validation"]
    assert (found["validation"]["first_time"], found["validation"]["last_time"]) == (6, 7)
    assert found["test"] | {"events": 2, "on_head": 0.5, "unseen": 0.5, "first_time": 10} == found["test"]
    expected = js_divergence(np.array([3.0, 1, 1, 0, 0]), np.array([1.0, 0, 0, 0, 1]))
    assert found["test"]["js_divergence"] == pytest.approx(expected)
    assert 0 < found["test"]["js_divergence_at_random"] < 1
    assert drift(pack(rows), (4, 0, 0), 5)["test"] is None


def test_equal_distributions_diverge_as_at_random_and_others_more():
    rng = np.random.default_rng(0)
    near, far = rng.integers(1, 51, (400, 6)).tolist(), rng.integers(51, 101, (200, 6)).tolist()
    same = drift(pack(near), (200, 100, 100), 100)["test"]
    other = drift(pack([*near[:300], *far[:100]]), (200, 100, 100), 100)["test"]
    assert same["js_divergence"] == pytest.approx(same["js_divergence_at_random"], abs=0.02)
    assert other["js_divergence"] == 1.0
    assert other["js_divergence_at_random"] < 0.2
