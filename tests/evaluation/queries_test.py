"""Queries against a plain loop over sessions and positions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alkd_jax.data.sessions import leave_one_out, pack
from alkd_jax.evaluation.queries import TARGETS, make_queries
from alkd_jax.types import HeldOutSequences, Sequences, Sessions

NUM_ITEMS = 6

session_lists = st.lists(
    st.lists(st.integers(1, NUM_ITEMS), min_size=2, max_size=23).flatmap(
        lambda items: st.tuples(st.just(items), st.integers(1, len(items) - 1))
    ),
    min_size=1,
    max_size=6,
)


def held_out(lists):
    first = np.array([first for _, first in lists], np.int32)
    return HeldOutSequences(pack([items for items, _ in lists]), first, np.arange(len(lists), dtype=np.int32) + 40)


def plain_queries(lists, targets):
    """Every query as (known items, target, session id, position), by definition."""
    for session_id, (items, first) in enumerate(lists):
        last = len(items) - 1
        for t in {"last": [last], "first": [first], "all": range(first, last + 1)}[targets]:
            yield items[:t], items[t], session_id + 40, t - 1


@settings(max_examples=60)
@given(lists=session_lists, targets=st.sampled_from(list(TARGETS)), length=st.integers(1, 4), size=st.integers(1, 9))
def test_queries_equal_a_loop_over_sessions_and_positions(lists, targets, length, size):
    expected = list(plain_queries(lists, targets))
    queries = make_queries(held_out(lists), NUM_ITEMS, targets=targets, max_length=length)
    assert len(queries) == len(expected)
    assert list(zip(queries.target, queries.session_id, queries.position, strict=True)) == [e[1:] for e in expected]
    assert queries.session_length.tolist() == [len(lists[e[2] - 40][0]) for e in expected]
    seen = []
    for batch in queries.batches(size):
        assert len(batch.rows) <= size
        items = batch.sessions.items
        assert items.shape == (len(batch.rows), length)
        assert (batch.sessions.mask == (items > 0)).all()
        for place, row in enumerate(batch.rows[: batch.valid]):
            known, target = expected[row][:2]
            recent = known[-length:]
            assert items[place].tolist() == recent + [0] * (length - len(recent))
            assert batch.history[place][: len(known)].tolist() == known
            assert not batch.history[place][len(known) :].any()
            assert batch.sessions.target[place] == target
        seen += batch.rows[: batch.valid].tolist()
    assert sorted(seen) == list(range(len(expected)))


def test_sessions_are_complete_sessions_of_their_window_and_target():
    sequences = pack([[1, 2, 3, 4, 5], [6, 6]])
    sessions = leave_one_out(sequences, max_length=3)
    queries = make_queries(sessions, NUM_ITEMS, targets="all")
    assert queries.target.tolist() == [3, 4, 5, 6]
    assert queries.position.tolist() == [0, 1, 2, 0]
    assert queries.sessions().items.tolist() == [[2, 0, 0], [2, 3, 0], [2, 3, 4], [6, 0, 0]]
    assert make_queries(sessions, NUM_ITEMS, targets="first").target.tolist() == [3, 6]
    shorter = make_queries(sessions, NUM_ITEMS, max_length=2)
    assert shorter.sessions().items.tolist() == [[3, 4], [6, 0]]
    assert shorter.history(slice(None), 3).tolist() == [[2, 3, 4], [6, 0, 0]]


def test_the_last_target_of_a_session_keeps_its_window_as_it_is():
    """Also where padding is between the items, or there is no item."""
    items = np.array([[5, 0, 2], [0, 0, 0]], np.int32)
    sessions = Sessions(items, items > 0, np.array([1, 3], np.int32), np.array([8, 9], np.int32))
    queries = make_queries(sessions, NUM_ITEMS)
    (batch,) = queries.batches(5)
    for found in (batch.sessions.items, batch.history, queries.sessions().items):
        np.testing.assert_array_equal(found, items)
    assert queries.target.tolist() == [1, 3]
    assert queries.position.tolist() == [1, -1]
    with pytest.raises(ValueError, match="session 1 has no item before its target; expected at least one"):
        make_queries(sessions, NUM_ITEMS, targets="all")


def test_one_long_session_widens_only_its_own_history():
    lists = [([1, 2], 1)] * 24 + [([1] * 500, 499)]
    batches = list(make_queries(held_out(lists), NUM_ITEMS, max_length=3).batches(8))
    assert [batch.history.shape for batch in batches] == [(8, 3)] * 3 + [(1, 768)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": "every"}, "targets is 'every'; expected 'last' or 'first' or 'all'"),
        ({"max_length": 0}, "max_length is 0"),
        ({"items": np.array([1, 2, 7, 1])}, r"sessions items span 1\.\.7; expected 1\.\.6"),
        ({"offsets": np.array([0, 1, 4])}, r"session lengths\[0\] is 1; expected at least 2"),
        ({"offsets": np.array([0, 2, 3])}, "offsets run from 0 to 3; expected from 0 to 4"),
        ({"first": np.array([1, 2])}, r"first_target\[1\] is 2; expected at least 1 and less than the number of items"),
        ({"first": np.array([0, 1])}, r"first_target\[0\] is 0"),
        ({"first": np.array([1])}, "first_target has shape"),
        ({"first": np.array([1.0, 1.0])}, "first_target are numbers of type float64"),
        ({"session_id": np.array([1])}, "session_id has shape"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_sequences_that_do_not_fit_are_refused(change, message):
    arrays = {"items": np.array([1, 2, 3, 1]), "offsets": np.array([0, 2, 4]), "first": np.array([1, 1])}
    arrays |= {"session_id": np.array([0, 1])} | {key: change[key] for key in change if key in [*arrays, "session_id"]}
    sequences = Sequences(arrays["items"], arrays["offsets"])
    options = {key: change[key] for key in change if key in ("targets", "max_length")}
    with pytest.raises(ValueError, match=message):
        make_queries(HeldOutSequences(sequences, arrays["first"], arrays["session_id"]), NUM_ITEMS, **options)
