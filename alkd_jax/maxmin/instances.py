"""The gains of a game as shares of a + d, and f(λ, Γ) of :mod:`alkd_jax.maxmin.exact` with its slopes.

The weights 1 / (a + d) are stored as mantissa and exponent, so that gains of any range fit float32.
"""

import functools
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.maxmin.game import FloatArray, array_namespace
from alkd_jax.ops.blocks import reduce_blocks
from alkd_jax.ops.sums import DoubleFloat, accurate_sum, double_float_sum

LOG_2 = (0.693359375, -2.121944400546905827679e-4)
"""log 2 as a sum of two floats; the first has so few bits that its product with an exponent is exact in float32."""

LARGEST_EXPONENT = 60


@flax.struct.dataclass
class Instances:
    """The instances of a game, for gains of any range.

    Attributes:
        mantissa: ``[N]``; 1 / (a + d) is ``mantissa · 2^exponent``.
        exponent: ``[N]`` int32.
        similar: ``[N]`` b / (a + d).
        margin: ``[N]`` (a − b) / (a + d), stored because the difference of two shares would lose its digits.
        incorrect: ``[N]`` d / (a + d).
        has_least_loss: ``[N]`` bool, True where d equals min d.
        least_loss: ``[]``; min d is ``least_loss · 2^least_exponent``.
        least_exponent: ``[]`` int32.
    """

    mantissa: Float[Array, "*batch N"]
    exponent: Int[Array, "*batch N"]
    similar: Float[Array, "*batch N"]
    margin: Float[Array, "*batch N"]
    incorrect: Float[Array, "*batch N"]
    has_least_loss: Bool[Array, "*batch N"]
    least_loss: Float[Array, "*batch"]
    least_exponent: Int[Array, "*batch"]

    def weights(self, exponent: Int[Array, ""]) -> Float[Array, " N"]:
        """Returns ``2^exponent / (a + d)``, at least 0 and at most about 2^60."""
        return self.mantissa * power_of_two(self.exponent + exponent, self.mantissa.dtype)

    def kink(self) -> Float[Array, " N"]:
        """Returns κ = (b + d) / (a + d)."""
        return self.similar + self.incorrect

    def gain(self) -> Float[Array, " N"]:
        """Returns a / (a + d)."""
        return self.similar + self.margin


def from_gains(effective: FloatArray, similar: FloatArray, incorrect: FloatArray, *, log_gains: bool) -> Instances:
    """Makes instances of gains or of their logarithms; NumPy arrays are converted on the host, in their precision."""
    on_host = array_namespace(effective, similar, incorrect) is np
    return (_from_gains if on_host else _from_gains_compiled)(effective, similar, incorrect, log_gains=log_gains)


def _from_gains(effective: FloatArray, similar: FloatArray, incorrect: FloatArray, *, log_gains: bool) -> Instances:
    xp = array_namespace(effective, similar, incorrect)
    top, least = xp.maximum(effective, incorrect), incorrect.min(keepdims=True)
    if log_gains:
        inverse, exponent = split_exponential(-top)
        least_loss, least_exponent = split_exponential(least)
        gain, loss = xp.exp(effective - top), xp.exp(incorrect - top)
        similar_share, margin = xp.exp(similar - top), -gain * xp.expm1(similar - effective)
    else:
        mantissa, exponent = xp.frexp(top)
        inverse, exponent = 1 / mantissa, -exponent
        least_loss, least_exponent = xp.frexp(least)
        gain, loss, similar_share, margin = effective / top, incorrect / top, similar / top, (effective - similar) / top
    total = gain + loss
    numbers = [
        jnp.asarray(array, float) for array in (inverse / total, similar_share / total, margin / total, loss / total)
    ]
    return Instances(
        mantissa=numbers[0],
        exponent=jnp.asarray(exponent, jnp.int32),
        similar=numbers[1],
        margin=numbers[2],
        incorrect=numbers[3],
        has_least_loss=jnp.asarray(incorrect == least),
        least_loss=jnp.asarray(least_loss, float)[0],
        least_exponent=jnp.asarray(least_exponent, jnp.int32)[0],
    )


