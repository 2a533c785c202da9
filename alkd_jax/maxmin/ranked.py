"""The game with gains that are a power of the rank, solved again for the remaining sessions before every draw.

The gains ``a = rank^−μ`` depend only on the position of a session among the remaining ones, and every policy of this
game has ``p ∝ position^μ`` on the first k positions. Therefore one table of prefix sums serves games of all sizes: a
bisection finds k, a search in the table draws a position, and the number of sessions drawn before a position gives the
session there.
"""

import dataclasses
import functools
from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt

from alkd_jax.checks import check_one_of, check_ranks
from alkd_jax.maxmin.game import IntArray, check_power_gains, check_ratios

RandomKey = Key[Array, ""] | UInt[Array, "2"]

BLOCK = 1024
"""Positions in a block. The first random number chooses a block and the second a position in it, because neither one
random number nor a sum in float32 can distinguish millions of positions."""


@flax.struct.dataclass
class RankedGame:
    """A game whose gains are a power of the sessions' difficulty ranks.

    Attributes:
        rank: ``[N]`` a permutation of 1..N, 1 is the hardest.
        ratios: effective : similar : incorrect; the same for every number of remaining sessions.
        exponent: μ; ``a = rank^−μ``.
        similar_ratio: b/a, in (0, 1).
        incorrect_ratio: d/a > 0.
        policy: "exact", or the paper's "closed_form".
        drop_last: whether to leave out the k*-th session, as the released code does.
    """

    rank: IntArray
    ratios: tuple[int, int, int] = flax.struct.field(pytree_node=False, default=(1, 5, 4))
    exponent: float | int = flax.struct.field(pytree_node=False, default=10)
    similar_ratio: float = flax.struct.field(pytree_node=False, default=0.5)
    incorrect_ratio: float | int = flax.struct.field(pytree_node=False, default=0.5)
    policy: Literal["exact", "closed_form"] = flax.struct.field(pytree_node=False, default="exact")
    drop_last: bool = flax.struct.field(pytree_node=False, default=False)


def sample_with_resolving(key: RandomKey, game: RankedGame, *, num: int) -> Int[Array, " num"]:
    """Samples distinct sessions; before every draw it solves the game of the remaining sessions.

    Args:
        key: a JAX key; the function consumes it.
        game: the game of all sessions.
        num: number of sessions to draw, from 1 to N.

    Returns:
        Indices ``[num]`` int32, in the order of the draws.

    Raises:
        ValueError: a parameter or a rank of the game is out of its range.

    Reference:
        The authors' released notebooks, with ``policy="closed_form", drop_last=True``.
    """
    check_one_of("policy", game.policy, ("exact", "closed_form"))
    check_power_gains(game.exponent, game.similar_ratio, game.incorrect_ratio, len(game.rank))
    check_ratios(game.ratios)
    check_ranks("rank", game.rank, most=len(game.rank))
    sessions_by_rank = jnp.argsort(jnp.asarray(game.rank)).astype(jnp.int32)
    return _sample(key, dataclasses.replace(game, rank=sessions_by_rank), num=num)


@functools.partial(jax.jit, static_argnames="num")
def _sample(key: RandomKey, game: RankedGame, *, num: int) -> Int[Array, " num"]:
    num_sessions = game.rank.shape[0]
    weight = (jnp.arange(1, num_sessions + 1) / num_sessions) ** game.exponent
    total = jnp.concatenate([jnp.zeros(1), jnp.cumsum(weight)])
    size = min(BLOCK, num_sessions)
    block_sums = jnp.cumsum(jnp.pad(weight, (0, -num_sessions % size)).reshape(-1, size), axis=1)
    positions = jnp.arange(num, dtype=jnp.int32)

    def sample_one(sampled: Int[Array, " num"], step: tuple[Array, Array]) -> tuple[Array, Array]:
        uniforms, number = step
        position = sample_position(game, weight, total, block_sums, num_sessions - number, uniforms)
        # The rank of the session at this position: ``sampled`` is sorted, and each earlier rank shifts it by one.
        rank = position + jnp.sum(sampled - positions <= position, dtype=jnp.int32)
        insert_at = jnp.sum(sampled < rank)
        shifted = jnp.where(positions == insert_at, rank, jnp.roll(sampled, 1))
        return jnp.where(positions < insert_at, sampled, shifted), rank

    none_sampled = jnp.full(num, jnp.iinfo(jnp.int32).max, jnp.int32)
    _, ranks = jax.lax.scan(sample_one, none_sampled, (jax.random.uniform(key, (num, 2)), positions))
    return game.rank[ranks - 1]


