"""A shuffled order that can be read at any place without being written down: no sort and no memory at any length."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt32

_ROUNDS = 6
"""Each adds to both halves of a place; four are enough for a pseudo-random permutation in theory."""


def permuted_index(key: jax.Array, place: Int[Array, "*places"], num: int) -> Int[Array, "*places"]:
    """The entries at these places of a random order of ``0 .. num − 1``.

    A place is written ``a · right + b``, and the halves are scrambled in turn: ``a ← a + f(b) mod left``,
    ``b ← b + f(a) mod right``, each f a hash of its own. Every turn can be undone, so no two places get the same entry;
    an entry past the end is scrambled again until it lies within.

    Args:
        key: consumed; decides the order.
        place: in ``0 .. num − 1``.
        num: how many there are, at least 1.

    Returns:
        Entries in ``0 .. num − 1``, int32.

    Reference:
        Black and Rogaway, Ciphers with arbitrary finite domains, CT-RSA 2002.
    """
    left = math.isqrt(num - 1) + 1
    right = -(-num // left)
    rounds = jax.random.bits(key, (_ROUNDS, 2), jnp.uint32)

    def scrambled(code: UInt32[Array, "*places"]) -> UInt32[Array, "*places"]:
        a, b = code // right, code % right
        for to_left, to_right in rounds:
            a = (a + _hashed(b, to_left) % left) % left
            b = (b + _hashed(a, to_right) % right) % right
        return a * right + b

    def outside(code: UInt32[Array, "*places"]) -> Array:
        return (code >= num).any()

    def again(code: UInt32[Array, "*places"]) -> UInt32[Array, "*places"]:
        return jnp.where(code >= num, scrambled(code), code)

    return jax.lax.while_loop(outside, again, scrambled(jnp.asarray(place, jnp.uint32))).astype(jnp.int32)


def _hashed(value: UInt32[Array, "*places"], salt: UInt32[Array, ""]) -> UInt32[Array, "*places"]:
    """A salted number with its bits mixed; every bit of the result hangs on every bit of the number."""
    mixed = (value * jnp.uint32(0x9E3779B9)) ^ salt
    mixed = (mixed ^ (mixed >> 16)) * jnp.uint32(0x7FEB352D)
    mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(0x846CA68B)
    return mixed ^ (mixed >> 16)
