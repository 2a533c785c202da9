"""Policies on a prefix of the instances sorted by gain: the paper's closed form, and RAD-BC for two classes.

Both have ``p_s ∝ 1 / (g_s + d_s)`` on the first k instances, where ``g`` is the gain that is lost when the adversary
makes an instance incorrect, and the k with the largest ``Γ_k``.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.maxmin.adversary import log_worst_case
from alkd_jax.maxmin.game import (
    Count,
    FloatArray,
    Solution,
    array_namespace,
    check_counts,
    check_gains,
    check_order,
    check_solution,
)
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
    """The paper's policy, which is not optimal.

    With a sorted in descending order, ``g = b`` on the first k_si + k_in instances and ``g = a`` on the rest,

        ``Γ_k = (Σ_{s≤k} g_s / (g_s + d_s) − k_in) / Σ_{s≤k} 1 / (g_s + d_s)``,  ``k* = argmax_k Γ_k``,
        ``p_s ∝ 1 / (g_s + d_s)`` for ``s ≤ k*``, else 0.

    Args:
        effective_gain: ``[N]`` a > 0, in any order.
        similar_gain: ``[N]`` b, 0 < b < a.
        incorrect_loss: ``[N]`` d > 0.
        num_effective: k_ef, number of effective instances; at least 0.
        num_similar: k_si; the other ``N − k_ef − k_si`` instances are incorrect.
        log_gains: whether the three arrays are natural logarithms, which steep gains need; the solution then has a
            scale.
        drop_last: whether to leave out the k*-th instance, as the released code does.

    Returns:
        The policy with ``value = Γ_k``, which the paper calls its guarantee, and its exact worst case ``lower``. They
        agree where b/a and d/a are constant, as in the paper; otherwise ``lower`` may be less.

    Raises:
        ValueError: an array or a count is out of its range, or shapes differ.
        FloatingPointError: a result is beyond float32.

    Reference:
        Du et al., AAAI 2025, Definition 1 and Algorithm 1 (with ``G_s`` where the printed argmax has ``g_s``).
    """
    gains = {"effective_gain": effective_gain, "similar_gain": similar_gain, "incorrect_loss": incorrect_loss}
    check_gains(gains, log_gains=log_gains)
    check_order(similar_gain, effective_gain)
    check_counts(len(effective_gain), num_effective=num_effective, num_similar=num_similar)
    logs, unit, remainder = normalize_gains(*gains.values(), log_gains=log_gains)
    solution = _closed_form(*logs, num_effective, num_similar, drop_last=drop_last)
    return check_solution(restore_scale(solution, unit, remainder, log_gains=log_gains))


def rad_bc(
    correct_gain: FloatArray,
    incorrect_loss: FloatArray,
    *,
    num_correct: Count,
    log_gains: bool = False,
    drop_last: bool = False,
) -> Solution:
    """The policy of the game with two classes, correct and incorrect; optimal there if its value is at least −min d.

    With a sorted in descending order, as in :func:`closed_form` with ``g = a`` throughout.

    Args:
        correct_gain: ``[N]`` a > 0, in any order.
        incorrect_loss: ``[N]`` d > 0.
        num_correct: number of correct instances; the others are incorrect. The paper has k_ef + k_si.
        log_gains: whether the two arrays are natural logarithms; the solution then has a scale.
        drop_last: whether to leave out the k*-th instance, as the released code does.

    Returns:
        The policy with its exact worst case in the two-class game; ``upper`` is the value of that game where the policy
        is optimal (``Γ_k* ≥ −min d`` and nothing dropped), else +inf.

    Raises:
        ValueError: an array or the count is out of its range, or shapes differ.
        FloatingPointError: a result is beyond float32.

    Reference:
        Baykal et al., Robust active distillation, ICLR 2023; "RAD-BC" in Du et al., AAAI 2025, Table 2.
    """
    gains = {"correct_gain": correct_gain, "incorrect_loss": incorrect_loss}
    check_gains(gains, log_gains=log_gains)
    check_counts(len(correct_gain), num_correct=num_correct)
    logs, unit, remainder = normalize_gains(*gains.values(), log_gains=log_gains)
    solution = _rad_bc(*logs, num_correct, drop_last=drop_last)
    return check_solution(restore_scale(solution, unit, remainder, log_gains=log_gains))


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
    loses_similar = jnp.arange(num_instances) < num_instances - num_effective
    lost_gain = jnp.where(loses_similar, similar[order], effective[order])
    num_incorrect = num_instances - num_effective - num_similar
    ordered, value, log_scale, support_size = prefix_policy(
        lost_gain, incorrect[order], num_incorrect, drop_last=drop_last
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
    # The adversary's assignment c_s = min(1, (Γ + d_s) / (a_s + d_s)) proves Γ optimal if no c_s is negative.
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
    lost_gain: Float[Array, " N"], incorrect: Float[Array, " N"], num_incorrect: Int[Array, ""], *, drop_last: bool
) -> tuple[Float[Array, " N"], Float[Array, ""], Float[Array, ""], Int[Array, ""]]:
    """Finds k* and the policy on the first k* instances.

    Args:
        forfeit: ``[N]`` log g, in the order of the prefix.
        incorrect: ``[N]`` log d.
        num_incorrect: k_in.
        drop_last: whether to use k* − 1 (at least 1) in place of k*.

    Returns:
        ``(log_policy [N], value [], log_scale [], support_size [])``; ``Γ_k = value · exp(log_scale)``.
    """
    num_instances = lost_gain.shape[0]
    log_weight = -jnp.logaddexp(lost_gain, incorrect)
    share = jax.nn.sigmoid(lost_gain - incorrect)
    log_total = jax.lax.cumlogsumexp(log_weight)
    surplus = jnp.cumsum(share) - num_incorrect
    is_candidate = is_peak(lost_gain, log_total, surplus) & (surplus > 0)
    log_value = jnp.where(is_candidate, jnp.log(surplus) - log_total, -jnp.inf)
    # Where Γ_k is never positive it rises up to k = N, because every gain is positive.
    support_size = jnp.where(surplus[-1] > 0, jnp.argmax(log_value).astype(jnp.int32) + 1, num_instances)
    if drop_last:
        support_size = jnp.maximum(support_size - 1, 1)
    # The sums over the first k* instances are computed again, without the rounding errors of the prefix sums.
    inside = jnp.arange(num_instances) < support_size
    log_unit = jnp.round(jnp.max(log_weight, where=inside, initial=-jnp.inf))
    total = accurate_sum(jnp.where(inside, jnp.exp(log_weight - log_unit), 0.0))
    value = (accurate_sum(jnp.where(inside, share, 0.0)) - num_incorrect) / total
    log_policy = jnp.where(inside, log_weight - log_unit - jnp.log(total), -jnp.inf)
    return log_policy, value, -log_unit, support_size


def is_peak(
    lost_gain: Float[Array, " N"], log_total: Float[Array, " N"], surplus: Float[Array, " N"]
) -> Bool[Array, " N"]:
    """Returns where Γ_k exceeds both Γ_{k−1} and Γ_{k+1}.

    ``Γ_k`` is an average of ``Γ_{k−1}`` and ``g_k``, so it rises exactly where ``g_k > Γ_{k−1}``. Near the maximum the
    values of Γ are equal in float32, while this comparison still decides.
    """
    rises = jnp.exp(lost_gain[1:] + log_total[:-1]) > surplus[:-1]
    always = jnp.ones(1, bool)
    return jnp.concatenate([always, rises]) & ~jnp.concatenate([rises, ~always])


def normalize_gains(
    *gains: FloatArray, log_gains: bool
) -> tuple[list[Float[Array, " N"]], Float[Array, ""], Float[Array, ""]]:
    """Divides all gains by the least of the first array, where most of a policy's weight lies and precision is needed.

    Returns:
        ``(logs, unit [], remainder [])``: the true logarithms are ``logs + unit + remainder``. The unit is an integer,
        which float32 represents exactly; the remainder is in [−1/2, 1/2].
    """
    xp = array_namespace(*gains)
    logs = gains if log_gains else [xp.log(gain) for gain in gains]
    least = logs[0].min()
    unit = xp.round(least)
    shifted = [jnp.asarray(log - least, float) for log in logs]
    return shifted, jnp.asarray(unit, float), jnp.asarray(least - unit, float)


def restore_scale(
    solution: Solution, unit: Float[Array, ""], remainder: Float[Array, ""], *, log_gains: bool
) -> Solution:
    """Undoes :func:`normalize_gains`, by the solution's ``log_scale`` if the gains are logarithms, else by a factor."""
    log_scale = solution.log_scale + unit
    factor = jnp.exp(remainder + (0.0 if log_gains else log_scale))
    return dataclasses.replace(
        solution,
        value=solution.value * factor,
        lower=solution.lower * factor,
        upper=jnp.where(jnp.isinf(solution.upper), jnp.inf, solution.upper * factor),
        log_scale=log_scale if log_gains else jnp.zeros_like(log_scale),
    )
