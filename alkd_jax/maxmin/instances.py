"""The gains of a game as the solver needs them: shares of a + d, and 1 / (a + d) with an exponent of any size."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.maxmin.game import FloatArray, namespace
from alkd_jax.ops.sums import Split, accurate_sum, split_sum

LOG_2 = (0.693359375, -2.121944400546905827679e-4)
"""log 2 in two parts; the first has so few bits that its product with an exponent is exact in float32."""

LARGEST_EXPONENT = 60

_CPU_BLOCK, _DEVICE_BLOCK = 2**16, 2**22
"""Instances that a pass takes at a time: what stays in a CPU's cache, and what keeps another device busy."""


@flax.struct.dataclass
class Instances:
    """The instances of a game, whatever the range of their gains.

    Attributes:
        mantissa: ``[N]`` 1 / (a + d) is ``mantissa · 2^exponent``.
        exponent: ``[N]`` int32.
        similar: ``[N]`` b / (a + d).
        margin: ``[N]`` (a − b) / (a + d), kept because a difference of shares would lose it.
        incorrect: ``[N]`` d / (a + d).
        has_least_loss: ``[N]`` bool, where d is least.
        least_loss: ``[]`` min d is ``least_loss · 2^least_exponent``.
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
        """Returns 1 / (a + d) in the unit ``2^-exponent``, within the range of its type."""
        return self.mantissa * power_of_two(self.exponent + exponent, self.mantissa.dtype)

    def kink(self) -> Float[Array, " N"]:
        """Returns κ = (b + d) / (a + d)."""
        return self.similar + self.incorrect

    def gain(self) -> Float[Array, " N"]:
        """Returns a / (a + d)."""
        return self.similar + self.margin


def from_gains(effective: FloatArray, similar: FloatArray, incorrect: FloatArray, *, log_gains: bool) -> Instances:
    """Takes gains, or their logarithms, apart; on the host if they are there, to keep float64 until the last step."""
    on_host = namespace(effective, similar, incorrect) is np
    return (_from_gains if on_host else _from_gains_in_one)(effective, similar, incorrect, log_gains=log_gains)


def _from_gains(effective: FloatArray, similar: FloatArray, incorrect: FloatArray, *, log_gains: bool) -> Instances:
    xp = namespace(effective, similar, incorrect)
    top, least = xp.maximum(effective, incorrect), incorrect.min(keepdims=True)
    if log_gains:
        inverse, exponent = split_exponential(-top)
        least_loss, least_exponent = split_exponential(least)
        gain, loss = xp.exp(effective - top), xp.exp(incorrect - top)
        lesser, margin = xp.exp(similar - top), -gain * xp.expm1(similar - effective)
    else:
        mantissa, exponent = xp.frexp(top)
        inverse, exponent = 1 / mantissa, -exponent
        least_loss, least_exponent = xp.frexp(least)
        gain, loss, lesser, margin = effective / top, incorrect / top, similar / top, (effective - similar) / top
    total = gain + loss
    numbers = [jnp.asarray(array, float) for array in (inverse / total, lesser / total, margin / total, loss / total)]
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


_from_gains_in_one = jax.jit(_from_gains, static_argnames="log_gains")
"""One program: step by step, what is worked out on the way would take as much memory again as the game."""


def split_exponential(logarithm: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Returns mantissa and exponent of ``exp(logarithm)``; the mantissa is about 1."""
    xp = namespace(logarithm)
    exponent = xp.round(logarithm / sum(LOG_2))
    return xp.exp((logarithm - exponent * LOG_2[0]) - exponent * LOG_2[1]), exponent


def is_proportional(effective: FloatArray, similar: FloatArray, incorrect: FloatArray, *, log_gains: bool) -> bool:
    """Returns whether b and d are fixed shares of a, up to the rounding of the arrays."""
    xp = namespace(effective, similar, incorrect)
    spacing = float(jnp.finfo(np.result_type(effective.dtype, np.float32)).eps)
    for gain in (similar, incorrect):
        ratio = gain - effective if log_gains else gain / effective
        size = xp.maximum(abs(gain), abs(effective)).max() if log_gains else ratio.max()
        if not ratio.max() - ratio.min() <= 4 * spacing * size:
            return False
    return True


def power_of_two(exponent: Int[Array, "*shape"], dtype: jnp.dtype) -> Float[Array, "*shape"]:
    """Returns ``2^exponent`` exactly, 0 where it is out of range below, and at most 2^60."""
    info = jnp.finfo(dtype)
    integer = jnp.int64 if info.bits == 64 else jnp.int32
    biased = jnp.clip(exponent, info.minexp - 1, LARGEST_EXPONENT).astype(integer) + (1 - info.minexp)
    return jax.lax.bitcast_convert_type(biased << info.nmant, dtype)