def sample_position(
    game: RankedGame,
    weight: Float[Array, " N"],
    total: Float[Array, " N+1"],
    block_sums: Float[Array, "M B"],
    num_left: Int[Array, ""],
    uniforms: Float[Array, "2"],
) -> Int[Array, ""]:
    """Samples a position among the remaining sessions from the policy of their game.

    Args:
        game: the game.
        weight: ``[N]`` position^μ, in any unit.
        total: ``[N + 1]`` sums of the first 0, 1, … weights.
        block_sums: ``[M, B]`` inclusive prefix sums of the weights within each block of positions.
        num_left: number of remaining sessions.
        uniforms: two random numbers in [0, 1).

    Returns:
        A position from 1 to ``num_left``.
    """
    rho, eta = game.similar_ratio, game.incorrect_ratio
    num_effective, num_similar = (num_left * ratio // sum(game.ratios) for ratio in game.ratios[:2])
    num_incorrect = num_left - num_effective - num_similar
    # The closed form has p ∝ 1 / (b + d) up to ``start`` and 1 / (a + d) after it; the exact policy has one factor.
    start = num_left - num_effective if game.policy == "closed_form" else jnp.zeros_like(num_left)

    def peak(low: Int[Array, ""], high: Int[Array, ""], gain: float, deficit: Array) -> tuple[Array, Array]:
        """Finds the best k in low..high and its Γ, where all positions from low on lose the same gain."""

        def surplus_and_cost(k: Int[Array, ""]) -> tuple[Array, Array]:
            first = jnp.minimum(k, start)
            surplus = first * (rho / (rho + eta)) + (k - first) * (gain / (gain + eta)) - deficit
            return surplus, total[first] / (rho + eta) + (total[k] - total[first]) / (gain + eta)

        def bisect(_: Int[Array, ""], bracket: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bracket
            k = (low + high + 1) // 2
            surplus, cost = surplus_and_cost(k - 1)
            lost_gain = jnp.where(k <= start, rho, gain)
            rises = lost_gain * cost > surplus * weight[k - 1]
            return jnp.where(rises, k, low), jnp.where(rises, high, jnp.maximum(k - 1, low))

        k, _ = jax.lax.fori_loop(0, weight.shape[0].bit_length(), bisect, (low, high))
        surplus, cost = surplus_and_cost(k)
        return k, surplus / cost

    one, deficit = jnp.ones_like(num_left), num_incorrect * 1.0
    if game.policy == "closed_form":
        boundary = jnp.maximum(start, 1)
        first, second = peak(one, boundary, 1.0, deficit), peak(boundary, num_left, 1.0, deficit)
    else:
        first = peak(one, num_left, rho, deficit)
        second = peak(one, num_left, 1.0, deficit + (1 - rho) / (1 + eta) * num_similar)
    support = jnp.where(second[1] > first[1], second[0], first[0])
    if game.drop_last:
        support = jnp.maximum(support - 1, 1)
    boundary = jnp.minimum(start, support)
    mass_before, mass_after = total[boundary] / (rho + eta), (total[support] - total[boundary]) / (1 + eta)
    target = uniforms[0] * (mass_before + mass_after)
    is_before = target < mass_before
    target_sum = jnp.where(is_before, target * (rho + eta), total[boundary] + (target - mass_before) * (1 + eta))
    rough_position = jnp.clip(jnp.searchsorted(total, target_sum, side="right"), 1, support)
    # The second random number draws again among the positions of the same block, on the same side of the boundary.
    size = block_sums.shape[1]
    block, offset = (rough_position - 1) // size, (rough_position - 1) // size * size
    before = jnp.where(is_before, offset, jnp.maximum(offset, boundary)) - offset
    last = jnp.where(is_before, jnp.minimum(offset + size, boundary), jnp.minimum(offset + size, support)) - offset
    sums = block_sums[block]
    least = jnp.where(before > 0, sums[before - 1], 0.0)
    target_sum = least + uniforms[1] * (sums[last - 1] - least)
    position = jnp.clip(jnp.searchsorted(sums, target_sum, side="right") + 1, before + 1, last)
    return (offset + position).astype(jnp.int32)
