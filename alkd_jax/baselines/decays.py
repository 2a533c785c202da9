"""Weights that fall with a distance, as association rules and session neighbors share them."""

import math
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float, Int

from alkd_jax.checks import check_one_of

_Weights = Float[np.ndarray, "..."]

_DECAYS: Mapping[str, Callable[[np.ndarray], _Weights]] = {
    "same": np.ones_like,
    "div": lambda distance: 1.0 / distance,
    "linear": lambda distance: 1.0 - 0.1 * distance,
    "log": lambda distance: 1.0 / np.log10(distance + 1.7),
    "quadratic": lambda distance: 1.0 / distance**2,
}

WEIGHTINGS = tuple(_DECAYS)
"""Names of the weights: of a distance i ≥ 1 they are 1, 1 / i, 1 − i / 10, 1 / log₁₀(i + 1.7), and 1 / i²."""


def by_distance(distance: Int[np.ndarray, "..."], weighting: str) -> _Weights:
    """Returns the weight of each distance, from 1; "linear" is negative beyond 10, as where it was defined.

    Raises:
        ValueError: the weighting is unknown.
    """
    check_one_of("weighting", weighting, WEIGHTINGS)
    return _DECAYS[weighting](np.asarray(distance, np.float64))


def by_position(position: Int[np.ndarray, " I"], length: int, weighting: str) -> Float[np.ndarray, " I"]:
    """Returns the weights of places in a session of length L: "same" 1, "div" n / L, "quadratic" (n / L)².

    "linear" is ``max(1 − (L − n) / 10, 0)`` and "log" is ``1 / log₁₀(L − n + 1.7)``.

    Args:
        position: n, from 1 to L.
        length: L.
        weighting: one of :data:`WEIGHTINGS`.

    Raises:
        ValueError: the weighting is unknown.
    """
    check_one_of("weighting", weighting, WEIGHTINGS)
    steps = length - position
    match weighting:
        case "same":
            return np.ones(len(position))
        case "linear":
            return np.maximum(1.0 - 0.1 * steps, 0.0)
        case "log":
            return 1.0 / np.log10(steps + 1.7)
    return (position / length) ** (1 if weighting == "div" else 2)


def check_scale(name: str, value: object) -> None:
    """Refuses the scale of an exponential decay that is not positive and finite; None turns the decay off.

    Raises:
        ValueError: it is something else.
    """
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if value is not None and not (is_number and 0 < value < math.inf):  # type: ignore[operator]
        raise ValueError(f"{name} is {value!r}; expected a number above 0, or None for no such weight")
