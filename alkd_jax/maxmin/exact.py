"""The exact solution of the selection game, with a proof.

By minimax the value is the least Γ at which the adversary can label fractionally (x effective, y similar) so that no
instance pays more than Γ. The pairs that instance s then allows form a polygon

    P_s(Γ) = {x, y ≥ 0, x + y ≤ 1, (a_s + d_s) x + (b_s + d_s) y ≤ Γ + d_s},

and the totals can be met iff no direction (1, λ) separates them from the sum of the polygons:

    f(λ, Γ) = Σ_s max_{(x, y) ∈ P_s(Γ)} (x + λ y) − k_ef − λ k_si ≥ 0  for all λ ∈ [0, 1]  (θ = 1 / (1 + λ)).

f is convex in λ, with kinks only at κ_s = (b_s + d_s) / (a_s + d_s), and concave and increasing in Γ. For every (λ, Γ)
the policy p ∝ ∂h_s/∂Γ of its terms h_s guarantees the Newton step Γ − f / f_Γ. So each pass over the data either raises
Γ by that step, or finds f ≥ 0 and cuts off all λ on the side where f rises: none of them can do better than Γ. The
value is the Γ at which no λ is left, or −min d, the limit below which polygons are empty.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.maxmin.assignment import as_bits, as_float
from alkd_jax.maxmin.game import (
    LEAST_LOSS,
    POOLED,
    SPLIT,
    Count,
    FloatArray,
    Solution,
    check_counts,
    check_gains,
    check_order,
    is_concrete,
)
from alkd_jax.maxmin.instances import (
    LOG_2,
    Instances,
    Totals,
    Value,
    evaluate_constraint,
    from_gains,
    guarantee,
    is_proportional,
    log_policy,
)
from alkd_jax.maxmin.proportional import best_prefix, sort_weights

MAX_PASSES = 1000
"""A bound that only a NaN could reach."""


class Search(NamedTuple):
    """Where the search stands.

    Attributes:
        ratio: λ to look at.
        low: least λ that may be better than the best.
        high: largest λ that may be better than the best.
        value: Γ that is guaranteed.
        best: λ of the policy that guarantees it; 0 while that is the policy that asks where the loss is least.
        origin: Γ at which that policy is the slope of f.
        growth: f_Γ there, in the unit of Γ.
        missing: what f may lack of 0 at the λ that are left, or by rounding.
        num_passes: over the data, so far.
        done: whether no λ is left.
    """

    ratio: Float[Array, ""]
    low: Float[Array, ""]
    high: Float[Array, ""]
    value: Value
    best: Float[Array, ""]
    origin: Value
    growth: Float[Array, ""]
    missing: Float[Array, ""]
    num_passes: Int[Array, ""]
    done: Bool[Array, ""]


def solve(
    effective_gain: FloatArray,
    similar_gain: FloatArray,
    incorrect_loss: FloatArray,
    *,
    num_effective: Count,
    num_similar: Count,
    log_gains: bool = False,
) -> Solution:
    """The policy of the largest guarantee, with a proof that no policy has a larger one.

    ``max_{p ∈ simplex} min_{c ∈ C} Σ_s p_s (a_s c_s^ef + b_s c_s^si − d_s c_s^in)``

    Args:
        effective_gain: ``[N]`` a > 0, in any order.
        similar_gain: ``[N]`` b, 0 < b < a.
        incorrect_loss: ``[N]`` d > 0.
        num_effective: k_ef, number of effective instances; at least 0.
        num_similar: k_si; the other ``N − k_ef − k_si`` instances are incorrect.
        log_gains: whether the three arrays are natural logarithms, as steep gains should be; the solution then has a
            scale.

    Returns:
        The solution, with ``lower ≤ value ≤ upper``, all three equal but for rounding: in float32 they are within 1e-4
        of the value, or, where gains and losses cancel to less than a thousandth, within the last digits of the stakes
        ``Σ_s p_s (a_s + d_s)`` (no log p of that type has a better worst case). A common factor of all gains changes
        nothing in the policy. Works inside ``jit`` and ``vmap``, over gains and counts; gains in fixed proportions,
        where they can be seen, are sorted once instead of searched.

    Raises:
        ValueError: an array or a count is out of its range, or shapes differ.

    Reference:
        The game: Du et al., AAAI 2025, whose closed form is not the optimum; with two classes, Baykal et al., Robust
        active distillation, ICLR 2023. The solution is this library's.
    """
    gains = {"effective_gain": effective_gain, "similar_gain": similar_gain, "incorrect_loss": incorrect_loss}
    check_gains(gains, log_gains=log_gains)
    check_order(similar_gain, effective_gain)
    check_counts(len(effective_gain), num_effective=num_effective, num_similar=num_similar)
    can_be_seen = all(is_concrete(gain) for gain in gains.values())
    proportional = can_be_seen and is_proportional(*gains.values(), log_gains=log_gains)
    instances = from_gains(*gains.values(), log_gains=log_gains)
    return _solve(instances, num_effective, num_similar, proportional=proportional, log_gains=log_gains)


@functools.partial(jax.jit, static_argnames=("proportional", "log_gains"))
def _solve(
    instances: Instances,
    num_effective: Int[Array, ""],
    num_similar: Int[Array, ""],
    *,
    proportional: bool,
    log_gains: bool,
) -> Solution:
    counts = jnp.asarray(num_effective, jnp.int32), jnp.asarray(num_similar, jnp.int32)
    start = begin(instances)
    found = search(instances, begin_near(instances, start, *counts) if proportional else start, *counts)
    upper, num_passes = prove(instances, found, *counts)
    number, unit = found.value
    is_floor = found.best == 0
    policy, price = log_policy(instances, found.best, found.origin, unit)
    spread = jnp.where(instances.has_least_loss, -jnp.log(jnp.sum(instances.has_least_loss)), -jnp.inf)
    policy, price = jnp.where(is_floor, spread, policy), jnp.where(is_floor, 0, price)
    lower = guarantee(instances, policy, unit, price, found.best, *counts)
    log_scale = jnp.round(unit * sum(LOG_2)) if log_gains else jnp.zeros_like(number)
    factor = jnp.exp((unit * LOG_2[0] - log_scale) + unit * LOG_2[1])

    def scaled(value: Float[Array, ""]) -> Float[Array, ""]:
        return value * factor if log_gains else jnp.ldexp(value, unit)

    return Solution(
        log_policy=policy,
        value=scaled(number),
        lower=scaled(jnp.minimum(lower, number)),
        upper=scaled(jnp.maximum(upper, number)),
        log_scale=log_scale,
        support_size=jnp.sum(policy > -jnp.inf, dtype=jnp.int32),
        theta=jnp.where(is_floor, jnp.nan, 1 / (1 + found.best)),
        case=jnp.where(is_floor, LEAST_LOSS, jnp.where(found.best == 1, POOLED, SPLIT)),
        num_passes=num_passes,
    )


def begin(instances: Instances) -> Search:
    """Starts the search where the polygons do, at Γ = −min d."""
    exponent = -jnp.max(instances.exponent)
    value = Value(-jnp.ldexp(instances.least_loss, instances.least_exponent - exponent), exponent)
    low, one = jnp.min(instances.kink()), jnp.ones_like(value.number)
    return Search(
        ratio=middle(low, one),
        low=low,
        high=one,
        value=value,
        best=jnp.zeros_like(one),
        origin=value,
        growth=jnp.ones_like(one),
        missing=jnp.zeros_like(one),
        num_passes=jnp.int32(0),
        done=jnp.asarray(False),
    )


def begin_near(
    instances: Instances, start: Search, num_effective: Int[Array, ""], num_similar: Int[Array, ""]
) -> Search:
    """Starts the search just below the solution for proportional gains, which a few passes then confirm."""
    table = sort_weights(instances, start.value.exponent)
    ratio, value, room = best_prefix(table, num_effective, num_similar)
    below = jnp.maximum(value - room / 64, start.value.number)
    below = jnp.where(jnp.isfinite(below), below, start.value.number)
    return start._replace(ratio=ratio, value=normalised(below, start.value.exponent))


def search(instances: Instances, start: Search, num_effective: Int[Array, ""], num_similar: Int[Array, ""]) -> Search:
    """Raises Γ and cuts off λ, one pass at a time, until no λ is left that could do better."""
    limits = jnp.finfo(start.ratio.dtype)

    def step(state: Search) -> Search:
        totals = evaluate_constraint(instances, state.ratio, state.value, num_effective, num_similar)
        growth = jnp.maximum(totals.growth, limits.tiny)
        # Where the weights underflow the step has no limit, and a part of it will do.
        rise = jnp.minimum(-totals.excess / growth, 2.0**30 * (1 + jnp.abs(state.value.number)))
        raised = state.value.number + rise
        rises = (totals.excess < -totals.noise) & (raised > state.value.number)
        value = choose(rises, normalised(raised, state.value.exponent), state.value)
        low, high = shrink_bracket(state, totals)
        least = least_excess(state, totals)
        is_least = (totals.left <= 0) & (totals.right >= 0)
        done = ~rises & ((least >= -totals.noise) | (low > high) | is_least)
        return Search(
            ratio=jnp.where(rises | done, state.ratio, middle(low, high)),
            low=jnp.where(rises, state.low, low),
            high=jnp.where(rises, state.high, high),
            value=value,
            best=jnp.where(rises, state.ratio, state.best),
            origin=choose(rises, state.value, state.origin),
            growth=jnp.where(
                rises | (state.best == 0), jnp.ldexp(growth, value.exponent - state.value.exponent), state.growth
            ),
            missing=jnp.maximum(totals.noise - least, 0),
            num_passes=state.num_passes + 1,
            done=done,
        )

    return jax.lax.while_loop(lambda state: ~state.done & (state.num_passes < MAX_PASSES), step, start)


def shrink_bracket(state: Search, totals: Totals) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns the λ that are left: f is convex, so where it is not negative its tangent bounds those where it is."""
    excess = jnp.maximum(totals.excess, 0)
    low, high = state.low, state.high
    falls, rises = totals.right < 0, totals.left > 0
    low = jnp.where(falls, jnp.maximum(low, jnp.maximum(totals.after, state.ratio - excess / totals.right)), low)
    high = jnp.where(rises, jnp.minimum(high, jnp.minimum(totals.before, state.ratio - excess / totals.left)), high)
    return low, high


