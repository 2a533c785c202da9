"""Gains in fixed proportions, b = ρ a and d = η a: all kinks coincide, and two games with two classes are left.

At λ = κ an instance is free above a and otherwise worth ``(Γ + d) / (a + d)``; at λ = 1 free above b and worth
``(Γ + d) / (b + d)``. Either way only a prefix of the instances in descending order of gain is asked about, and

    ``Γ_k = (K − N + Σ_{s≤k} g_s / (g_s + d_s)) / Σ_{s≤k} 1 / (g_s + d_s)``

rises with k while ``g_k > Γ_{k−1}`` and falls from there on. With one sort and one prefix sum, whatever the counts,
each question costs one look-up, and bisection asks log N of them.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alkd_jax.maxmin.instances import Instances


@flax.struct.dataclass
class SortedWeights:
    """What proportional gains are for every pair of counts, in one unit.

    Attributes:
        weight: ``[N]`` 1 / (a + d), ascending: the largest gain first.
        total: ``[N]`` sums of the first k weights.
        similar: b / (a + d).
        margin: (a − b) / (a + d).
        incorrect: d / (a + d).
    """

    weight: Float[Array, "*batch N"]
    total: Float[Array, "*batch N"]
    similar: Float[Array, "*batch"]
    margin: Float[Array, "*batch"]
    incorrect: Float[Array, "*batch"]


def sort_weights(instances: Instances, exponent: Int[Array, ""]) -> SortedWeights:
    """Sorts the instances by gain and sums their weights, once for all counts."""
    weight = jnp.sort(instances.weights(exponent))
    # The instances with the largest weights have the most precise shares, and matter the most.
    typical = jnp.argmax(instances.exponent)
    return SortedWeights(
        weight=weight,
        total=jnp.cumsum(weight),
        similar=instances.similar[typical],
        margin=instances.margin[typical],
        incorrect=instances.incorrect[typical],
    )


def best_prefix(
    table: SortedWeights, num_effective: Int[Array, ""], num_similar: Int[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Finds the better of the two games with two classes, in O(log N).

    Returns:
        ``(λ [], Γ [], room [])``: the room is ``Γ`` per unit of f, the size of what rounding of f does to Γ.
    """
    num_instances = table.weight.shape[0]
    kink = table.similar + table.incorrect
    ratios = jnp.stack([kink, jnp.ones_like(kink)])
    # Both in the unit of f at λ = κ: the second game is the first with smaller gains and larger weights.
    gain = jnp.stack([table.similar + table.margin, table.similar])
    num_incorrect = num_instances - num_effective - num_similar
    deficit = jnp.stack([num_incorrect + table.margin * num_similar, kink * num_incorrect])

    def surplus(k: Int[Array, " 2"]) -> Float[Array, " 2"]:
        return k * gain - deficit

    def halve(_: Int[Array, ""], bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        k = (low + high + 1) // 2
        rises = gain * table.total[k - 2] > surplus(k - 1) * table.weight[k - 1]
        return jnp.where(rises, k, low), jnp.where(rises, high, k - 1)

    start = (jnp.ones(2, jnp.int32), jnp.full(2, num_instances, jnp.int32))
    k, _ = jax.lax.fori_loop(0, num_instances.bit_length(), halve, start)
    value = surplus(k) / table.total[k - 1]
    best = jnp.argmax(jnp.where(jnp.isfinite(value), value, -jnp.inf))
    return ratios[best], value[best], (k * gain / table.total[k - 1])[best]
