"""Policies on a prefix of the instances sorted by gain: the paper's closed form and its two-class ancestor, RAD-BC.

Both take ``p_s ∝ 1 / (g_s + d_s)`` on the first k instances, where ``g`` is the gain that is lost when the adversary
makes an instance incorrect, and choose the k with the largest ``Γ_k``.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.maxmin.adversary import log_worst_case
from alkd_jax.maxmin.game import Count, FloatArray, Solution, check_counts, check_gains, check_order, namespace
from alkd_jax.ops.sums import accurate_sum


def closed_form(
    effective_gain: FloatArray,
    similar_gain: FloatArray,
    incorrect_loss: FloatArray,
    *,
    num_effective: Count,
    num_similar: Count,
    log_gains: bool = False,
    drop_last: bool = False,
) -> Solution:
    """The paper's policy, which is not the optimum.

    With a sorted in descending order, ``g = b`` on the first k_si + k_in instances and ``g = a`` on the rest,

        ``Γ_k = (Σ_{s≤k} g_s / (g_s + d_s) − k_in) / Σ_{s≤k} 1 / (g_s + d_s)``,  ``k* = argmax_k Γ_k``,
        ``p_s ∝ 1 / (g_s + d_s)`` for ``s ≤ k*``, else 0.

    Args:
        effective_gain: ``[N]`` a > 0, in any order.
        similar_gain: ``[N]`` b, 0 < b < a.
        incorrect_loss: ``[N]`` d > 0.
        num_effective: k_ef, number of effective instances; at least 0.
        num_similar: k_si; the other ``N − k_ef − k_si`` instances are incorrect.
        log_gains: whether the three arrays are natural logarithms, as steep gains should be; the solution then has a
            scale.
        drop_last: leave out the k*-th instance, as the released code does.

    Returns:
        The policy with ``value = Γ_k``, which the paper calls its guarantee, and its exact worst case: the two agree
        where b and d are fixed shares of a, as in the paper, and otherwise ``lower`` may be less.

    Raises:
        ValueError: an array or a count is out of its range, or shapes differ.

    Reference:
        Du et al., AAAI 2025, Definition 1 and Algorithm 1 (with ``G_s`` where the printed argmax has ``g_s``).
    """
    gains = {"effective_gain": effective_gain, "similar_gain": similar_gain, "incorrect_loss": incorrect_loss}
    check_gains(gains, log_gains=log_gains)
    check_order(similar_gain, effective_gain)
    check_counts(len(effective_gain), num_effective=num_effective, num_similar=num_similar)
    logs, unit, excess = normalise(*gains.values(), log_gains=log_gains)
    solution = _closed_form(*logs, num_effective, num_similar, drop_last=drop_last)
    return rescale(solution, unit, excess, log_gains=log_gains)


def rad_bc(
    correct_gain: FloatArray,
    incorrect_loss: FloatArray,
    *,
    num_correct: Count,
    log_gains: bool = False,
    drop_last: bool = False,
) -> Solution:
    """The policy of the game with two classes, correct and incorrect: optimal there if its value is not too negative.

    With a sorted in descending order, as in :func:`closed_form` with ``g = a`` throughout.

    Args:
        correct_gain: ``[N]`` a > 0, in any order.
        incorrect_loss: ``[N]`` d > 0.
        num_correct: number of correct instances; the others are incorrect. The paper has k_ef + k_si.
        log_gains: whether the two arrays are natural logarithms; the solution then has a scale.
        drop_last: leave out the k*-th instance, as the released code does.

    Returns:
        The policy with its exact worst case in the two-class game; ``upper`` is the value of that game where the policy
        is optimal (``Γ_k* ≥ −min d`` and nothing dropped), else +inf.

    Raises:
        ValueError: an array or the count is out of its range, or shapes differ.

    Reference:
        Baykal et al., Robust active distillation, ICLR 2023; "RAD-BC" in Du et al., AAAI 2025, Table 2.
    """
    gains = {"correct_gain": correct_gain, "incorrect_loss": incorrect_loss}
    check_gains(gains, log_gains=log_gains)
    check_counts(len(correct_gain), num_correct=num_correct)
    logs, unit, excess = normalise(*gains.values(), log_gains=log_gains)
    solution = _rad_bc(*logs, num_correct, drop_last=drop_last)
    return rescale(solution, unit, excess, log_gains=log_gains)


@functools.partial(jax.jit, static_argnames="drop_last")
def _closed_form(
    effective: Float[Array, " N"],
    similar: Float[Array, " N"],
    incorrect: Float[Array, " N"],
    num_effective: Int[Array, ""],
    num_similar: Int[Array, ""],
    *,
    drop_last: bool,
) -> Solution:
    num_instances = effective.shape[0]
    order = jnp.argsort(effective, descending=True, stable=True)
    hardest = jnp.arange(num_instances) < num_instances - num_effective
    forfeit = jnp.where(hardest, similar[order], effective[order])
    num_incorrect = num_instances - num_effective - num_similar
    ordered, value, log_scale, support_size = prefix_policy(
        forfeit, incorrect[order], num_incorrect, drop_last=drop_last
    )
    log_policy = jnp.zeros_like(ordered).at[order].set(ordered, unique_indices=True)
    lower, lower_scale = log_worst_case(
        log_policy, effective, similar, incorrect, num_effective=num_effective, num_similar=num_similar
    )
    return Solution(
        log_policy=log_policy,
        value=value,
        lower=lower * jnp.exp(lower_scale - log_scale),
        upper=jnp.full_like(value, jnp.inf),
        log_scale=log_scale,
        support_size=support_size,
        theta=jnp.full_like(value, jnp.nan),
        case=jnp.full_like(support_size, -1),
        num_passes=jnp.zeros_like(support_size),
    )


@functools.partial(jax.jit, static_argnames="drop_last")
def _rad_bc(
    correct: Float[Array, " N"], incorrect: Float[Array, " N"], num_correct: Int[Array, ""], *, drop_last: bool
) -> Solution:
    order = jnp.argsort(correct, descending=True, stable=True)
    ordered, value, log_scale, support_size = prefix_policy(
        correct[order], incorrect[order], correct.shape[0] - num_correct, drop_last=drop_last
    )
    log_policy = jnp.zeros_like(ordered).at[order].set(ordered, unique_indices=True)
    lower, lower_scale = log_worst_case(
        log_policy, correct, correct, incorrect, num_effective=num_correct, num_similar=0
    )
    lower = lower * jnp.exp(lower_scale - log_scale)
    # The adversary's answer c_s = min(1, (Γ + d_s) / (a_s + d_s)) proves Γ optimal where no c_s would be negative.
    proved = (value >= -jnp.exp(jnp.min(incorrect) - log_scale)) & (not drop_last)
    return Solution(
        log_policy=log_policy,
        value=value,
        lower=lower,
        upper=jnp.where(proved, jnp.maximum(value, lower), jnp.inf),
        log_scale=log_scale,
        support_size=support_size,
        theta=jnp.full_like(value, jnp.nan),
        case=jnp.full_like(support_size, -1),
        num_passes=jnp.zeros_like(support_size),
    )


def prefix_policy(
    forfeit: Float[Array, " N"], incorrect: Float[Array, " N"], num_incorrect: Int[Array, ""], *, drop_last: bool
) -> tuple[Float[Array, " N"], Float[Array, ""], Float[Array, ""], Int[Array, ""]]:
    """Finds k* and the policy on the first k* instances.

    Args:
        forfeit: ``[N]`` log g, in the order of the prefix.
        incorrect: ``[N]`` log d.
        num_incorrect: k_in.
        drop_last: use k* − 1 (at least 1) in place of k*.

    Returns:
        ``(log_policy [N], value [], log_scale [], support_size [])``; ``Γ_k = value · exp(log_scale)``.
    """
    num_instances = forfeit.shape[0]
    log_weight = -jnp.logaddexp(forfeit, incorrect)
    share = jax.nn.sigmoid(forfeit - incorrect)
    log_total = jax.lax.cumlogsumexp(log_weight)
    surplus = jnp.cumsum(share) - num_incorrect
    log_value = jnp.where(is_peak(forfeit, log_total, surplus) & (surplus > 0), jnp.log(surplus) - log_total, -jnp.inf)
    # Γ rises to the end where it is never positive, because every gain is.
    support_size = jnp.where(surplus[-1] > 0, jnp.argmax(log_value).astype(jnp.int32) + 1, num_instances)
    if drop_last:
        support_size = jnp.maximum(support_size - 1, 1)
    # The prefix sums have served to find k*; its own sums are taken again without their rounding errors.
    inside = jnp.arange(num_instances) < support_size
    log_unit = jnp.round(jnp.max(log_weight, where=inside, initial=-jnp.inf))
    total = accurate_sum(jnp.where(inside, jnp.exp(log_weight - log_unit), 0.0))
    value = (accurate_sum(jnp.where(inside, share, 0.0)) - num_incorrect) / total
    log_policy = jnp.where(inside, log_weight - log_unit - jnp.log(total), -jnp.inf)
    return log_policy, value, -log_unit, support_size


def is_peak(
    forfeit: Float[Array, " N"], log_total: Float[Array, " N"], surplus: Float[Array, " N"]
) -> Bool[Array, " N"]:
    """Returns where Γ_k exceeds both its neighbours.

    ``Γ_k`` is an average of ``Γ_{k−1}`` and ``g_k``, so it rises exactly where ``g_k > Γ_{k−1}``. Near its maximum Γ is
    flat in float32; this comparison is not.
    """
    rises = jnp.exp(forfeit[1:] + log_total[:-1]) > surplus[:-1]
    always = jnp.ones(1, bool)
    return jnp.concatenate([always, rises]) & ~jnp.concatenate([rises, ~always])


def normalise(
    *gains: FloatArray, log_gains: bool
) -> tuple[list[Float[Array, " N"]], Float[Array, ""], Float[Array, ""]]:
    """Divides gains by the least of the first: most of a policy's weight lies there, so float32 should be finest there.

    Returns:
        ``(logs, unit [], excess [])``: the true logarithms are ``logs + unit + excess``; the unit is a whole number,
        which float32 holds exactly, and the excess at most 1/2 in size.
    """
    xp = namespace(*gains)
    logs = gains if log_gains else [xp.log(gain) for gain in gains]
    least = logs[0].min()
    unit = xp.round(least)
    shifted = [jnp.asarray(log - least, float) for log in logs]
    return shifted, jnp.asarray(unit, float), jnp.asarray(least - unit, float)


def rescale(solution: Solution, unit: Float[Array, ""], excess: Float[Array, ""], *, log_gains: bool) -> Solution:
    """Undoes :func:`normalise`: in the unit of the solution if the gains were logarithms, else in that of the gains."""
    log_scale = solution.log_scale + unit
    factor = jnp.exp(excess + (0.0 if log_gains else log_scale))
    return dataclasses.replace(
        solution,
        value=solution.value * factor,
        lower=solution.lower * factor,
        upper=jnp.where(jnp.isinf(solution.upper), jnp.inf, solution.upper * factor),
        log_scale=log_scale if log_gains else jnp.zeros_like(log_scale),
    )
