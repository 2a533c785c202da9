"""Packed students without JAX: what is checked of their options and arrays, and how they score."""

from collections.abc import Mapping

import numpy as np

from alkd_jax.serving.packed.counted_table import COUNTED_TABLE
from alkd_jax.serving.packed.packed_kind import Arrays, Options, PackedKind, PackedScorer, Resident
from alkd_jax.serving.packed.sparse_table import SPARSE_TABLE
from alkd_jax.serving.packed.stored_sessions import STORED_SESSIONS
from alkd_jax.serving.student_checks import check_array_shapes, check_option_types

__all__ = [
    "PACKED_STUDENTS",
    "Arrays",
    "Options",
    "PackedKind",
    "PackedScorer",
    "check_arrays",
    "check_options",
    "resident_form",
]

PACKED_STUDENTS: Mapping[str, PackedKind] = {
    "sparse_table": SPARSE_TABLE,
    "counted_table": COUNTED_TABLE,
    "stored_sessions": STORED_SESSIONS,
}
"""Kind of a packed student, which a config names in place of a backbone → how it is read."""


def check_options(kind: str, options: Options, *, num_items: int) -> None:
    """Checks the names, types and ranges of the options of a packed student.

    Raises:
        ValueError: an option is unknown, missing, of another type or out of range.
    """
    check_option_types(kind, options, PACKED_STUDENTS[kind].options)
    PACKED_STUDENTS[kind].check(options, num_items)


def check_arrays(kind: str, options: Options, arrays: Mapping[str, np.ndarray], *, num_items: int) -> None:
    """Checks the names, types and sizes of the arrays of a packed student, whose options were checked.

    Raises:
        ValueError: an array is not one of this student.
    """
    check_array_shapes(arrays, PACKED_STUDENTS[kind].shapes(options, num_items), dtype="uint8")


def resident_form(kind: str, options: Options, arrays: Arrays, *, num_items: int) -> Resident:
    """Returns kind, options and arrays of the student that stays in memory, of checked ones.

    Raises:
        ValueError: the arrays say what cannot be.
    """
    resident = PACKED_STUDENTS[kind].resident
    return (kind, options, arrays) if resident is None else resident(options, arrays, num_items)
