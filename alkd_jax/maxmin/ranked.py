"""The game of a power of the rank, solved anew for the sessions that are left after every draw.

The gains ``a = rank^−μ`` depend only on the place of a session among those that are left, and every policy of this game
asks about the first k places with ``p ∝ place^μ``. So one table of prefix sums serves all sizes: each solution is a
bisection, each draw a look-up, and a place becomes a session by counting the sessions drawn before it.
"""

import dataclasses
import functools
from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt

from alkd_jax.maxmin.game import IntArray

RandomKey = Key[Array, ""] | UInt[Array, "2"]

BLOCK = 1024
"""Places among which the second random number decides: neither it nor a sum in float32 tells millions apart."""


@flax.struct.dataclass
class RankedGame:
    """Sessions whose gains are a power of their difficulty rank.

    Attributes:
        rank: ``[N]`` a permutation of 1..N, 1 is the hardest.
        ratios: effective : similar : incorrect, kept however many sessions are left.
        exponent: μ; ``a = rank^−μ``.
        similar_ratio: b/a, in (0, 1).
        incorrect_ratio: d/a > 0.
        policy: "exact", or the paper's "closed_form".
        drop_last: leave out the k*-th session, as the released code does.
    """

    rank: IntArray
    ratios: tuple[int, int, int] = flax.struct.field(pytree_node=False, default=(1, 5, 4))
    exponent: float | int = flax.struct.field(pytree_node=False, default=10)
    similar_ratio: float = flax.struct.field(pytree_node=False, default=0.5)
    incorrect_ratio: float | int = flax.struct.field(pytree_node=False, default=0.5)
    policy: Literal["exact", "closed_form"] = flax.struct.field(pytree_node=False, default="exact")
    drop_last: bool = flax.struct.field(pytree_node=False, default=False)


def draw_resolving(key: RandomKey, game: RankedGame, *, num: int) -> Int[Array, " num"]:
    """Draws distinct sessions, solving the game of those that are left before every draw.

    Args:
        key: random key.
        game: what is played; ``num`` at most its number of sessions, and fewer where a policy leaves none to ask.
        num: how many to draw.

    Returns:
        Indices ``[num]`` int32, in the order drawn.

    Reference:
        The authors' released notebooks, with ``policy="closed_form", drop_last=True``.
    """
    by_rank = jnp.argsort(jnp.asarray(game.rank)).astype(jnp.int32)
    return _draw(key, dataclasses.replace(game, rank=by_rank), num=num)


@functools.partial(jax.jit, static_argnames="num")
def _draw(key: RandomKey, game: RankedGame, *, num: int) -> Int[Array, " num"]:
    num_sessions = game.rank.shape[0]
    weight = (jnp.arange(1, num_sessions + 1) / num_sessions) ** game.exponent
    total = jnp.concatenate([jnp.zeros(1), jnp.cumsum(weight)])
    size = min(BLOCK, num_sessions)
    within = jnp.cumsum(jnp.pad(weight, (0, -num_sessions % size)).reshape(-1, size), axis=1)
    places = jnp.arange(num, dtype=jnp.int32)

    def draw(drawn: Int[Array, " num"], step: tuple[Array, Array]) -> tuple[Array, Array]:
        uniforms, number = step
        place = draw_place(game, weight, total, within, num_sessions - number, uniforms)
        # Of the sessions drawn before, in the order of rank, so many stand before this place.
        rank = place + jnp.sum(drawn - places <= place, dtype=jnp.int32)
        at = jnp.sum(drawn < rank)
        shifted = jnp.where(places == at, rank, jnp.roll(drawn, 1))
        return jnp.where(places < at, drawn, shifted), rank

    nobody = jnp.full(num, jnp.iinfo(jnp.int32).max, jnp.int32)
    _, ranks = jax.lax.scan(draw, nobody, (jax.random.uniform(key, (num, 2)), places))
    return game.rank[ranks - 1]


