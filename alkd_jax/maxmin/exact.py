"""The exact solution of the selection game, with a certificate of optimality.

By the minimax theorem the value of the game is the least Γ for which the adversary has a fractional labeling, x_s
effective and y_s similar, at which no instance gains more than Γ. The pairs (x_s, y_s) that satisfy this for instance s
form a polygon

    P_s(Γ) = {x, y ≥ 0, x + y ≤ 1, (a_s + d_s) x + (b_s + d_s) y ≤ Γ + d_s},

and a labeling with the required totals k_ef and k_si exists iff no direction (1, λ) separates these totals from the sum
of the polygons:

    f(λ, Γ) = Σ_s max_{(x, y) ∈ P_s(Γ)} (x + λ y) − k_ef − λ k_si ≥ 0  for all λ ∈ [0, 1]  (θ = 1 / (1 + λ)).

f is convex in λ, with kinks only at κ_s = (b_s + d_s) / (a_s + d_s), and concave and increasing in Γ. Let h_s be its
terms and f_Γ its derivative in Γ. For every (λ, Γ) the policy p_s ∝ ∂h_s/∂Γ guarantees the Newton step Γ − f / f_Γ.
Therefore each pass over the data has one of two outcomes. Either f < 0, and the step raises the guaranteed Γ. Or f ≥ 0
at this λ, and convexity excludes all λ on the side where f rises, because none of them can guarantee more than Γ. The
value is the Γ at which all λ are excluded, or −min d, below which some polygon is empty.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.checks import is_concrete
from alkd_jax.maxmin.assignment import bits_to_float, float_to_bits
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
    check_solution,
)
from alkd_jax.maxmin.instances import (
    LOG_2,
    ConstraintValue,
    Instances,
    ScaledValue,
    dual_bound,
    evaluate_constraint,
    from_gains,
    is_proportional,
    policy_from_slopes,
)
from alkd_jax.maxmin.proportional import best_prefix, sort_weights

MAX_PASSES = 1000
"""A limit of the search, reached only where traced gains contain a NaN or are out of range."""


class SearchState(NamedTuple):
    """The state of the search over (λ, Γ).

    Attributes:
        ratio: λ at which the next pass evaluates f.
        low: the least λ that is not excluded.
        high: the largest λ that is not excluded.
        value: the largest Γ guaranteed so far.
        best_ratio: λ of the policy that guarantees it; 0 while this is the policy on the instances of least loss.
        origin: Γ at which that policy was derived from the slopes of f.
        value_slope: f_Γ at ``(best_ratio, origin)``, in the unit of Γ.
        shortfall: a bound of −f over the λ that are not excluded, rounding included.
        num_passes: passes over the data so far.
        done: whether all λ are excluded.
    """

    ratio: Float[Array, ""]
    low: Float[Array, ""]
    high: Float[Array, ""]
    value: ScaledValue
    best_ratio: Float[Array, ""]
    origin: ScaledValue
    value_slope: Float[Array, ""]
    shortfall: Float[Array, ""]
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
    """The policy with the largest worst-case gain, with a proof that no policy has a larger one.

    ``max_{p ∈ simplex} min_{c ∈ C} Σ_s p_s (a_s c_s^ef + b_s c_s^si − d_s c_s^in)``

    Args:
        effective_gain: ``[N]`` a > 0, in any order.
        similar_gain: ``[N]`` b, 0 < b < a.
        incorrect_loss: ``[N]`` d > 0.
        num_effective: k_ef, number of effective instances; at least 0.
        num_similar: k_si; the other ``N − k_ef − k_si`` instances are incorrect.
        log_gains: whether the three arrays are natural logarithms, which gains beyond 1e-30 to 1e30 need; the
            results are then in units of ``exp(log_scale)``.

    Returns:
        The solution, with ``lower ≤ value ≤ upper``. The three differ by rounding only: in float32 they are within 1e-4
        of the value, or, where the value is less than a thousandth of ``Σ_s p_s (a_s + d_s)``, within the rounding of
        that sum (no log p of that type has a better worst case). A common factor of all gains does not
        change the policy. The function works inside ``jit`` and ``vmap``, over gains and counts. Where the arrays are
        concrete and the gains are in fixed proportions, one sort replaces most of the search.

    Raises:
        ValueError: an array or a count is out of its range, or shapes differ.
        FloatingPointError: the search ended without a proof.

    Reference:
        The game: Du et al., AAAI 2025, whose closed form is not the optimum; with two classes, Baykal et al., Robust
        active distillation, ICLR 2023. The solution is this library's.

    Example:
        >>> gain = jnp.array([4.0, 3.0, 2.0, 1.0])
        >>> solution = alkd.solve_game(gain, gain / 2, gain / 4, num_effective=1, num_similar=1)
        >>> bool(solution.lower <= solution.value <= solution.upper)
        True
        >>> policy = jnp.exp(solution.log_policy)
    """
    gains = {"effective_gain": effective_gain, "similar_gain": similar_gain, "incorrect_loss": incorrect_loss}
    check_gains(gains, log_gains=log_gains)
    check_order(similar_gain, effective_gain)
    check_counts(len(effective_gain), num_effective=num_effective, num_similar=num_similar)
    concrete = all(is_concrete(gain) for gain in gains.values())
    proportional = concrete and is_proportional(*gains.values(), log_gains=log_gains)
    instances = from_gains(*gains.values(), log_gains=log_gains)
    return check_solution(_solve(instances, num_effective, num_similar, proportional=proportional, log_gains=log_gains))


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
    start = initial_state(instances)
    result = search(instances, warm_start(instances, start, *counts) if proportional else start, *counts)
    upper, num_passes = certify(instances, result, *counts)
    number, unit = result.value
    is_floor = result.best_ratio == 0
    log_policy, price = policy_from_slopes(instances, result.best_ratio, result.origin, unit)
    uniform = jnp.where(instances.has_least_loss, -jnp.log(jnp.sum(instances.has_least_loss)), -jnp.inf)
    log_policy, price = jnp.where(is_floor, uniform, log_policy), jnp.where(is_floor, 0, price)
    lower = dual_bound(instances, log_policy, unit, price, result.best_ratio, *counts)
    log_scale = jnp.round(unit * sum(LOG_2)) if log_gains else jnp.zeros_like(number)
    factor = jnp.exp((unit * LOG_2[0] - log_scale) + unit * LOG_2[1])

    def scaled(value: Float[Array, ""]) -> Float[Array, ""]:
        return value * factor if log_gains else jnp.ldexp(value, unit)

    return Solution(
        log_policy=log_policy,
        value=scaled(number),
        lower=scaled(jnp.minimum(lower, number)),
        upper=scaled(jnp.maximum(upper, number)),
        log_scale=log_scale,
        support_size=jnp.sum(log_policy > -jnp.inf, dtype=jnp.int32),
        theta=jnp.where(is_floor, jnp.nan, 1 / (1 + result.best_ratio)),
        case=jnp.where(is_floor, LEAST_LOSS, jnp.where(result.best_ratio == 1, POOLED, SPLIT)),
        num_passes=num_passes,
    )


def initial_state(instances: Instances) -> SearchState:
    """Returns the state at Γ = −min d, the least Γ at which no polygon is empty."""
    exponent = -jnp.max(instances.exponent)
    value = ScaledValue(-jnp.ldexp(instances.least_loss, instances.least_exponent - exponent), exponent)
    low, one = jnp.min(instances.kink()), jnp.ones_like(value.number)
    return SearchState(
        ratio=bit_midpoint(low, one),
        low=low,
        high=one,
        value=value,
        best_ratio=jnp.zeros_like(one),
        origin=value,
        value_slope=jnp.ones_like(one),
        shortfall=jnp.zeros_like(one),
        num_passes=jnp.int32(0),
        done=jnp.asarray(False),
    )


def warm_start(
    instances: Instances, start: SearchState, num_effective: Int[Array, ""], num_similar: Int[Array, ""]
) -> SearchState:
    """Starts the search just below the solution for proportional gains; a few passes then confirm that solution."""
    table = sort_weights(instances, start.value.exponent)
    ratio, value, resolution = best_prefix(table, num_effective, num_similar)
    below = jnp.maximum(value - resolution / 64, start.value.number)
    below = jnp.where(jnp.isfinite(below), below, start.value.number)
    return start._replace(ratio=ratio, value=renormalized(below, start.value.exponent))


def search(
    instances: Instances, start: SearchState, num_effective: Int[Array, ""], num_similar: Int[Array, ""]
) -> SearchState:
    """Raises Γ or excludes λ, one pass at a time, until every λ that could guarantee more than Γ is excluded."""
    limits = jnp.finfo(start.ratio.dtype)

    def step(state: SearchState) -> SearchState:
        f = evaluate_constraint(instances, state.ratio, state.value, num_effective, num_similar)
        value_slope = jnp.maximum(f.value_slope, limits.tiny)
        # Where the weights underflow, the Newton step has no bound; a shorter step also raises Γ.
        rise = jnp.minimum(-f.constraint / value_slope, 2.0**30 * (1 + jnp.abs(state.value.number)))
        raised_number = state.value.number + rise
        step_raises = (f.constraint < -f.rounding_error) & (raised_number > state.value.number)
        value = select_value(step_raises, renormalized(raised_number, state.value.exponent), state.value)
        low, high = shrink_bracket(state, f)
        lower_bound = constraint_lower_bound(state, f)
        is_minimum = (f.slope_left <= 0) & (f.slope_right >= 0)
        done = ~step_raises & ((lower_bound >= -f.rounding_error) | (low > high) | is_minimum)
        return SearchState(
            ratio=jnp.where(step_raises | done, state.ratio, bit_midpoint(low, high)),
            low=jnp.where(step_raises, state.low, low),
            high=jnp.where(step_raises, state.high, high),
            value=value,
            best_ratio=jnp.where(step_raises, state.ratio, state.best_ratio),
            origin=select_value(step_raises, state.value, state.origin),
            value_slope=jnp.where(
                step_raises | (state.best_ratio == 0),
                jnp.ldexp(value_slope, value.exponent - state.value.exponent),
                state.value_slope,
            ),
            shortfall=jnp.maximum(f.rounding_error - lower_bound, 0),
            num_passes=state.num_passes + 1,
            done=done,
        )

    return jax.lax.while_loop(lambda state: ~state.done & (state.num_passes < MAX_PASSES), step, start)


def shrink_bracket(state: SearchState, f: ConstraintValue) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns the interval of λ that are not excluded.

    f is convex in λ. Where f ≥ 0 its tangents therefore bound the λ at which f could be negative.
    """
    constraint = jnp.maximum(f.constraint, 0)
    low, high = state.low, state.high
    falls, rises = f.slope_right < 0, f.slope_left > 0
    low = jnp.where(falls, jnp.maximum(low, jnp.maximum(f.kink_above, state.ratio - constraint / f.slope_right)), low)
    high = jnp.where(rises, jnp.minimum(high, jnp.minimum(f.kink_below, state.ratio - constraint / f.slope_left)), high)
    return low, high