class Value(NamedTuple):
    """A value of the game, ``number · 2^exponent``."""

    number: Float[Array, ""]
    exponent: Int[Array, ""]


class Totals(NamedTuple):
    """What one pass over the instances finds at (λ, Γ).

    Attributes:
        excess: f, the room that the adversary has left.
        noise: about what rounding does to f.
        growth: f_Γ, in the unit of Γ.
        left: slope of f in λ towards smaller λ.
        right: slope of f in λ towards larger λ.
        before: the largest kink below λ; -inf where there is none.
        after: the least kink above λ, or 1; +inf for λ = 1.
    """

    excess: Float[Array, ""]
    noise: Float[Array, ""]
    growth: Float[Array, ""]
    left: Float[Array, ""]
    right: Float[Array, ""]
    before: Float[Array, ""]
    after: Float[Array, ""]


def evaluate_constraint(
    instances: Instances,
    ratio: Float[Array, ""],
    value: Value,
    num_effective: Int[Array, ""],
    num_similar: Int[Array, ""],
) -> Totals:
    """Passes once over the instances, a block of them at a time, for f and its slopes at (λ, Γ)."""
    shares = in_blocks(functools.partial(_look, ratio=ratio, value=value), instances)
    ones = jnp.sum(shares.ones, dtype=jnp.int32) - num_effective
    ratios = jnp.sum(shares.ratios, dtype=jnp.int32) - num_similar
    excess = sum(split_sum(shares.rest)) + ((ones + ratios) - (1 - ratio) * ratios)
    rounded = jnp.sum(shares.rounded) + jnp.abs((1 - ratio) * ratios)
    left = jnp.sum(shares.left) - num_similar
    right = left + jnp.sum(shares.on_kink)
    at_end = ratio >= 1
    return Totals(
        excess=excess,
        noise=jnp.finfo(left.dtype).eps / 2 * rounded,
        growth=jnp.sum(shares.growth),
        left=left,
        right=jnp.where(at_end, jnp.inf, right),
        before=jnp.max(shares.before),
        after=jnp.where(at_end, jnp.inf, jnp.min(shares.after)),
    )


class Shares(NamedTuple):
    """What blocks of instances add to :class:`Totals`; leaves are ``[M]``.

    Attributes:
        rest: what f has beside ones and ratios, in two parts.
        ones: instances that count 1 in f.
        ratios: instances that count λ.
        rounded: size of what is rounded.
        growth: of f_Γ.
        left: of the slope towards smaller λ.
        on_kink: what the slope towards larger λ has more.
        before: the largest kink below λ.
        after: the least kink above λ, or 1.
    """

    rest: Split
    ones: Int[Array, "*blocks"]
    ratios: Int[Array, "*blocks"]
    rounded: Float[Array, "*blocks"]
    growth: Float[Array, "*blocks"]
    left: Float[Array, "*blocks"]
    on_kink: Float[Array, "*blocks"]
    before: Float[Array, "*blocks"]
    after: Float[Array, "*blocks"]