_from_gains_compiled = jax.jit(_from_gains, static_argnames="log_gains")
"""One program, because the intermediate arrays of separate steps would take as much memory again as the game."""


def split_exponential(logarithm: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Returns a mantissa about 1 and an exponent with ``mantissa · 2^exponent = exp(logarithm)``."""
    xp = array_namespace(logarithm)
    exponent = xp.round(logarithm / sum(LOG_2))
    return xp.exp((logarithm - exponent * LOG_2[0]) - exponent * LOG_2[1]), exponent


def is_proportional(effective: FloatArray, similar: FloatArray, incorrect: FloatArray, *, log_gains: bool) -> bool:
    """Returns whether b/a and d/a are the same for all instances, up to the rounding of the arrays."""
    xp = array_namespace(effective, similar, incorrect)
    spacing = float(jnp.finfo(np.result_type(effective.dtype, np.float32)).eps)
    for gain in (similar, incorrect):
        ratio = gain - effective if log_gains else gain / effective
        size = xp.maximum(abs(gain), abs(effective)).max() if log_gains else ratio.max()
        if not ratio.max() - ratio.min() <= 4 * spacing * size:
            return False
    return True


def power_of_two(exponent: Int[Array, "*shape"], dtype: jnp.dtype) -> Float[Array, "*shape"]:
    """Returns ``2^exponent`` exactly; 0 where that is below the range of the type, and at most 2^60."""
    info = jnp.finfo(dtype)
    integer = jnp.int64 if info.bits == 64 else jnp.int32
    biased = jnp.clip(exponent, info.minexp - 1, LARGEST_EXPONENT).astype(integer) + (1 - info.minexp)
    return jax.lax.bitcast_convert_type(biased << info.nmant, dtype)


class ScaledValue(NamedTuple):
    """A value of the game, ``number · 2^exponent``."""

    number: Float[Array, ""]
    exponent: Int[Array, ""]


class ConstraintValue(NamedTuple):
    """f and its slopes at one (λ, Γ).

    Attributes:
        constraint: f; the adversary can meet the totals in the direction (1, λ) where it is at least 0.
        rounding_error: the approximate size of the rounding error of f.
        value_slope: f_Γ, in the unit of Γ.
        slope_left: the derivative of f in λ from the left.
        slope_right: the derivative of f in λ from the right; +inf for λ = 1.
        kink_below: the largest kink below λ; -inf where there is none.
        kink_above: the least kink above λ, or 1; +inf for λ = 1.
    """

    constraint: Float[Array, ""]
    rounding_error: Float[Array, ""]
    value_slope: Float[Array, ""]
    slope_left: Float[Array, ""]
    slope_right: Float[Array, ""]
    kink_below: Float[Array, ""]
    kink_above: Float[Array, ""]


def evaluate_constraint(
    instances: Instances,
    ratio: Float[Array, ""],
    value: ScaledValue,
    num_effective: Int[Array, ""],
    num_similar: Int[Array, ""],
) -> ConstraintValue:
    """Evaluates f and its slopes at (λ, Γ) in one pass over the instances, a block at a time."""
    of_block = functools.partial(_evaluate_block, ratio=ratio, value=value)
    sums = reduce_blocks(of_block, _add_blocks, instances)
    num_ones, num_ratios = sums.num_ones - num_effective, sums.num_ratios - num_similar
    constraint = sum(sums.remainder) + ((num_ones + num_ratios) - (1 - ratio) * num_ratios)
    magnitude = sums.magnitude + jnp.abs((1 - ratio) * num_ratios)
    slope_left = sums.slope_left - num_similar
    slope_right = slope_left + sums.slope_jump
    ratio_is_one = ratio >= 1
    return ConstraintValue(
        constraint=constraint,
        rounding_error=jnp.finfo(slope_left.dtype).eps / 2 * magnitude,
        value_slope=sums.value_slope,
        slope_left=slope_left,
        slope_right=jnp.where(ratio_is_one, jnp.inf, slope_right),
        kink_below=sums.kink_below,
        kink_above=jnp.where(ratio_is_one, jnp.inf, sums.kink_above),
    )


class BlockSums(NamedTuple):
    """The sums of a block of instances that make up :class:`ConstraintValue`, or ``[M]`` sums of M blocks.

    The terms h_s of f are written as 1, λ or 0 plus a remainder, and the ones and λs are counted, so that their number
    does not cost digits.

    Attributes:
        remainder: sum of the remainders, as a sum of two floats.
        num_ones: terms written as 1 plus a remainder.
        num_ratios: terms written as λ plus a remainder.
        magnitude: sum of the sizes of the rounded terms.
        value_slope: contribution to f_Γ.
        slope_left: contribution to the derivative in λ from the left.
        slope_jump: what kinks at λ itself add to the derivative from the right.
        kink_below: the largest kink below λ.
        kink_above: the least kink above λ, or 1.
    """

    remainder: DoubleFloat
    num_ones: Int[Array, "*blocks"]
    num_ratios: Int[Array, "*blocks"]
    magnitude: Float[Array, "*blocks"]
    value_slope: Float[Array, "*blocks"]
    slope_left: Float[Array, "*blocks"]
    slope_jump: Float[Array, "*blocks"]
    kink_below: Float[Array, "*blocks"]
    kink_above: Float[Array, "*blocks"]


def _add_blocks(sums: BlockSums) -> BlockSums:
    """The sums of all blocks, from those of each."""
    added = jax.tree.map(lambda part: jnp.sum(part, dtype=part.dtype), sums)
    return added._replace(
        remainder=double_float_sum(sums.remainder),
        kink_below=jnp.max(sums.kink_below),
        kink_above=jnp.min(sums.kink_above),
    )


def _evaluate_block(
    instances: Instances, counts: Bool[Array, " C"], *, ratio: Float[Array, ""], value: ScaledValue
) -> BlockSums:
    """The sums of one block; ``counts`` excludes instances that another block holds too."""
    weight, kink, gain = instances.weights(value.exponent), instances.kink(), instances.gain()
    level = value.number * weight  # Γ as a share of a + d, as gain, similar and incorrect are
    is_unbound, is_below_similar = level >= gain, level <= instances.similar
    # x and y are the best point of the polygon of an instance. For κ < λ it is similar only (y), or a mixture where
    # Γ > b; for κ ≥ λ it is effective only (x). Where Γ ≥ a the constraint does not bind and x = 1.
    kink_is_below, x, gap = kink < ratio, jnp.maximum(level + instances.incorrect, 0), gain - level
    margin = jnp.maximum(instances.margin, jnp.finfo(weight.dtype).tiny)
    y = jnp.where(is_below_similar, x / kink, jnp.where(is_unbound, 0, gap / margin))
    similar_only = kink_is_below & is_below_similar
    is_mixture = kink_is_below & ~is_below_similar & ~is_unbound
    effective_only = ~kink_is_below & ~is_unbound
    # Terms nearer to 1 or λ than to 0 are counted, and only their differences from 1 or λ are summed. x and y are not
    # compared with 1/2 but Γ with the number where they are 1/2: a program that computes x twice, for the count and for
    # the sum, may round it in two ways.
    effective_is_near_one = level > 0.5 - instances.incorrect
    similar_is_near_one = jnp.where(is_below_similar, level > kink / 2 - instances.incorrect, level < gain - margin / 2)
    near_one = is_unbound | (effective_only & effective_is_near_one) | (is_mixture & ~similar_is_near_one)
    near_ratio = (similar_only | is_mixture) & similar_is_near_one
    similar_part = ratio * jnp.where(similar_is_near_one, (level - instances.similar) / kink, y)
    mixed_part = (1 - ratio) * jnp.where(similar_is_near_one, (level - instances.similar) / margin, -y)
    effective_part = jnp.where(effective_is_near_one, -gap, x)
    remainder = jnp.where(
        similar_only, similar_part, jnp.where(is_mixture, mixed_part, jnp.where(effective_only, effective_part, 0))
    )
    own_slope = jnp.where(is_unbound, 0, scaled_value_slope(instances, ratio, level))
    remainder = jnp.where(counts, remainder, 0)
    return BlockSums(
        remainder=double_float_sum((remainder, jnp.zeros_like(remainder))),
        num_ones=jnp.sum(near_one & counts, dtype=jnp.int32),
        num_ratios=jnp.sum(near_ratio & counts, dtype=jnp.int32),
        magnitude=jnp.sum(own_slope * jnp.minimum(x, gain), where=counts),
        value_slope=jnp.sum(weight * own_slope, where=counts),
        slope_left=jnp.sum(y, where=kink_is_below & counts),
        slope_jump=jnp.sum(y, where=(kink == ratio) & counts),
        kink_below=jnp.max(kink, where=kink_is_below & counts, initial=-jnp.inf),
        kink_above=jnp.min(kink, where=(kink > ratio) & counts, initial=1),
    )


def scaled_value_slope(instances: Instances, ratio: Float[Array, ""], level: Float[Array, " N"]) -> Float[Array, " N"]:
    """Returns ``(a_s + d_s) ∂h_s/∂Γ`` for the terms h_s of f, where Γ < a_s."""
    margin = jnp.maximum(instances.margin, jnp.finfo(level.dtype).tiny)
    on_left = jnp.where(level <= instances.similar, ratio / instances.kink(), (1 - ratio) / margin)
    return jnp.where(instances.kink() < ratio, on_left, 1)


def policy_from_slopes(
    instances: Instances, ratio: Float[Array, ""], origin: ScaledValue, unit: Int[Array, ""]
) -> tuple[Float[Array, " N"], Float[Array, ""]]:
    """The policy ``p_s ∝ ∂h_s/∂Γ`` at (λ, Γ).

    Returns:
        ``(log p [N], v [])``: v is the adversary's price of an effective label at which :func:`dual_bound` is tight for
        p, in the unit ``2^unit``.
    """
    weight = instances.weights(origin.exponent)
    level = origin.number * weight
    factor = jnp.where(level >= instances.gain(), 0, scaled_value_slope(instances, ratio, level))
    total = accurate_sum(factor * weight)
    exponent = instances.exponent + origin.exponent
    mantissa = jnp.log(factor * instances.mantissa) - jnp.log(total)
    log_policy = exponent * LOG_2[0] + (exponent * LOG_2[1] + mantissa)
    return log_policy, jnp.ldexp(1 / total, origin.exponent - unit)


def dual_bound(
    instances: Instances,
    log_policy: Float[Array, " N"],
    unit: Int[Array, ""],
    price: Float[Array, ""],
    ratio: Float[Array, ""],
    num_effective: Int[Array, ""],
    num_similar: Int[Array, ""],
) -> Float[Array, ""]:
    """A lower bound of the worst case of a policy: the adversary's dual problem at given prices of the correct labels.

    ``Σ_s min(p_s a_s − v, p_s b_s − λ v, −p_s d_s) + k_ef v + k_si λ v``

    Args:
        instances: the game.
        policy: ``[N]`` log p.
        unit: exponent of the unit ``2^unit`` of price and result.
        price: v; every price ≥ 0 gives a lower bound, and the optimal one gives the worst case itself.
        ratio: λ, the price of a similar label over that of an effective one.
        num_effective: k_ef.
        num_similar: k_si.

    Returns:
        The bound ``[]``, with an error of about the rounding of ``Σ_s p_s (a_s + d_s)``.
    """
    exponent = instances.exponent + unit
    stakes = jnp.exp((log_policy - exponent * LOG_2[0]) - exponent * LOG_2[1]) / instances.mantissa
    # Products are compared with products. A program that computes a class twice, for the sum and for the count, may
    # fuse a product and a difference in one of them only, and an instance on the boundary would be in two classes.
    is_effective = (stakes < price) & (stakes * instances.margin <= (1 - ratio) * price)
    is_similar = (stakes * instances.kink() < ratio * price) & ~is_effective
    share = jnp.where(is_effective, instances.gain(), jnp.where(is_similar, instances.similar, -instances.incorrect))
    # The prices of instances outside the support cancel those of the counts; integer arithmetic cancels them exactly.
    effective_short = num_effective - jnp.sum(is_effective, dtype=jnp.int32)
    similar_short = num_similar - jnp.sum(is_similar, dtype=jnp.int32)
    prices = (effective_short + similar_short) * price - similar_short * ((1 - ratio) * price)
    return accurate_sum(stakes * share) + prices