def constraint_lower_bound(state: SearchState, f: ConstraintValue) -> Float[Array, ""]:
    """Returns a lower bound, by tangents, of f over all λ that are not excluded."""
    to_left = jnp.where(f.slope_left > 0, f.slope_left * jnp.minimum(state.low - state.ratio, 0), 0)
    to_right = jnp.where(f.slope_right < 0, f.slope_right * jnp.maximum(state.high - state.ratio, 0), 0)
    return f.constraint + jnp.minimum(to_left, to_right)


def certify(
    instances: Instances, result: SearchState, num_effective: Int[Array, ""], num_similar: Int[Array, ""]
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """Finds a Γ barely above the value at which f ≥ 0 for all λ, which proves that no policy guarantees more than Γ.

    f ≥ 0 needs to be shown only for the λ that the search has not excluded.

    Returns:
        ``(Γ [], number of passes [])``; Γ is +inf where none is found.
    """

    def raise_slack(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        slack, _, num_passes = state
        value = ScaledValue(result.value.number + slack, result.value.exponent)
        f = evaluate_constraint(instances, result.ratio, value, num_effective, num_similar)
        proved = (constraint_lower_bound(result, f) >= -2 * f.rounding_error) | (result.low > result.high)
        # The shortfall may have been 0 before; rounding still needs a positive slack.
        return jnp.where(proved, slack, 2 * slack + f.rounding_error / result.value_slope), proved, num_passes + 1

    slack, proved, num_passes = jax.lax.while_loop(
        lambda state: ~state[1] & (state[2] < result.num_passes + 60),
        raise_slack,
        (result.shortfall / result.value_slope, jnp.asarray(False), result.num_passes),
    )
    return jnp.where(proved, result.value.number + slack, jnp.inf), num_passes


def bit_midpoint(low: Float[Array, ""], high: Float[Array, ""]) -> Float[Array, ""]:
    """Returns the number halfway between two positive ones in the order of their bit patterns."""
    start = float_to_bits(low)
    return bits_to_float(start + (float_to_bits(high) - start) // 2)


def renormalized(number: Float[Array, ""], exponent: Int[Array, ""]) -> ScaledValue:
    """Returns ``number · 2^exponent`` with a number in [1/2, 1) if it is positive, else unchanged."""
    mantissa, shift = jnp.frexp(number)
    return select_value(number > 0, ScaledValue(mantissa, exponent + shift), ScaledValue(number, exponent))


def select_value(condition: Bool[Array, ""], yes: ScaledValue, no: ScaledValue) -> ScaledValue:
    """``jnp.where`` for values with an exponent."""
    return ScaledValue(jnp.where(condition, yes.number, no.number), jnp.where(condition, yes.exponent, no.exponent))
