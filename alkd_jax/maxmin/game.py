"""The selection game: the type of its solutions, and the checks of its arguments.

The LLM's answer about an instance is effective, similar or incorrect; it then gains ``a``, gains ``b`` or loses ``d``.
Of N instances only the number in each class is known. The value of the game is

    max_{p ∈ simplex} min_{c ∈ C} Σ_s p_s (a_s c_s^ef + b_s c_s^si − d_s c_s^in),

where ``C`` is the set of assignments of one class to each instance with the three given counts.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.checks import check_count, check_where, is_concrete

FloatArray = Float[Array, "..."] | Float[np.ndarray, "..."]
BoolArray = Bool[Array, "..."] | Bool[np.ndarray, "..."]
IntArray = Int[Array, "..."] | Int[np.ndarray, "..."]
Count = int | Int[Array, "..."] | Int[np.ndarray, "..."]

LARGEST_GAIN = 1e30
"""The largest gain, whose inverse is the least one; results and policies stay within the range of float32."""

LARGEST_LOG_GAIN = 1e4
"""The largest size of a gain's logarithm: float32 rounds larger ones by a thousandth, and so the gains."""

_GAIN_RANGE = f"a positive, finite number from {1 / LARGEST_GAIN:g} to {LARGEST_GAIN:g}"

LEAST_LOSS = 0
"""The value is −min d: the policy is uniform over the instances of least loss."""

POOLED = 1
"""θ = 1/2: effective and similar labels have the same price, and effective gains do not matter."""

SPLIT = 2
"""θ > 1/2: effective labels have a higher price than similar ones."""


@flax.struct.dataclass
class Solution:
    """A policy of the selection game with bounds of its value.

    Value, lower and upper are in the unit ``exp(log_scale)``.

    Attributes:
        log_policy: ``[N]`` natural logarithm of the probability of selecting an instance, in the caller's order; -inf
            outside the support.
        value: ``[]`` the worst-case gain that the method claims for its policy.
        lower: ``[]`` the exact worst case of the policy, over every assignment with the given counts.
        upper: ``[]`` an upper bound of the worst case of every policy; +inf where the method proves none.
        log_scale: ``[]`` logarithm of that unit; 0 unless the gains were given as logarithms.
        support_size: ``[]`` int32, number of instances with a positive probability.
        theta: ``[]`` θ in [1/2, 1], the adversary's price of an effective label over the sum of the prices of an
            effective and a similar one; nan where no such price is known.
        case: ``[]`` int32, the case of the exact solution: :data:`LEAST_LOSS`, :data:`POOLED` or :data:`SPLIT`;
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
    """Refuses gains that do not define a game; the values of traced arrays are not checked.

    Args:
        gains: name → ``[N]``, up to :data:`LARGEST_GAIN`, or logarithms, up to :data:`LARGEST_LOG_GAIN` in size.
        log_gains: whether the arrays are logarithms.

    Raises:
        ValueError: the shapes differ or are not ``[N]`` with N ≥ 1, or a number is out of its range.
    """
    shapes = {name: np.shape(gain) for name, gain in gains.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 or shape[0] < 1 for shape in shapes.values()):
        listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ValueError(f"shapes are {listed}; expected one [N] with N ≥ 1 for all")
    for name, gain in gains.items():
        # A NaN is in no range, and so is refused too.
        least, most = (-LARGEST_LOG_GAIN, LARGEST_LOG_GAIN) if log_gains else (1 / LARGEST_GAIN, LARGEST_GAIN)
        expected = f"a finite logarithm from {least:g} to {most:g}" if log_gains else _GAIN_RANGE
        check_where((gain >= least) & (gain <= most), name, gain, expected)


def check_order(similar_gain: FloatArray, effective_gain: FloatArray) -> None:
    """Refuses a similar gain that is not below the effective gain of its instance.

    Raises:
        ValueError: some ``b_s ≥ a_s``.
    """
    check_where(similar_gain < effective_gain, "similar_gain", similar_gain, "less than effective_gain there")


def check_counts(num_instances: int, **counts: Count) -> None:
    """Refuses class counts that are impossible for N instances; traced counts are not checked.

    Raises:
        ValueError: a count is negative, or the sum of the counts exceeds N.
    """
    concrete = {name: count for name, count in counts.items() if is_concrete(count)}
    check_count(0, **concrete)
    concrete = {name: int(count) for name, count in concrete.items()}
    if sum(concrete.values()) > num_instances:
        listed = " + ".join(f"{name} {count}" for name, count in concrete.items())
        raise ValueError(
            f"{listed} is {sum(concrete.values())}; expected at most {num_instances}, the number of instances"
        )


def check_solution(solution: Solution) -> Solution:
    """Returns a solution whose numbers are finite; a traced one is not checked.

    Raises:
        FloatingPointError: a number is not; an upper bound may be infinite where no search has looked for one.
    """
    numbers = {"value": solution.value, "lower": solution.lower, "upper": solution.upper}
    for name, number in numbers.items():
        if not is_concrete(number) or (name == "upper" and int(solution.num_passes) == 0):
            continue
        if not math.isfinite(float(number)):
            raise FloatingPointError(
                f"{name} of the solution is {float(number)}; expected a finite number: the gains differ too much for "
                "float32"
            )
    return solution


def check_power_gains(
    exponent: float | int, similar_ratio: float, incorrect_ratio: float | int, num_sessions: int
) -> None:
    """Refuses parameters of gains ``rank^−μ`` that are out of range.

    Args:
        exponent: μ; the largest gain is ``N^μ`` times the least.
        similar_ratio: b/a.
        incorrect_ratio: d/a.
        num_sessions: N.

    Raises:
        ValueError: there is no session, or a parameter is out of its range.
    """
    check_count(1, num_sessions=num_sessions)
    most = LARGEST_LOG_GAIN / math.log(max(num_sessions, 2))
    if not 0 <= exponent <= most:
        raise ValueError(f"exponent is {exponent}; expected a finite number of at least 0 and at most {most:.0f}")
    if not 0 < similar_ratio < 1:
        raise ValueError(f"similar_ratio is {similar_ratio}; expected a number between 0 and 1")
    if not 1 / LARGEST_GAIN <= incorrect_ratio <= LARGEST_GAIN:
        raise ValueError(f"incorrect_ratio is {incorrect_ratio}; expected {_GAIN_RANGE}")


def check_ratios(ratios: Sequence[float | int]) -> None:
    """Refuses ratios of the three classes that are not three finite numbers of at least 0 with a positive sum.

    Raises:
        ValueError: they are not.
    """
    are_numbers = len(ratios) == 3 and not any(isinstance(ratio, bool | np.bool_ | str) for ratio in ratios)
    if not are_numbers or not all(0 <= ratio < math.inf for ratio in ratios) or not sum(ratios) > 0:
        raise ValueError(f"ratios are {ratios}; expected three numbers of at least 0 that are not all 0")


def array_namespace(*arrays: object) -> Any:
    """Returns jax.numpy if any array is a JAX array, else numpy, which keeps the float64 of arrays on the host."""
    return jnp if any(isinstance(array, jax.Array) for array in arrays) else np
