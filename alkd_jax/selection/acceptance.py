"""Randomized uncertainty sampling: sessions are visited in random order, and each is accepted or rejected at random."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alkd_jax.checks import check_count, check_where, is_concrete
from alkd_jax.maxmin.game import FloatArray
from alkd_jax.selection.sampling import RandomKey


def randomized_acceptance(key: RandomKey, uncertainty: FloatArray, *, num: int = 500) -> Int[Array, " num"]:
    """Visits the sessions in random order and accepts each with the probability u_s, until ``num`` are accepted.

    Where one pass over all sessions accepts too few, the rejected ones are visited again in the same order. The number
    of the pass in which a session is accepted is geometric, ``P(t) = u_s (1 − u_s)^(t−1)``; it is drawn for all
    sessions at once, and the first ``num`` by pass and order are returned.

    Args:
        key: a JAX key; the function consumes it.
        uncertainty: ``[N]`` u, the probability of acceptance, from 0 to 1; a session with 0 is never accepted.
        num: number of sessions to select.

    Returns:
        ``[num]`` distinct indices, in the order of acceptance.

    Raises:
        ValueError: a probability is outside of [0, 1], or fewer than ``num`` are above 0.

    Reference:
        M-RARU, active knowledge distillation for text classification, arXiv 2511.11574.

    Example:
        >>> chosen = alkd.selection.randomized_acceptance(jax.random.key(0), jnp.array([0.0, 1.0, 1.0]), num=2)
        >>> sorted(chosen.tolist())
        [1, 2]
    """
    check_count(1, num=num)
    is_probability = (uncertainty >= 0) & (uncertainty <= 1)
    check_where(is_probability, "uncertainty", uncertainty, "a probability of acceptance, from 0 to 1")
    is_possible = uncertainty > 0
    most = int(is_possible.sum()) if is_concrete(is_possible) else uncertainty.shape[0]
    if num > most:
        raise ValueError(f"num is {num}; expected 1 to {most}, the number of sessions of an uncertainty above 0")
    return _accept(key, jnp.asarray(uncertainty, jnp.float32), num=num)


@functools.partial(jax.jit, static_argnames="num")
def _accept(key: RandomKey, probability: Float[Array, " N"], *, num: int) -> Int[Array, " num"]:
    order_key, pass_key = jax.random.split(key)
    place = jax.random.permutation(order_key, probability.shape[0])
    # −log U is exponential, and rounding its quotient by −log(1 − u) down gives the number of rejections.
    waiting = jax.random.exponential(pass_key, probability.shape)
    rejections = jnp.floor(waiting / jnp.maximum(-jnp.log1p(-probability), jnp.finfo(jnp.float32).tiny))
    rejections = jnp.where(probability > 0, rejections, jnp.inf)
    return jnp.lexsort((place, rejections))[:num].astype(jnp.int32)
