"""Identifiers that are numbers sort as numbers, however long, and others as text."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from alkd_jax.data.id_order import natural_order


@settings(max_examples=50)
@given(st.lists(st.text("0189", min_size=1, max_size=25)))
def test_numbers_sort_as_python_sorts_them_and_equal_ones_keep_their_order(ids):
    assert natural_order(ids).tolist() == sorted(range(len(ids)), key=lambda at: int(ids[at]))


@settings(max_examples=50)
@given(st.lists(st.text("0129a٣²-", max_size=3), min_size=1))
def test_one_identifier_that_is_no_number_makes_all_sort_as_text(ids):
    ids = [*ids, "٣"]
    assert natural_order(ids).tolist() == sorted(range(len(ids)), key=ids.__getitem__)


def test_digits_beyond_what_python_parses_are_a_number():
    assert natural_order(["1" * 5_000, "2" * 4_999, "7", "07"]).tolist() == [2, 3, 1, 0]


def test_the_order_of_the_released_catalogues_is_numpys(released_dataset):
    ids = released_dataset("ML").item_ids[1:]
    assert (natural_order(ids) == np.argsort(np.array(ids, np.int64), kind="stable")).all()
    ids = released_dataset("Games").item_ids[1:]
    assert (natural_order(ids) == np.argsort(np.array(ids), kind="stable")).all()
