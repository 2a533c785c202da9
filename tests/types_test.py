"""Rows of sessions and rankings by number and by id, and rankings from a top-k search."""

import numpy as np
import pytest

from alkd_jax.types import Rankings, Sessions


def sessions(ids):
    num = len(ids)
    items = np.arange(1, num * 2 + 1, dtype=np.int32).reshape(num, 2)
    return Sessions(items, items > 0, np.arange(num, dtype=np.int32), np.array(ids, np.int32))


def test_rows_of_ids_come_in_the_order_of_the_ids():
    assert sessions([30, 10, 20]).rows_of(np.array([20, 30, 20])).tolist() == [2, 0, 2]
    assert sessions([30, 10]).rows_of(np.zeros(0, np.int32)).size == 0


@pytest.mark.parametrize("ids", [[30, 10, 20], []])
def test_an_unknown_id_is_named(ids):
    with pytest.raises(ValueError, match=f"2 ids, the first 25, of no session .* its {len(ids)} sessions"):
        sessions(ids).rows_of(np.array([*ids, 25, 99], np.int32))


@pytest.mark.parametrize("rows", [np.array([2, 0]), np.array([True, False, True]), slice(1, None)])
def test_take_indexes_every_array(rows):
    all_sessions = sessions([30, 10, 20])
    taken = all_sessions.take(rows)
    for name in ("items", "mask", "target", "session_id"):
        np.testing.assert_array_equal(getattr(taken, name), getattr(all_sessions, name)[rows])


def test_the_fill_of_a_top_k_search_becomes_padding():
    rankings = Rankings.from_top_k(np.array([7, 8]), np.array([[5, 2, -1], [4, 0, 0]]))
    assert rankings.items.tolist() == [[5, 2, 0], [4, 0, 0]]
    assert rankings.mask.tolist() == [[True, True, False], [True, False, False]]
    assert rankings.take(np.array([1])).session_id.tolist() == [8]
