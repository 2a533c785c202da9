"""The exact worst case of a policy over all assignments of classes with given counts."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from alkd_jax.checks import check_where, is_concrete
from alkd_jax.maxmin.assignment import least_cost
from alkd_jax.maxmin.game import (
    Count,
    FloatArray,
    array_namespace,
    check_counts,
    check_gains,
    check_order,
)


def worst_case(
    policy: FloatArray,
    effective_gain: FloatArray,
    similar_gain: FloatArray,
    incorrect_loss: FloatArray,
    *,
    num_effective: Count,
    num_similar: Count,
) -> Float[Array, ""]:
    """The least expected gain of a policy over every assignment with the given counts.

    ``min_{c ∈ C} Σ_s p_s (a_s c_s^ef + b_s c_s^si − d_s c_s^in)``

    Args:
        policy: ``[N]`` probability p of selecting an instance; in [0, 1], sums to 1.
        effective_gain: ``[N]`` a > 0.
        similar_gain: ``[N]`` b, 0 < b < a.
        incorrect_loss: ``[N]`` d > 0.
        num_effective: k_ef, number of effective instances; at least 0.
        num_similar: k_si; the other ``N − k_ef − k_si`` instances are incorrect.

    Returns:
        The worst case ``[]``, exact to the rounding of float32. For gains beyond the range of float32 use
        :func:`log_worst_case`.

    Raises:
        ValueError: an array or a count is out of its range, or shapes differ.

    Reference:
        Du et al., AAAI 2025, the inner problem of the max-min selection.
    """
    gains = {"effective_gain": effective_gain, "similar_gain": similar_gain, "incorrect_loss": incorrect_loss}
    check_gains(gains, log_gains=False)
    check_order(similar_gain, effective_gain)
    check_policy(policy, len(effective_gain))
    check_counts(len(effective_gain), num_effective=num_effective, num_similar=num_similar)
    costs = [policy * gain for gain in gains.values()]
    scale = array_namespace(*costs).maximum(costs[0], costs[2]).max()
    scaled = [jnp.asarray(cost / scale, float) for cost in costs]
    return least_cost(*scaled, num_effective, num_similar) * jnp.asarray(scale, float)


def log_worst_case(
    log_policy: FloatArray,
    log_effective_gain: FloatArray,
    log_similar_gain: FloatArray,
    log_incorrect_loss: FloatArray,
    *,
    num_effective: Count,
    num_similar: Count,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """:func:`worst_case` of logarithms, for gains of any range.

    Args:
        log_policy: ``[N]`` log p, -inf where p is 0; exp sums to 1.
        log_effective_gain: ``[N]`` log a.
        log_similar_gain: ``[N]`` log b, below log a.
        log_incorrect_loss: ``[N]`` log d.
        num_effective: k_ef, number of effective instances; at least 0.
        num_similar: k_si; the other ``N − k_ef − k_si`` instances are incorrect.

    Returns:
        ``(value [], log_scale [])``: the worst case is ``value · exp(log_scale)``.

    Raises:
        ValueError: an array or a count is out of its range, or shapes differ.
    """
    gains = {
        "log_effective_gain": log_effective_gain,
        "log_similar_gain": log_similar_gain,
        "log_incorrect_loss": log_incorrect_loss,
    }
    check_gains(gains, log_gains=True)
    check_order(log_similar_gain, log_effective_gain)
    check_policy(array_namespace(log_policy).exp(log_policy), len(log_effective_gain))
    check_counts(len(log_effective_gain), num_effective=num_effective, num_similar=num_similar)
    log_costs = [log_policy + gain for gain in gains.values()]
    xp = array_namespace(*log_costs)
    log_scale = xp.round(xp.maximum(log_costs[0], log_costs[2]).max())
    scaled = [jnp.exp(jnp.asarray(log_cost - log_scale, float)) for log_cost in log_costs]
    return least_cost(*scaled, num_effective, num_similar), jnp.asarray(log_scale, float)


def check_policy(policy: FloatArray, num_instances: int) -> None:
    """Refuses a policy that is no probability distribution; the values of traced arrays are not checked.

    Raises:
        ValueError: the policy is not ``[N]``, has a negative or NaN entry, or does not sum to 1.
    """
    if np.shape(policy) != (num_instances,):
        raise ValueError(f"policy has shape {list(np.shape(policy))}; expected [{num_instances}], one per instance")
    check_where(policy >= 0, "policy", policy, "a probability")
    total = policy.sum()
    if is_concrete(total) and not abs(total - 1) < 1e-3:
        raise ValueError(f"the sum of policy is {float(total):g}; expected 1")