def in_blocks(work: Callable[[Instances, Bool[Array, " C"]], Any], instances: Instances) -> Any:
    """Goes through the instances so many at a time that what is worked out on the way stays small.

    Args:
        work: of a block, and which of its instances count: the last block starts early enough to be whole.
        instances: the game.

    Returns:
        What ``work`` gives, with a leading axis of blocks.
    """
    num = instances.mantissa.shape[0]
    size = min(num, _CPU_BLOCK if jax.default_backend() == "cpu" else _DEVICE_BLOCK)

    def of_block(number: Int[Array, ""]) -> Any:
        start = jnp.minimum(number * size, num - size)
        block = jax.tree.map(
            lambda array: jax.lax.dynamic_slice_in_dim(array, start, size) if array.ndim else array, instances
        )
        return work(block, start + jnp.arange(size) >= number * size)

    return jax.lax.map(of_block, jnp.arange(-(-num // size), dtype=jnp.int32))


def _look(instances: Instances, counts: Bool[Array, " C"], *, ratio: Float[Array, ""], value: Value) -> Shares:
    """The shares of a block."""
    weight, kink, gain = instances.weights(value.exponent), instances.kink(), instances.gain()
    level = value.number * weight
    is_free, is_below = level >= gain, level <= instances.similar
    # The best of an instance on the left of λ is similar (y), or mixed where Γ exceeds b; else effective only (x).
    left_of, x, lack = kink < ratio, jnp.maximum(level + instances.incorrect, 0), gain - level
    margin = jnp.maximum(instances.margin, jnp.finfo(weight.dtype).tiny)
    y = jnp.where(is_below, x / kink, jnp.where(is_free, 0, lack / margin))
    similar, mixed, single = left_of & is_below, left_of & ~is_below & ~is_free, ~left_of & ~is_free
    # Terms near 1 or λ are counted and summed as what they lack of it, so that their number costs no digits.
    mostly_similar, mostly_effective = y > 0.5, x > 0.5
    counts_one = is_free | (single & mostly_effective) | (mixed & ~mostly_similar)
    counts_ratio = (similar | mixed) & mostly_similar
    of_similar = ratio * jnp.where(mostly_similar, (level - instances.similar) / kink, y)
    of_mixed = (1 - ratio) * jnp.where(mostly_similar, (level - instances.similar) / margin, -y)
    of_single = jnp.where(mostly_effective, -lack, x)
    rest = jnp.where(similar, of_similar, jnp.where(mixed, of_mixed, jnp.where(single, of_single, 0)))
    steepness = jnp.where(is_free, 0, slope(instances, ratio, level))
    rest = jnp.where(counts, rest, 0)
    return Shares(
        rest=split_sum((rest, jnp.zeros_like(rest))),
        ones=jnp.sum(counts_one & counts, dtype=jnp.int32),
        ratios=jnp.sum(counts_ratio & counts, dtype=jnp.int32),
        rounded=jnp.sum(steepness * jnp.minimum(x, gain), where=counts),
        growth=jnp.sum(weight * steepness, where=counts),
        left=jnp.sum(y, where=left_of & counts),
        on_kink=jnp.sum(y, where=(kink == ratio) & counts),
        before=jnp.max(kink, where=left_of & counts, initial=-jnp.inf),
        after=jnp.min(kink, where=(kink > ratio) & counts, initial=1),
    )


def slope(instances: Instances, ratio: Float[Array, ""], level: Float[Array, " N"]) -> Float[Array, " N"]:
    """Returns a + d times the derivative in Γ of an instance's term of f, where Γ < a."""
    margin = jnp.maximum(instances.margin, jnp.finfo(level.dtype).tiny)
    on_left = jnp.where(level <= instances.similar, ratio / instances.kink(), (1 - ratio) / margin)
    return jnp.where(instances.kink() < ratio, on_left, 1)


def log_policy(
    instances: Instances, ratio: Float[Array, ""], origin: Value, unit: Int[Array, ""]
) -> tuple[Float[Array, " N"], Float[Array, ""]]:
    """Makes a policy of the derivatives in Γ at (λ, Γ).

    Returns:
        ``(log p [N], price [])``: the price of an effective label at which p has its guarantee, in the unit ``2^unit``.
    """
    weight = instances.weights(origin.exponent)
    level = origin.number * weight
    factor = jnp.where(level >= instances.gain(), 0, slope(instances, ratio, level))
    total = accurate_sum(factor * weight)
    exponent = instances.exponent + origin.exponent
    mantissa = jnp.log(factor * instances.mantissa) - jnp.log(total)
    policy = exponent * LOG_2[0] + (exponent * LOG_2[1] + mantissa)
    return policy, jnp.ldexp(1 / total, origin.exponent - unit)


def guarantee(
    instances: Instances,
    policy: Float[Array, " N"],
    unit: Int[Array, ""],
    price: Float[Array, ""],
    ratio: Float[Array, ""],
    num_effective: Int[Array, ""],
    num_similar: Int[Array, ""],
) -> Float[Array, ""]:
    """What a policy gets at least, by the adversary's dual problem at given prices of the two correct labels.

    ``Σ_s min(p_s a_s − v, p_s b_s − λ v, −p_s d_s) + k_ef v + k_si λ v``

    Args:
        instances: the game.
        policy: ``[N]`` log p.
        unit: the result is in the unit ``2^unit``.
        price: v in that unit; any prices bound the worst case from below, the best ones reach it.
        ratio: λ.
        num_effective: k_ef.
        num_similar: k_si.

    Returns:
        The bound ``[]``, with an error of about the rounding of ``Σ_s p_s (a_s + d_s)``.
    """
    exponent = instances.exponent + unit
    stake = jnp.exp((policy - exponent * LOG_2[0]) - exponent * LOG_2[1]) / instances.mantissa
    of_effective, of_similar = stake - price, stake * instances.kink() - ratio * price
    is_effective = (of_effective < 0) & (of_effective <= of_similar)
    is_similar = (of_similar < 0) & ~is_effective
    share = jnp.where(is_effective, instances.gain(), jnp.where(is_similar, instances.similar, -instances.incorrect))
    # The prices of the many who are not asked cancel those of the counts: in whole numbers they do so exactly.
    effective_short = num_effective - jnp.sum(is_effective, dtype=jnp.int32)
    similar_short = num_similar - jnp.sum(is_similar, dtype=jnp.int32)
    prices = (effective_short + similar_short) * price - similar_short * ((1 - ratio) * price)
    return accurate_sum(stake * share) + prices
