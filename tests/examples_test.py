"""Batches: what is drawn, and that it depends on key and step alone."""

import jax
import numpy as np
import pytest

from alkd_jax.examples import batch_rows


def test_an_epoch_visits_every_example_once(key):
    rows = batch_rows(key, 0, 6, 5, 30)
    assert sorted(rows.ravel().tolist()) == list(range(30))


def test_a_batch_holds_no_example_twice(key):
    for row in np.asarray(batch_rows(key, 3, 40, 7, 24)):
        assert len(set(row.tolist())) == 7


@pytest.mark.parametrize("start", [0, 1, 2, 5, 6, 11])
@pytest.mark.parametrize("steps", [1, 2, 7, 13])
def test_any_stretch_of_steps_is_a_cut_of_the_whole(key, start, steps):
    whole = batch_rows(key, 0, 40, 4, 27)
    np.testing.assert_array_equal(batch_rows(key, start, steps, 4, 27), whole[start : start + steps])


def test_other_keys_draw_other_batches(key):
    assert (batch_rows(key, 0, 4, 5, 30) != batch_rows(jax.random.key(1), 0, 4, 5, 30)).any()
