"""The selection game: what its policies are returned as, and which games are accepted.

N instances with an effective gain ``a``, a similar gain ``b`` and an incorrect loss ``d`` each; only the number of
instances of each class is known. The value of the game is

    max_{p ∈ simplex} min_{c ∈ C} Σ_s p_s (a_s c_s^ef + b_s c_s^si − d_s c_s^in),

where ``C`` holds the assignments of one class to every instance that meet the three counts.
"""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

FloatArray = Float[Array, "..."] | Float[np.ndarray, "..."]
BoolArray = Bool[Array, "..."] | Bool[np.ndarray, "..."]
IntArray = Int[Array, "..."] | Int[np.ndarray, "..."]
Count = int | Int[Array, "..."] | Int[np.ndarray, "..."]

LEAST_LOSS = 0
"""The value is −min d: all probability lies where the loss is least."""

POOLED = 1
"""θ = 1/2: effective and similar labels weigh the same, and effective gains do not matter."""

SPLIT = 2
"""θ > 1/2: effective labels weigh more than similar ones."""


@flax.struct.dataclass
class Solution:
    """A policy of the selection game and what is known of it; a true number is ``number · exp(log_scale)``.

    Attributes:
        log_policy: ``[N]`` natural logarithm of the probability of asking about an instance, in the caller's order;
            -inf outside the support.
        value: ``[]`` what the method that made the policy says it guarantees.
        lower: ``[]`` the exact worst case of the policy, over every assignment with the given counts.
        upper: ``[]`` what no policy can exceed; +inf where the method proves nothing.
        log_scale: ``[]`` logarithm of the unit of value, lower and upper; 0 unless the gains came as logarithms.
        support_size: ``[]`` int32, number of instances with a positive probability.
        theta: ``[]`` θ in [1/2, 1], the adversary's price of an effective label over that of both kinds of correct
            labels together; nan where no such price is known.
        case: ``[]`` int32, which case of the exact solution held: :data:`LEAST_LOSS`, :data:`POOLED` or :data:`SPLIT`;
            -1 for the policies of other methods.
        num_passes: ``[]`` int32, passes over the instances that the search and its proof took; 0 without a search.
    """

    log_policy: Float[Array, "*batch N"]
    value: Float[Array, "*batch"]
    lower: Float[Array, "*batch"]
    upper: Float[Array, "*batch"]
    log_scale: Float[Array, "*batch"]
    support_size: Int[Array, "*batch"]
    theta: Float[Array, "*batch"]
    case: Int[Array, "*batch"]
    num_passes: Int[Array, "*batch"]


def check_gains(gains: Mapping[str, FloatArray], *, log_gains: bool) -> None:
    """Refuses gains that make no game; arrays inside ``jit`` or ``vmap`` pass unseen.

    Args:
        gains: name → ``[N]``, positive and finite, or finite logarithms.
        log_gains: whether the arrays are logarithms.

    Raises:
        ValueError: the shapes differ or are not ``[N]`` with N ≥ 1, or a number is out of its range.
    """
    shapes = {name: np.shape(gain) for name, gain in gains.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 or shape[0] < 1 for shape in shapes.values()):
        listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ValueError(f"shapes are {listed}; expected one [N] with N ≥ 1 for all")
    for name, gain in gains.items():
        finite = namespace(gain).isfinite(gain)
        good = finite if log_gains else finite & (gain > 0)
        refuse_where(~good, name, gain, "a finite logarithm" if log_gains else "a positive, finite number")


def check_order(similar_gain: FloatArray, effective_gain: FloatArray) -> None:
    """Refuses a similar gain that is not below the effective gain of its instance.

    Raises:
        ValueError: some ``b_s ≥ a_s``.
    """
    refuse_where(similar_gain >= effective_gain, "similar_gain", similar_gain, "less than effective_gain there")


def check_counts(num_instances: int, **counts: Count) -> None:
    """Refuses class counts that N instances cannot meet; counts inside ``jit`` or ``vmap`` pass unseen.

    Raises:
        ValueError: a count is negative, or together they exceed N.
    """
    concrete = {name: int(count) for name, count in counts.items() if is_concrete(count)}
    for name, count in concrete.items():
        if count < 0:
            raise ValueError(f"{name} is {count}; expected at least 0")
    if sum(concrete.values()) > num_instances:
        listed = " + ".join(f"{name} {count}" for name, count in concrete.items())
        raise ValueError(f"{listed} is more than the game's {num_instances} instances")


def refuse_where(bad: BoolArray, name: str, array: FloatArray | IntArray, expected: str) -> None:
    """Names the first bad number of an array in a ValueError, unless the array cannot be looked at."""
    if is_concrete(bad) and bool(bad.any()):
        first = [int(i) for i in np.unravel_index(int(bad.argmax()), bad.shape)]
        raise ValueError(f"{name}{first} is {array[tuple(first)]:g}; expected {expected}")


def is_concrete(array: object) -> bool:
    """Returns whether values can be looked at: False inside ``jit``, ``vmap`` and ``grad``."""
    return not isinstance(array, jax.core.Tracer)


def namespace(*arrays: object) -> Any:
    """Returns numpy where every array lives on the host (its float64 is worth keeping), else jax.numpy."""
    return jnp if any(isinstance(array, jax.Array) for array in arrays) else np
