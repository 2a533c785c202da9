"""The largest of very many numbers, by counting: no sort, and between devices only counts and winners travel."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

Axes = tuple[str, ...]
"""Mesh axes that the numbers are cut along, under ``shard_map``; none where one device holds them all."""


def ordered_bits(number: Float[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """Unsigned integers in the order of float32 numbers, −∞ to ∞; −0 stands below 0."""
    bits = jax.lax.bitcast_convert_type(number, jnp.uint32)
    return jnp.where(bits >> 31, ~bits, bits | jnp.uint32(1 << 31))


def as_number(bits: UInt32[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Undoes :func:`ordered_bits`."""
    return jax.lax.bitcast_convert_type(jnp.where(bits >> 31, bits ^ jnp.uint32(1 << 31), ~bits), jnp.float32)


def kth_largest(bits: UInt32[Array, " N"], k: int, *, axes: Axes = ()) -> UInt32[Array, ""]:
    """The k-th largest by bisection: 32 passes, each a count.

    Args:
        bits: this device's share.
        k: at least 1, at most the number of all.
        axes: that the others are cut along.
    """

    def halve(digit: Int[Array, ""], found: UInt32[Array, ""]) -> UInt32[Array, ""]:
        candidate = found | (jnp.uint32(1 << 31) >> digit.astype(jnp.uint32))
        return jnp.where(total(jnp.sum(bits >= candidate, dtype=jnp.int32), axes) >= k, candidate, found)

    return jax.lax.fori_loop(0, 32, halve, jnp.uint32(0))


def among_largest(bits: UInt32[Array, " N"], k: int, *, axes: Axes = ()) -> Bool[Array, " N"]:
    """Which of this device's numbers are among the k largest of all; of equal ones the first are taken.

    Args:
        bits: this device's share; devices stand in the order of their numbers.
        k: at least 1, at most the number of all.
        axes: that the others are cut along.
    """
    least = kth_largest(bits, k, axes=axes)
    is_larger, is_tied = bits > least, bits == least
    wanted = k - total(jnp.sum(is_larger, dtype=jnp.int32), axes)
    place = jnp.cumsum(is_tied, dtype=jnp.int32) + before(jnp.sum(is_tied, dtype=jnp.int32), axes)
    return is_larger | (is_tied & (place <= wanted))


def k_largest(bits: UInt32[Array, " N"], k: int, *, axes: Axes = ()) -> tuple[UInt32[Array, " K"], Int[Array, " K"]]:
    """The k largest in descending order, and where they stand; of equal ones the first come first.

    Args:
        bits: this device's share; devices stand in the order of their numbers.
        k: at least 1, at most the number of all.
        axes: that the others are cut along.

    Returns:
        On every device all ``[k]`` of them, and their places among the numbers of all.
    """
    size = bits.shape[0]
    chosen = among_largest(bits, k, axes=axes)
    here = min(k, size)
    place = jnp.nonzero(chosen, size=here, fill_value=size)[0].astype(jnp.int32)
    num_chosen = jnp.sum(chosen, dtype=jnp.int32)
    # What this device has chosen goes to its own stretch of the list, and lists add up.
    stretch = before(num_chosen, axes) + jnp.arange(here, dtype=jnp.int32)
    stretch = jnp.where(place < size, stretch, k)
    value = jnp.zeros(k, jnp.uint32).at[stretch].set(bits[jnp.minimum(place, size - 1)], mode="drop")
    first = (jax.lax.axis_index(axes) if axes else 0) * size
    index = jnp.zeros(k, jnp.int32).at[stretch].set(first + place, mode="drop")
    value, index = total(value, axes), total(index, axes)
    order = jnp.argsort(~value, stable=True)
    return value[order], index[order]


def total(number: Array, axes: Axes) -> Array:
    """The sum over all devices."""
    return jax.lax.psum(number, axes) if axes else number


def before(number: Int[Array, ""], axes: Axes) -> Int[Array, ""]:
    """The sum over the devices that stand before this one."""
    if not axes:
        return jnp.zeros_like(number)
    every = jax.lax.all_gather(number, axes)
    return jnp.sum(every * (jnp.arange(len(every)) < jax.lax.axis_index(axes)), dtype=jnp.int32)
