"""The k largest of very many numbers by counting, without a sort; devices exchange only counts and the k largest."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

Axes = tuple[str, ...]
"""Mesh axes that the numbers are sharded along, under ``shard_map``; empty where one device holds all numbers."""


def ordered_bits(number: Float[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """Maps float32 numbers, −∞ to ∞, to unsigned integers in the same order; −0 is below 0."""
    bits = jax.lax.bitcast_convert_type(number, jnp.uint32)
    return jnp.where(bits >> 31, ~bits, bits | jnp.uint32(1 << 31))


def number_of_bits(bits: UInt32[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The inverse of :func:`ordered_bits`."""
    return jax.lax.bitcast_convert_type(jnp.where(bits >> 31, bits ^ jnp.uint32(1 << 31), ~bits), jnp.float32)


def kth_largest(bits: UInt32[Array, " N"], k: int, *, axes: Axes = ()) -> UInt32[Array, ""]:
    """The k-th largest number by bisection: each of 32 passes counts the numbers above a candidate.

    Args:
        bits: the numbers of this device.
        k: from 1 to the number of all numbers.
        axes: mesh axes that the numbers are sharded along.
    """

    def set_digit(digit: Int[Array, ""], prefix: UInt32[Array, ""]) -> UInt32[Array, ""]:
        candidate = prefix | (jnp.uint32(1 << 31) >> digit.astype(jnp.uint32))
        return jnp.where(sum_over_devices(jnp.sum(bits >= candidate, dtype=jnp.int32), axes) >= k, candidate, prefix)

    return jax.lax.fori_loop(0, 32, set_digit, jnp.uint32(0))


def is_among_largest(bits: UInt32[Array, " N"], k: int, *, axes: Axes = ()) -> Bool[Array, " N"]:
    """Whether each number of this device is among the k largest of all; among equal ones the first count.

    Args:
        bits: the numbers of this device; the numbers of all devices follow each other in the order of the devices.
        k: from 1 to the number of all numbers.
        axes: mesh axes that the numbers are sharded along.
    """
    least = kth_largest(bits, k, axes=axes)
    is_larger, is_tied = bits > least, bits == least
    num_tied = k - sum_over_devices(jnp.sum(is_larger, dtype=jnp.int32), axes)
    place = jnp.cumsum(is_tied, dtype=jnp.int32) + sum_over_earlier_devices(jnp.sum(is_tied, dtype=jnp.int32), axes)
    return is_larger | (is_tied & (place <= num_tied))


def k_largest(bits: UInt32[Array, " N"], k: int, *, axes: Axes = ()) -> tuple[UInt32[Array, " K"], Int[Array, " K"]]:
    """The k largest numbers in descending order and their indices; ties to the lower index.

    Args:
        bits: the numbers of this device; the numbers of all devices follow each other in the order of the devices.
        k: from 1 to the number of all numbers.
        axes: mesh axes that the numbers are sharded along.

    Returns:
        ``(bits [k], index [k])``, the same on every device; indices are among the numbers of all devices.
    """
    size = bits.shape[0]
    is_chosen = is_among_largest(bits, k, axes=axes)
    num_local = min(k, size)
    place = jnp.nonzero(is_chosen, size=num_local, fill_value=size)[0].astype(jnp.int32)
    num_chosen = jnp.sum(is_chosen, dtype=jnp.int32)
    # Each device writes its numbers into its own slots of a list of zeros; the sum of the lists is the result.
    slot = sum_over_earlier_devices(num_chosen, axes) + jnp.arange(num_local, dtype=jnp.int32)
    slot = jnp.where(place < size, slot, k)
    value = jnp.zeros(k, jnp.uint32).at[slot].set(bits[jnp.minimum(place, size - 1)], mode="drop")
    first = (jax.lax.axis_index(axes) if axes else 0) * size
    index = jnp.zeros(k, jnp.int32).at[slot].set(first + place, mode="drop")
    value, index = sum_over_devices(value, axes), sum_over_devices(index, axes)
    order = jnp.argsort(~value, stable=True)
    return value[order], index[order]


def sum_over_devices(number: Array, axes: Axes) -> Array:
    """The sum of a number over all devices."""
    return jax.lax.psum(number, axes) if axes else number


def sum_over_earlier_devices(number: Int[Array, ""], axes: Axes) -> Int[Array, ""]:
    """The sum of a number over the devices before this one."""
    if not axes:
        return jnp.zeros_like(number)
    all_numbers = jax.lax.all_gather(number, axes)
    return jnp.sum(all_numbers * (jnp.arange(len(all_numbers)) < jax.lax.axis_index(axes)), dtype=jnp.int32)
