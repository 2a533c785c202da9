"""The adversary's problem: give every instance one of three classes, with fixed counts, at the least total.

Every instance costs A if effective, B if similar and −D if incorrect. The problem has an integral optimum, and a dual
with two prices, ``θ ≥ 0`` between the two correct classes and ``v ≥ 0`` between them and the incorrect one:

    max_{θ, v} Σ_s min(A_s − (θ + v), B_s − v, −D_s) + k_ef (θ + v) + k_si v.

For a fixed θ the best v is an order statistic, and the number of similar instances falls as θ grows. Both searches are
bisections over the bit patterns of floats, which end at the breakpoints themselves, whatever the range of the costs.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.ops.sums import accurate_sum

State = tuple[Array, Array, Array, Array]


@flax.struct.dataclass
class Costs:
    """Costs of the two correct classes against the incorrect one, and how many of each are needed.

    Attributes:
        effective: ``[N]`` A + D.
        similar: ``[N]`` B + D.
        margin: ``[N]`` A − B; −inf bars the similar class, +inf the effective one.
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
    """Minimises ``Σ_ef A + Σ_si B − Σ_in D`` over the assignments with the given counts.

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
    paid = jnp.where(is_effective, effective, jnp.where(is_similar, similar, -incorrect))
    # Ties leave too few or too many in a class: settled at the price to which the tied instances are indifferent.
    effective_short = costs.num_effective - jnp.sum(is_effective, dtype=jnp.int32)
    similar_short = costs.num_similar - jnp.sum(is_similar, dtype=jnp.int32)
    return accurate_sum(paid) + effective_short * (theta + price) + similar_short * price


def optimal_prices(costs: Costs) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Finds dual optimal prices (θ, v).

    An instance is effective if ``margin ≤ θ`` and ``effective < θ + v``, similar if ``margin > θ`` and ``similar < v``,
    else incorrect; only ties keep the numbers of each from being those needed.
    """

    def halve(state: State) -> State:
        theta_low, theta_high, price_low, price_high = state
        theta = theta_low + (theta_high - theta_low) // 2
        low, high = bracket_price(costs, theta, price_low, price_high, hurried=True)
        # θ suffices if ties allow as few similar instances as needed. The best price falls as θ grows, so the bracket
        # found here bounds the prices on the side that is kept.
        few_similar = count_assigned(costs, theta, low)[1] <= costs.num_similar
        suffices = few_similar & (count_assigned(costs, theta, high)[0] >= costs.num_effective)
        return (
            jnp.where(suffices, theta_low, theta),
            jnp.where(suffices, theta, theta_high),
            jnp.where(suffices, low, price_low),
            jnp.where(suffices, price_high, high),
        )

    below_all = -jnp.ones_like(as_bits(jnp.max(costs.effective)))
    largest_theta = jnp.max(costs.margin, where=jnp.isfinite(costs.margin), initial=0.0)
    state = (below_all, as_bits(largest_theta), below_all, as_bits(jnp.max(costs.effective)))
    state = jax.lax.while_loop(lambda state: state[1] - state[0] > 1, halve, state)
    _, theta, price_low, price_high = state
    _, price = bracket_price(costs, theta, price_low, price_high, hurried=False)
    return as_float(theta), as_float(price)


def bracket_price(
    costs: Costs, theta: Int[Array, ""], low: Int[Array, ""], high: Int[Array, ""], *, hurried: bool
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """Narrows the bracket (low, high] of the least price v at which enough instances are correct, for a fixed θ.

    Args:
        costs: the problem.
        theta: bit pattern of θ.
        low: bit pattern of a price too low; -1 is below all.
        high: bit pattern of a price high enough.
        hurried: stop when the bracket settles whether there will be more similar instances than needed; else go on to
            the last bit.

    Returns:
        ``(low, high)``, as bit patterns.
    """

    def goes_on(state: State) -> Bool[Array, ""]:
        low, high, similar_low, similar_high = state
        is_open = (similar_low <= costs.num_similar) & (costs.num_similar < similar_high)
        return (high - low > 1) & (is_open if hurried else True)

    def halve(state: State) -> State:
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
    low, high, *_ = jax.lax.while_loop(goes_on, halve, (low, high, *unknown))
    return low, high


def count_assigned(costs: Costs, theta: Int[Array, ""], price: Int[Array, ""]) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """Counts who would be effective, and who similar, at two prices given as bit patterns, ties included."""
    bound, limit = as_float(theta), as_float(price)
    is_effective = (costs.margin <= bound) & (costs.effective <= bound + limit)
    is_similar = (costs.margin > bound) & (costs.similar <= limit)
    return jnp.sum(is_effective, dtype=jnp.int32), jnp.sum(is_similar, dtype=jnp.int32)


def as_bits(number: Float[Array, "*shape"]) -> Int[Array, "*shape"]:
    """Returns the bit pattern of a float ≥ 0 as an integer, which keeps the order."""
    return jax.lax.bitcast_convert_type(number, jnp.int64 if number.dtype == jnp.float64 else jnp.int32)


def as_float(bits: Int[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns the float of a bit pattern; NaN for -1, which compares as below all."""
    return jax.lax.bitcast_convert_type(bits, jnp.float64 if bits.dtype == jnp.int64 else jnp.float32)
