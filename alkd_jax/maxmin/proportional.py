"""Gains in fixed proportions, b = ρ a and d = η a: all kinks κ coincide, and the game reduces to two two-class games.

Only λ = κ and λ = 1 can be optimal. In the first game an instance contributes ``(Γ + d) / (a + d)`` to f, and 1 where
Γ ≥ a; in the second it contributes ``(Γ + d) / (b + d)``, and 1 where Γ ≥ b. In both, the support of the policy is a
prefix of the instances in descending order of gain, and with g = a or g = b and K correct instances

    ``Γ_k = (K − N + Σ_{s≤k} g_s / (g_s + d_s)) / Σ_{s≤k} 1 / (g_s + d_s)``

rises with k while ``g_k > Γ_{k−1}`` and falls afterwards. One sort and one prefix sum serve all counts; bisection then
finds the best k in O(log N).
"""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alkd_jax.maxmin.instances import Instances


@flax.struct.dataclass
class SortedWeights:
    """Sorted weights of proportional gains and their prefix sums, in one unit; they serve every pair of counts.

    Attributes:
        weight: ``[N]`` 1 / (a + d), ascending: the largest gain first.
        total: ``[N]`` prefix sums of the weights.
        similar: ``[]`` b / (a + d).
        margin: ``[]`` (a − b) / (a + d).
        incorrect: ``[]`` d / (a + d).
    """

    weight: Float[Array, "*batch N"]
    total: Float[Array, "*batch N"]
    similar: Float[Array, "*batch"]
    margin: Float[Array, "*batch"]
    incorrect: Float[Array, "*batch"]


def sort_weights(instances: Instances, exponent: Int[Array, ""]) -> SortedWeights:
    """Sorts the instances by gain and sums their weights, once for all counts."""
    weight = jnp.sort(instances.weights(exponent))
    # The shares are equal up to rounding; those of the instance with the largest weight matter the most.
    reference = jnp.argmax(instances.exponent)
    return SortedWeights(
        weight=weight,
        total=jnp.cumsum(weight),
        similar=instances.similar[reference],
        margin=instances.margin[reference],
        incorrect=instances.incorrect[reference],
    )


def best_prefix(
    table: SortedWeights, num_effective: Int[Array, ""], num_similar: Int[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Solves the two games with two classes and returns the one of larger value, in O(log N).

    Returns:
        ``(λ [], Γ [], resolution [])``; the resolution times the machine epsilon is about the rounding error of Γ.
    """
    num_instances = table.weight.shape[0]
    kink = table.similar + table.incorrect
    ratios = jnp.stack([kink, jnp.ones_like(kink)])
    # Both games are in the unit of f at λ = κ: the second is the first with smaller gains and larger weights.
    gain = jnp.stack([table.similar + table.margin, table.similar])
    num_incorrect = num_instances - num_effective - num_similar
    deficit = jnp.stack([num_incorrect + table.margin * num_similar, kink * num_incorrect])

    def surplus(k: Int[Array, " 2"]) -> Float[Array, " 2"]:
        return k * gain - deficit

    def bisect(_: Int[Array, ""], bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        k = (low + high + 1) // 2
        rises = gain * table.total[k - 2] > surplus(k - 1) * table.weight[k - 1]
        return jnp.where(rises, k, low), jnp.where(rises, high, k - 1)

    start = (jnp.ones(2, jnp.int32), jnp.full(2, num_instances, jnp.int32))
    k, _ = jax.lax.fori_loop(0, num_instances.bit_length(), bisect, start)
    value = surplus(k) / table.total[k - 1]
    best = jnp.argmax(jnp.where(jnp.isfinite(value), value, -jnp.inf))
    return ratios[best], value[best], (k * gain / table.total[k - 1])[best]
