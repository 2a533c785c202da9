"""What serving knows of a kind of packed student: its options, its arrays, and how it scores."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float64, Int, UInt8

Arrays: TypeAlias = Mapping[str, UInt8[np.ndarray, " _"]]
Options: TypeAlias = Mapping[str, Any]
Scorer: TypeAlias = Callable[[Int[np.ndarray, "B N"]], Float64[np.ndarray, "B V1"]]
"""Function of sessions, left-aligned, 0 after the last item, that returns the scores of all items."""
Reached: TypeAlias = Callable[[Int[np.ndarray, " N"]], tuple[Int[np.ndarray, " M"], Float64[np.ndarray, " M"]]]
"""Function of one session that returns the items with a score above 0, in ascending order, and their scores."""
Resident: TypeAlias = tuple[str, Options, Arrays]
"""Kind, options and arrays of the student that stays in memory."""


@dataclasses.dataclass(frozen=True)
class PackedScorer:
    """How a packed student scores sessions.

    Attributes:
        scores: all items of many sessions.
        nbytes: bytes that are held beside the arrays.
        reached: the items with a score above 0 of one session, where these are few; the same numbers as of ``scores``.
    """

    scores: Scorer
    nbytes: int
    reached: Reached | None = None


@dataclasses.dataclass(frozen=True)
class PackedKind:
    """A kind of packed student, in NumPy alone.

    Attributes:
        options: its options with values of their types.
        check: ``check(options, num_items)`` raises ValueError where an option is out of range.
        shapes: ``shapes(options, num_items)`` returns array name → shape.
        scorer: ``scorer(options, arrays, num_items)`` returns how it scores, and raises ValueError where the arrays say
            what cannot be.
        resident: ``resident(options, arrays, num_items)`` returns the student of another kind that stays in memory,
            and raises ValueError as ``scorer`` does; None where the student itself does.
    """

    options: Options
    check: Callable[[Options, int], None]
    shapes: Callable[[Options, int], dict[str, tuple[int, ...]]]
    scorer: Callable[[Options, Arrays, int], PackedScorer]
    resident: Callable[[Options, Arrays, int], Resident] | None = None
