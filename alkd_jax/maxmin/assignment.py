"""The adversary's assignment problem: one of three classes for each instance, with fixed counts, at the least cost.

An instance costs A if effective, B if similar and −D if incorrect. The linear relaxation has an integral optimum, and
its dual has two prices: ``v ≥ 0`` of a similar label and ``θ + v``, with ``θ ≥ 0``, of an effective one:

    max_{θ, v} Σ_s min(A_s − (θ + v), B_s − v, −D_s) + k_ef (θ + v) + k_si v.

For a fixed θ the best v is an order statistic, and the number of similar instances falls as θ grows. Both prices are
found by bisection over the bit patterns of floats. It ends at the breakpoints themselves, for costs of any range.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.ops.sums import accurate_sum

State = tuple[Array, Array, Array, Array]


@flax.struct.dataclass
class Costs:
    """Costs of the two correct classes relative to the incorrect one, and the required counts.

    Attributes:
        effective: ``[N]`` A + D.
        similar: ``[N]`` B + D.
        margin: ``[N]`` A − B; −inf where no instance may be similar, +inf where none may be effective.
        num_effective: k_ef.
        num_similar: k_si.
    """

    effective: Float[Array, "*batch N"]
    similar: Float[Array, "*batch N"]
    margin: Float[Array, "*batch N"]
    num_effective: Int[Array, "*batch"]
    num_similar: Int[Array, "*batch"]


@jax.jit
def least_cost(
    effective: Float[Array, " N"],
    similar: Float[Array, " N"],
    incorrect: Float[Array, " N"],
    num_effective: Int[Array, ""],
    num_similar: Int[Array, ""],
) -> Float[Array, ""]:
    """Minimizes ``Σ_ef A + Σ_si B − Σ_in D`` over the assignments with the given counts.

    Args:
        effective: ``[N]`` A ≥ 0.
        similar: ``[N]`` B, 0 ≤ B ≤ A.
        incorrect: ``[N]`` D ≥ 0.
        num_effective: k_ef ≥ 0.
        num_similar: k_si ≥ 0; k_ef + k_si ≤ N.

    Returns:
        The minimum ``[]``, exact to rounding.
    """
    none_effective, none_similar = num_effective == 0, num_similar == 0
    costs = Costs(
        effective=effective + incorrect,
        similar=similar + incorrect,
        margin=jnp.where(none_similar, -jnp.inf, jnp.where(none_effective, jnp.inf, effective - similar)),
        num_effective=jnp.asarray(num_effective, jnp.int32),
        num_similar=jnp.asarray(num_similar, jnp.int32),
    )
    theta, price = optimal_prices(costs)
    is_effective = (costs.margin <= theta) & (costs.effective < theta + price)
    is_similar = (costs.margin > theta) & (costs.similar < price)
    cost = jnp.where(is_effective, effective, jnp.where(is_similar, similar, -incorrect))
    # Ties leave too few or too many instances in a class. Tied instances cost the same in either class at these prices,
    # so the difference in counts is paid for at the prices.
    effective_short = costs.num_effective - jnp.sum(is_effective, dtype=jnp.int32)
    similar_short = costs.num_similar - jnp.sum(is_similar, dtype=jnp.int32)
    return accurate_sum(cost) + effective_short * (theta + price) + similar_short * price


def optimal_prices(costs: Costs) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Finds optimal dual prices (θ, v).

    An instance is effective if ``margin ≤ θ`` and ``effective < θ + v``, similar if ``margin > θ`` and ``similar < v``,
    else incorrect. At the optimal prices the number of instances in each class differs from the required one by ties
    only.
    """

    def bisect(state: State) -> State:
        theta_low, theta_high, price_low, price_high = state
        theta = theta_low + (theta_high - theta_low) // 2
        low, high = bracket_price(costs, theta, price_low, price_high, until_decided=True)
        # θ is large enough if some way to break ties has as few similar instances as required. The best price falls as
        # θ grows, so this bracket also bounds the prices of the remaining θ.
        few_enough_similar = count_assigned(costs, theta, low)[1] <= costs.num_similar
        is_large_enough = few_enough_similar & (count_assigned(costs, theta, high)[0] >= costs.num_effective)
        return (
            jnp.where(is_large_enough, theta_low, theta),
            jnp.where(is_large_enough, theta, theta_high),
            jnp.where(is_large_enough, low, price_low),
            jnp.where(is_large_enough, price_high, high),
        )

    bits_below_zero = -jnp.ones_like(float_to_bits(jnp.max(costs.effective)))
    largest_theta = jnp.max(costs.margin, where=jnp.isfinite(costs.margin), initial=0.0)
    state = (bits_below_zero, float_to_bits(largest_theta), bits_below_zero, float_to_bits(jnp.max(costs.effective)))
    state = jax.lax.while_loop(lambda state: state[1] - state[0] > 1, bisect, state)
    _, theta, price_low, price_high = state
    _, price = bracket_price(costs, theta, price_low, price_high, until_decided=False)
    return bits_to_float(theta), bits_to_float(price)


def bracket_price(
    costs: Costs, theta: Int[Array, ""], low: Int[Array, ""], high: Int[Array, ""], *, until_decided: bool
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """Narrows the bracket (low, high] of the least price v at which enough instances are correct, for a fixed θ.

    Args:
        costs: the problem.
        theta: bit pattern of θ.
        low: bit pattern of a price that is too low; -1 stands for one below 0.
        high: bit pattern of a price that is high enough.
        until_decided: stop as soon as the bracket decides whether there are more similar instances than required;
            otherwise narrow it to the last bit.

    Returns:
        ``(low, high)``, as bit patterns.
    """

    def is_unfinished(state: State) -> Bool[Array, ""]:
        low, high, similar_low, similar_high = state
        is_open = (similar_low <= costs.num_similar) & (costs.num_similar < similar_high)
        return (high - low > 1) & (is_open if until_decided else True)

    def bisect(state: State) -> State:
        low, high, similar_low, similar_high = state
        price = low + (high - low) // 2
        num_effective, num_similar = count_assigned(costs, theta, price)
        enough = num_effective + num_similar >= costs.num_effective + costs.num_similar
        return (
            jnp.where(enough, low, price),
            jnp.where(enough, price, high),
            jnp.where(enough, similar_low, num_similar),
            jnp.where(enough, num_similar, similar_high),
        )

    unknown = (jnp.int32(0), jnp.int32(costs.margin.shape[0]))
    low, high, *_ = jax.lax.while_loop(is_unfinished, bisect, (low, high, *unknown))
    return low, high


def count_assigned(costs: Costs, theta: Int[Array, ""], price: Int[Array, ""]) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """Counts the effective and the similar instances, ties included, at two prices given as bit patterns."""
    theta_value, price_value = bits_to_float(theta), bits_to_float(price)
    is_effective = (costs.margin <= theta_value) & (costs.effective <= theta_value + price_value)
    is_similar = (costs.margin > theta_value) & (costs.similar <= price_value)
    return jnp.sum(is_effective, dtype=jnp.int32), jnp.sum(is_similar, dtype=jnp.int32)


def float_to_bits(number: Float[Array, "*shape"]) -> Int[Array, "*shape"]:
    """Returns the bit pattern of a float ≥ 0 as an integer; integers have the order of the floats."""
    return jax.lax.bitcast_convert_type(number, jnp.int64 if number.dtype == jnp.float64 else jnp.int32)


def bits_to_float(bits: Int[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns the float of a bit pattern; NaN for -1, so that no comparison with it holds."""
    return jax.lax.bitcast_convert_type(bits, jnp.float64 if bits.dtype == jnp.int64 else jnp.float32)
