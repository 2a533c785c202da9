"""A pseudo-random permutation that is evaluated at single indices: it needs no sort and no memory at any length."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt32

_ROUNDS = 6
"""Rounds of the Feistel network; four are enough for a pseudo-random permutation in theory."""


def permuted_index(key: jax.Array, index: Int[Array, "*indices"], num: int) -> Int[Array, "*indices"]:
    """Evaluates a random permutation of ``0 .. num − 1`` at some indices.

    An index is written ``a · right + b``, and a Feistel network scrambles the two halves in turn:
    ``a ← a + f(b) mod left``, ``b ← b + f(a) mod right``, each f a hash with its own salt. Every round can be undone,
    so different indices have different images. An image of ``num`` or more is scrambled again until it is in range
    (cycle walking).

    Args:
        key: a JAX key that decides the permutation; consumed.
        index: indices in ``0 .. num − 1``, of any shape.
        num: length of the permutation, at least 1.

    Returns:
        The images in ``0 .. num − 1``, int32.

    Reference:
        Black and Rogaway, Ciphers with arbitrary finite domains, CT-RSA 2002.
    """
    left = math.isqrt(num - 1) + 1
    right = -(-num // left)
    salts = jax.random.bits(key, (_ROUNDS, 2), jnp.uint32)

    def scramble(code: UInt32[Array, "*indices"]) -> UInt32[Array, "*indices"]:
        a, b = code // right, code % right
        for left_salt, right_salt in salts:
            a = (a + _salted_hash(b, left_salt) % left) % left
            b = (b + _salted_hash(a, right_salt) % right) % right
        return a * right + b

    def any_out_of_range(code: UInt32[Array, "*indices"]) -> Array:
        return (code >= num).any()

    def scramble_out_of_range(code: UInt32[Array, "*indices"]) -> UInt32[Array, "*indices"]:
        return jnp.where(code >= num, scramble(code), code)

    start = scramble(jnp.asarray(index, jnp.uint32))
    return jax.lax.while_loop(any_out_of_range, scramble_out_of_range, start).astype(jnp.int32)


def _salted_hash(value: UInt32[Array, "*indices"], salt: UInt32[Array, ""]) -> UInt32[Array, "*indices"]:
    """Hashes numbers so that every bit of the result depends on every bit of the number and of the salt."""
    mixed = (value * jnp.uint32(0x9E3779B9)) ^ salt
    mixed = (mixed ^ (mixed >> 16)) * jnp.uint32(0x7FEB352D)
    mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(0x846CA68B)
    return mixed ^ (mixed >> 16)