def least_excess(state: Search, totals: Totals) -> Float[Array, ""]:
    """Returns a bound from below, by tangents, of f at all λ that are left."""
    to_left = jnp.where(totals.left > 0, totals.left * jnp.minimum(state.low - state.ratio, 0), 0)
    to_right = jnp.where(totals.right < 0, totals.right * jnp.maximum(state.high - state.ratio, 0), 0)
    return totals.excess + jnp.minimum(to_left, to_right)


def prove(
    instances: Instances, found: Search, num_effective: Int[Array, ""], num_similar: Int[Array, ""]
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """Finds a Γ hardly above the value at which f ≥ 0 for all λ: those that are left, and so all.

    Returns:
        ``(Γ [], number of passes [])``; Γ is +inf should it not be found.
    """

    def widen(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        slack, _, num_passes = state
        value = Value(found.value.number + slack, found.value.exponent)
        totals = evaluate_constraint(instances, found.ratio, value, num_effective, num_similar)
        proved = (least_excess(found, totals) >= -2 * totals.noise) | (found.low > found.high)
        # Nothing may have been missing before, and yet rounding asks for a little.
        return jnp.where(proved, slack, 2 * slack + totals.noise / found.growth), proved, num_passes + 1

    slack, proved, num_passes = jax.lax.while_loop(
        lambda state: ~state[1] & (state[2] < found.num_passes + 60),
        widen,
        (found.missing / found.growth, jnp.asarray(False), found.num_passes),
    )
    return jnp.where(proved, found.value.number + slack, jnp.inf), num_passes


def middle(low: Float[Array, ""], high: Float[Array, ""]) -> Float[Array, ""]:
    """Returns a number between two positive ones, halfway by their bit patterns."""
    start = as_bits(low)
    return as_float(start + (as_bits(high) - start) // 2)


def normalised(number: Float[Array, ""], exponent: Int[Array, ""]) -> Value:
    """Returns ``number · 2^exponent`` in the unit of its own size if it is positive."""
    mantissa, shift = jnp.frexp(number)
    return choose(number > 0, Value(mantissa, exponent + shift), Value(number, exponent))


def choose(condition: Bool[Array, ""], yes: Value, no: Value) -> Value:
    """Returns one of two values."""
    return Value(jnp.where(condition, yes.number, no.number), jnp.where(condition, yes.exponent, no.exponent))
