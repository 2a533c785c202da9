"""Dropout with few random numbers."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def dropout(key: jax.Array, x: Float[Array, "*batch D"], rate: float) -> Float[Array, "*batch D"]:
    """Sets entries to 0 with probability ``rate``, rounded to 1/65,536, and divides the others by ``1 − rate``.

    Two entries share a random word of 32 bits, because random words take as long as a product at width 100.

    Args:
        key: a JAX key; the function consumes it.
        x: the entries.
        rate: a probability below 1.
    """
    half = -(-x.shape[-1] // 2)
    random_words = jax.random.bits(key, (*x.shape[:-1], half), jnp.uint32)
    random_halves = jnp.concatenate([random_words & 0xFFFF, random_words >> 16], axis=-1)[..., : x.shape[-1]]
    return jnp.where(random_halves >= round(rate * 2**16), x / (1.0 - rate), 0.0)
