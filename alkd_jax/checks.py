"""Checks of arguments, with one wording for every error: ``name is X; expected …``.

Checks run on the host, before anything is traced, and load neither JAX nor any other library than NumPy.
"""

import sys
from collections.abc import Collection
from typing import Any

import numpy as np


def check_at_least(least: float | int, **numbers: float | int) -> None:
    """Refuses numbers below a bound.

    Args:
        least: the smallest number allowed.
        **numbers: name → number.

    Raises:
        ValueError: a number is below ``least`` or is NaN.

    Example:
        >>> check_at_least(1, batch_size=0)
        Traceback (most recent call last):
        ValueError: batch_size is 0; expected at least 1
    """
    for name, number in numbers.items():
        if not number >= least:
            raise ValueError(f"{name} is {number}; expected at least {least}")


def check_between(low: float | int, high: float | int, **numbers: float | int) -> None:
    """Refuses numbers outside ``low..high``; both ends are allowed.

    Args:
        low: the smallest number allowed.
        high: the largest number allowed.
        **numbers: name → number.

    Raises:
        ValueError: a number is outside or is NaN.
    """
    for name, number in numbers.items():
        if not low <= number <= high:
            raise ValueError(f"{name} is {number}; expected from {low} to {high}")


def check_one_of(name: str, value: object, known: Collection[str]) -> None:
    """Refuses a choice that is not known.

    Args:
        name: of the option.
        value: what was given.
        known: the choices.

    Raises:
        ValueError: the value is none of them.
    """
    if value not in known:
        raise ValueError(f"{name} is {value!r}; expected {' or '.join(map(repr, known))}")


def check_span(name: str, array: Any, least: int, most: int) -> None:
    """Refuses an array of ids that leaves ``least..most``.

    Args:
        name: of the array.
        array: integers of any shape; an empty array passes.
        least: the smallest id allowed.
        most: the largest id allowed.

    Raises:
        ValueError: an id is outside.
    """
    if np.size(array) == 0:
        return
    # An array on a device is reduced there: a copy on the host may be large, and does not exist for several processes.
    low, high = int(np.min(array)), int(np.max(array))
    if low < least or high > most:
        raise ValueError(f"{name} span {low}..{high}; expected {least}..{most}")


def check_where(good: Any, name: str, array: Any, expected: str) -> None:
    """Refuses an array by its first bad number, unless the array is traced and cannot be looked at.

    Args:
        good: bool, of the array's shape, True where a number is allowed.
        name: of the array.
        array: the numbers.
        expected: what is allowed, in words.

    Raises:
        ValueError: a number is not allowed; the error names its index and value.
    """
    if is_concrete(good) and not bool(good.all()):
        first = [int(i) for i in np.unravel_index(int((~good).argmax()), good.shape)]
        raise ValueError(f"{name}{first} is {array[tuple(first)]:g}; expected {expected}")


def is_concrete(array: object) -> bool:
    """Returns whether values can be looked at: False inside ``jit``, ``vmap`` and ``grad``."""
    jax = sys.modules.get("jax")
    return jax is None or not isinstance(array, jax.core.Tracer)
