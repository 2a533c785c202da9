"""Checks of arguments, with one wording for every error: ``name is X; expected …``.

Checks run on the host, before anything is traced, and load neither JAX nor any other library than NumPy.
"""

import contextlib
import math
import operator
import sys
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

_MAX_PADDED, _MAX_PADDING = 2**26, 64

LARGEST_RANK = 2**31 - 1
"""The largest int32, the type of ranks."""


def check_count(least: int, **numbers: object) -> None:
    """Refuses what is no whole number, and whole numbers below a bound.

    Args:
        least: the smallest number allowed.
        **numbers: name → number, of Python, NumPy or JAX; a bool is no number.

    Raises:
        ValueError: a number is below ``least``, has a fraction, or is of another type.

    Example:
        >>> check_count(1, k=2.5)
        Traceback (most recent call last):
        ValueError: k is 2.5; expected a whole number of at least 1
    """
    for name, number in numbers.items():
        if not _is_whole(number):
            raise ValueError(f"{name} is {number!r}; expected a whole number of at least {least}")
        if operator.index(number) < least:  # type: ignore[arg-type]
            raise ValueError(f"{name} is {number}; expected at least {least}")


def check_at_least(least: float | int, **numbers: float | int) -> None:
    """Refuses numbers below a bound, and those that are not finite.

    Args:
        least: the smallest number allowed.
        **numbers: name → number.

    Raises:
        ValueError: a number is below ``least``, infinite or NaN.

    Example:
        >>> check_at_least(0, damping=-0.5)
        Traceback (most recent call last):
        ValueError: damping is -0.5; expected at least 0
    """
    for name, number in numbers.items():
        if not least <= number < math.inf:
            suffix = " and finite" if number == math.inf else ""
            raise ValueError(f"{name} is {number}; expected at least {least}{suffix}")


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


def check_share(name: str, share: float | int) -> None:
    """Refuses what is no share above 0 and up to 1.

    Args:
        name: of the share, for the error.
        share: any number.

    Raises:
        ValueError: the share is outside of (0, 1].

    Example:
        >>> check_share("recent", 0)
        Traceback (most recent call last):
        ValueError: recent is 0; expected a number in (0, 1]
    """
    if not 0 < share <= 1:
        raise ValueError(f"{name} is {share}; expected a number in (0, 1]")


def check_rates(**rates: object) -> None:
    """Refuses a rate, such as a learning rate, that is negative or not finite in float32; schedules pass.

    Args:
        **rates: name → number, or a function of the step.

    Raises:
        ValueError: a number is out of range or is NaN.
    """
    largest = float(np.finfo(np.float32).max)
    check_between(0, largest, **{name: rate for name, rate in rates.items() if isinstance(rate, float | int)})


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
    """Refuses an array of ids that leaves ``least..most``, unless the array is traced and cannot be looked at.

    Args:
        name: of the array.
        array: integers of any shape; an empty array passes.
        least: the smallest id allowed.
        most: the largest id allowed.

    Raises:
        ValueError: an id is outside, or the numbers are not of an integer type.
    """
    if not is_concrete(array) or np.size(array) == 0:
        return
    check_integers(name, array)
    # An array on a device is reduced there: a copy on the host may be large, and does not exist for several processes.
    with _evaluated():
        low, high = int(np.min(array)), int(np.max(array))
    if low < least or high > most:
        raise ValueError(f"{name} span {low}..{high}; expected {least}..{most}")


def check_ranks(name: str, ranks: Any, *, most: int = LARGEST_RANK) -> None:
    """Refuses what are no ranks: the positions in a list, counted from 1.

    Args:
        name: of the array.
        ranks: an array of any shape, of NumPy or JAX; the values of traced arrays are not checked.
        most: the largest rank allowed.

    Raises:
        ValueError: a rank is below 1 or above ``most``, or the numbers are not of an integer type.
    """
    check_integers(name, ranks)
    if is_concrete(ranks):
        with _evaluated():
            check_where((ranks >= 1) & (ranks <= most), name, ranks, f"at least 1 and at most {most}")


def check_integers(name: str, array: Any) -> None:
    """Refuses an array whose type is no integer type, such as ranks with a fraction, NaN or bool.

    Raises:
        ValueError: it is of another type.
    """
    dtype = np.asarray(array).dtype if not hasattr(array, "dtype") else array.dtype
    if not np.issubdtype(dtype, np.integer):
        raise ValueError(f"{name} are numbers of type {dtype}; expected an integer type")


def check_finite(name: str, array: Any) -> None:
    """Refuses an array with a NaN or an infinity, unless the array is traced and cannot be looked at.

    Args:
        name: of the array.
        array: numbers of any shape; an empty array passes. It is reduced where it is, on the host or on a device.

    Raises:
        ValueError: a number is not finite; the error names its index.
    """
    if not is_concrete(array) or np.size(array) == 0:
        return
    # Minimum and maximum are NaN if any number is, and need no memory of the array's size.
    with _evaluated():
        extremes = float(np.min(array)), float(np.max(array))
    if not all(map(math.isfinite, extremes)):
        array = np.asarray(array)
        check_where(np.isfinite(array), name, array, "a finite number")


def check_padding(lengths: Sequence[int], names: Sequence[str]) -> None:
    """Refuses lists that would take far more memory padded to the longest one than their items need.

    Args:
        lengths: number of items of each list.
        names: how an error names each list, such as its file and line.

    Raises:
        ValueError: the padded lists would hold more than 2^26 numbers, and 64 times as many as there are items.
    """
    longest = max(lengths, default=0)
    if longest * len(lengths) > max(_MAX_PADDED, _MAX_PADDING * sum(lengths)):
        raise ValueError(
            f"{names[list(lengths).index(longest)]}: number of items is {longest} in one of {len(lengths)} lists, "
            f"which have {sum(lengths)} in all; expected lists of similar lengths, since all are padded to the longest"
        )


