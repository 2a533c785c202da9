"""Packed numbers come back, as a whole and one by one, and take the bits that they should."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from alkd_jax.ops import bit_packing


@given(bits=st.integers(1, 57), num=st.integers(0, 300), seed=st.integers(0, 99))
def test_numbers_come_back_from_any_place(bits, num, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 2**bits, num, dtype=np.int64)
    packed = bit_packing.pack(values, bits)
    assert packed.nbytes == bit_packing.packed_size(num, bits) == (num * bits + 7) // 8 + 7
    np.testing.assert_array_equal(bit_packing.unpack(packed, bits, num), values)
    places = rng.permutation(num)[:7]
    np.testing.assert_array_equal(bit_packing.read(packed, bits, places), values[places])


def test_blocks_follow_each_other_without_a_gap():
    values = np.arange(2**16 + 9) % 31
    np.testing.assert_array_equal(bit_packing.unpack(bit_packing.pack(values, 5), 5, len(values)), values)


@pytest.mark.parametrize(("values", "bits", "message"), [([4], 2, "values span 4..4"), ([0], 58, "bits is 58")])
def test_what_does_not_fit_is_refused(values, bits, message):
    with pytest.raises(ValueError, match=message):
        bit_packing.pack(np.array(values), bits)


@pytest.mark.parametrize(("largest", "bits"), [(0, 1), (1, 1), (2, 2), (255, 8), (256, 9)])
def test_the_bits_of_a_largest_number(largest, bits):
    assert bit_packing.bits_for(largest) == bits
