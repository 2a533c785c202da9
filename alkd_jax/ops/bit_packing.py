"""Whole numbers in few bits each, one after another, least significant bit first. This module loads without JAX.

A number at any place is read by itself, from the eight bytes in which it begins, so that arrays stay packed in memory.
"""

import numpy as np
from jaxtyping import Int, Int64, UInt8

from alkd_jax.checks import check_between, check_span

MAX_BITS = 57
"""A number that begins at any bit of a byte ends within the eight bytes that are read."""

_MARGIN = 7
_BLOCK = 2**16


def bits_for(largest: int) -> int:
    """Returns the number of bits of a number in ``0..largest``, at least 1."""
    return max(1, int(largest).bit_length())


def packed_size(num: int, bits: int) -> int:
    """Returns the number of bytes of :func:`pack` for ``num`` numbers: their bits, and a margin of seven bytes."""
    return -(-num * bits // 8) + _MARGIN


def pack(values: Int[np.ndarray, " E"], bits: int) -> UInt8[np.ndarray, " N"]:
    """Writes numbers in ``bits`` bits each.

    Args:
        values: ``[E]`` numbers in ``0..2^bits − 1``.
        bits: number of bits, in ``1..57``.

    Returns:
        :func:`packed_size` bytes, the last seven of them 0.

    Raises:
        ValueError: a value or the number of bits is out of range.

    Example:
        >>> pack(np.array([1, 2, 3]), 2)[:1]
        array([57], dtype=uint8)
    """
    check_between(1, MAX_BITS, bits=bits)
    check_span("values", values, 0, 2**bits - 1)
    places = np.arange(bits, dtype=np.uint64)
    blocks = []
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK].astype(np.uint64)
        is_set = (block[:, None] >> places) & np.uint64(1)
        blocks.append(np.packbits(is_set.astype(np.uint8), bitorder="little"))
    return np.concatenate([*blocks, np.zeros(_MARGIN, np.uint8)])


def read(packed: UInt8[np.ndarray, " N"], bits: int, places: Int[np.ndarray, " E"]) -> Int64[np.ndarray, " E"]:
    """Reads the numbers at some places of a packed array.

    Args:
        packed: what :func:`pack` returned.
        bits: the same number of bits.
        places: ``[E]`` places of the numbers, from 0; they are not checked.
    """
    first_bit = places.astype(np.int64) * bits
    eight_bytes = packed[(first_bit >> 3)[:, None] + np.arange(8)]
    word = np.ascontiguousarray(eight_bytes).view("<u8")[:, 0]
    shifted = word >> (first_bit & 7).astype(np.uint64)
    return (shifted & np.uint64(2**bits - 1)).astype(np.int64)


def unpack(packed: UInt8[np.ndarray, " N"], bits: int, num: int) -> Int64[np.ndarray, " E"]:
    """Reads the first ``num`` numbers of a packed array, the inverse of :func:`pack`."""
    starts = range(0, num, _BLOCK)
    blocks = [read(packed, bits, np.arange(start, min(num, start + _BLOCK))) for start in starts]
    return np.concatenate([np.zeros(0, np.int64), *blocks])