def check_sessions(name: str, sessions: Any, num_items: int) -> None:
    """Refuses sessions whose arrays do not belong together, or hold what is no item: an index would be clamped.

    Args:
        name: of the sessions.
        sessions: :class:`alkd_jax.types.Sessions`.
        num_items: V, the number of items.

    Raises:
        ValueError: there are no sessions, shapes or types do not fit, an id is out of range, or the mask is True at
            padding.
    """
    shape = np.shape(sessions.items)
    if len(shape) != 2:
        raise ValueError(f"{name} items have shape {shape}; expected (sessions, length)")
    if shape[0] == 0:
        raise ValueError(f"{name} is empty; expected at least one session")
    for field, expected in (("mask", shape), ("target", shape[:1]), ("session_id", shape[:1])):
        if np.shape(getattr(sessions, field)) != expected:
            found = np.shape(getattr(sessions, field))
            raise ValueError(f"{name} {field} has shape {found}; expected {expected}, as items have {shape}")
    if np.dtype(sessions.mask.dtype) != bool:
        raise ValueError(f"{name} mask is of type {sessions.mask.dtype}; expected bool")
    check_span(f"{name} items", sessions.items, 0, num_items)
    check_span(f"{name} targets", sessions.target, 1, num_items)
    is_masked_padding = sessions.mask & (sessions.items == 0)
    if bool(is_masked_padding.any()):
        row = int(is_masked_padding.any(1).argmax())
        raise ValueError(f"{name} session {row} has padding, item 0, where its mask is True; expected an item")


def check_first_targets(name: str, first_target: Any, length: Any) -> None:
    """Refuses indices of first targets that do not belong to sessions of these lengths, or leave no item before them.

    Args:
        name: of the indices.
        first_target: ``[N]`` index of the first item to predict in each session.
        length: ``[N]`` number of items of each session.

    Raises:
        ValueError: the numbers of sessions differ, or an index is outside ``1..length - 1``.
    """
    if np.shape(first_target) != np.shape(length):
        raise ValueError(f"{name} has shape {np.shape(first_target)}; expected {np.shape(length)}, one per session")
    check_integers(name, first_target)
    check_where(
        (first_target >= 1) & (first_target < length),
        name,
        first_target,
        "at least 1 and less than the number of items of its session",
    )


def check_held_out(name: str, held_out: Any, num_items: int) -> None:
    """Refuses held-out sequences whose arrays do not belong together, or hold what is no item.

    Args:
        name: of the sequences.
        held_out: :class:`alkd_jax.types.HeldOutSequences`.
        num_items: V, the number of items.

    Raises:
        ValueError: there are no sessions, one has fewer than two items, shapes or types do not fit, or an item or a
            first target is out of range.
    """
    items, offsets = np.asarray(held_out.sequences.items), np.asarray(held_out.sequences.offsets)
    if items.ndim != 1 or offsets.ndim != 1 or len(offsets) < 2:
        raise ValueError(f"{name} has shapes {items.shape} and {offsets.shape} of items and offsets; expected sessions")
    check_integers(f"{name} offsets", offsets)
    length = np.diff(offsets)
    if offsets[0] != 0 or offsets[-1] != len(items):
        raise ValueError(f"{name} offsets run from {offsets[0]} to {offsets[-1]}; expected from 0 to {len(items)}")
    check_where(length >= 2, f"{name} session lengths", length, "at least 2, an input and the target")
    check_span(f"{name} items", items, 1, num_items)
    check_first_targets(f"{name} first_target", np.asarray(held_out.first_target), length)
    if np.shape(held_out.session_id) != length.shape:
        raise ValueError(f"{name} session_id has shape {np.shape(held_out.session_id)}; expected {length.shape}")
    check_integers(f"{name} session_id", held_out.session_id)
    check_times(name, held_out.sequences)


def check_times(name: str, sequences: Any) -> None:
    """Refuses times that are not one whole number for each item; sequences may have none.

    Args:
        name: of the sequences.
        sequences: :class:`alkd_jax.types.Sequences`.

    Raises:
        ValueError: the shape or the type is another.
    """
    if sequences.time is None:
        return
    if np.shape(sequences.time) != np.shape(sequences.items):
        raise ValueError(
            f"{name} time has shape {np.shape(sequences.time)}; expected {np.shape(sequences.items)}, one time per item"
        )
    check_integers(f"{name} time", sequences.time)


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
        value = np.asarray(array[tuple(first)]).item()
        shown = f"{value:g}" if isinstance(value, float) else value
        raise ValueError(f"{name}{first} is {shown}; expected {expected}")


def is_concrete(array: object) -> bool:
    """Returns whether values can be looked at: False inside ``jit``, ``vmap`` and ``grad``."""
    jax = sys.modules.get("jax")
    return jax is None or not isinstance(array, jax.core.Tracer)


def _evaluated() -> contextlib.AbstractContextManager[None]:
    """Within it JAX computes with arrays at once, also while it traces a function that holds them as constants."""
    jax = sys.modules.get("jax")
    return contextlib.nullcontext() if jax is None else jax.ensure_compile_time_eval()


def _is_whole(number: object) -> bool:
    try:
        operator.index(number)  # type: ignore[arg-type]
    except TypeError:
        return False
    return np.asarray(number).dtype != bool