def draw_place(
    game: RankedGame,
    weight: Float[Array, " N"],
    total: Float[Array, " N+1"],
    within: Float[Array, "M B"],
    num_left: Int[Array, ""],
    uniforms: Float[Array, "2"],
) -> Int[Array, ""]:
    """Draws one of the places that are left, by the policy of their game.

    Args:
        game: what is played.
        weight: ``[N]`` place^μ, in any unit.
        total: ``[N + 1]`` sums of the first 0, 1, … weights.
        within: ``[M, B]`` sums of the weights of a block up to and with each of its places.
        num_left: how many sessions are left.
        uniforms: two numbers in [0, 1).

    Returns:
        A place from 1 to ``num_left``.
    """
    rho, eta = game.similar_ratio, game.incorrect_ratio
    num_effective, num_similar = (num_left * ratio // sum(game.ratios) for ratio in game.ratios[:2])
    num_incorrect = num_left - num_effective - num_similar
    # The closed form has p ∝ 1 / (b + d) up to here, and 1 / (a + d) after it; the exact policy is of one kind.
    start = num_left - num_effective if game.policy == "closed_form" else jnp.zeros_like(num_left)

    def peak(low: Int[Array, ""], high: Int[Array, ""], gain: float, deficit: Array) -> tuple[Array, Array]:
        """Finds the best k in low..high, where all places from low on forfeit the same gain."""

        def surplus_and_cost(k: Int[Array, ""]) -> tuple[Array, Array]:
            first = jnp.minimum(k, start)
            surplus = first * (rho / (rho + eta)) + (k - first) * (gain / (gain + eta)) - deficit
            return surplus, total[first] / (rho + eta) + (total[k] - total[first]) / (gain + eta)

        def halve(_: Int[Array, ""], bracket: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bracket
            k = (low + high + 1) // 2
            surplus, cost = surplus_and_cost(k - 1)
            forfeit = jnp.where(k <= start, rho, gain)
            rises = forfeit * cost > surplus * weight[k - 1]
            return jnp.where(rises, k, low), jnp.where(rises, high, jnp.maximum(k - 1, low))

        k, _ = jax.lax.fori_loop(0, weight.shape[0].bit_length(), halve, (low, high))
        surplus, cost = surplus_and_cost(k)
        return k, surplus / cost

    one, lost = jnp.ones_like(num_left), num_incorrect * 1.0
    if game.policy == "closed_form":
        middle = jnp.maximum(start, 1)
        first, second = peak(one, middle, 1.0, lost), peak(middle, num_left, 1.0, lost)
    else:
        pooled = peak(one, num_left, rho, lost)
        first, second = pooled, peak(one, num_left, 1.0, lost + (1 - rho) / (1 + eta) * num_similar)
    support = jnp.where(second[1] > first[1], second[0], first[0])
    if game.drop_last:
        support = jnp.maximum(support - 1, 1)
    ends = jnp.minimum(start, support)
    of_first, of_second = total[ends] / (rho + eta), (total[support] - total[ends]) / (1 + eta)
    target = uniforms[0] * (of_first + of_second)
    is_first = target < of_first
    mass = jnp.where(is_first, target * (rho + eta), total[ends] + (target - of_first) * (1 + eta))
    near = jnp.clip(jnp.searchsorted(total, mass, side="right"), 1, support)
    # Drawn anew from those of its block that are of its kind.
    size = within.shape[1]
    block, offset = (near - 1) // size, (near - 1) // size * size
    before = jnp.where(is_first, offset, jnp.maximum(offset, ends)) - offset
    last = jnp.where(is_first, jnp.minimum(offset + size, ends), jnp.minimum(offset + size, support)) - offset
    sums = within[block]
    least = jnp.where(before > 0, sums[before - 1], 0.0)
    mass = least + uniforms[1] * (sums[last - 1] - least)
    place = jnp.clip(jnp.searchsorted(sums, mass, side="right") + 1, before + 1, last)
    return (offset + place).astype(jnp.int32)
