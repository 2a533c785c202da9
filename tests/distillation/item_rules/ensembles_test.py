"""Lists of several teachers made one."""

import numpy as np
import pytest

from alkd_jax.distillation import item_rules
from alkd_jax.types import Rankings


def lists(*rows: list[int]) -> Rankings:
    items = np.array([row + [0] * (3 - len(row)) for row in rows], np.int32)
    return Rankings(np.arange(len(rows), dtype=np.int32), items, items > 0)


def test_items_are_ranked_by_the_sum_of_reciprocal_ranks():
    one, two = lists([7, 8, 9], [1, 2]), lists([8, 9, 7], [])
    fused = item_rules.fuse_rankings([one, two], k=4, offset=1.0)
    # 7: 1/2 + 1/4; 8: 1/3 + 1/2; 9: 1/4 + 1/3.
    np.testing.assert_array_equal(fused.items, [[8, 7, 9, 0], [1, 2, 0, 0]])
    np.testing.assert_array_equal(fused.mask, fused.items > 0)
    far = item_rules.fuse_rankings([one, two, lists([9, 8, 7], [2, 1])], k=2)
    np.testing.assert_array_equal(far.items, [[8, 9], [1, 2]])


def test_ties_go_to_the_lower_item():
    np.testing.assert_array_equal(item_rules.fuse_rankings([lists([5, 4]), lists([4, 5])], k=2).items, [[4, 5]])


def test_different_sessions_are_refused():
    with pytest.raises(ValueError, match=r"rankings\[1\] has other sessions"):
        item_rules.fuse_rankings([lists([1]), lists([1], [2])])
    with pytest.raises(ValueError, match="num_teachers is 0"):
        item_rules.fuse_rankings([])
