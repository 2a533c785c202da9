"""A student of packed arrays: a fixed table of counts or of sessions, which is shipped as it is and never trained."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8


@dataclasses.dataclass(frozen=True, eq=False)
class PackedStudent:
    """What is shipped of a student without trained parameters; `alkd_jax.serving.packed` answers from it.

    Attributes:
        kind: how its arrays are read, a key of ``alkd_jax.serving.packed.PACKED_STUDENTS``.
        options: the options of that kind.
        arrays: name → packed numbers, see :mod:`alkd_jax.ops.bit_packing`.
        num_items: V.
    """

    kind: str
    options: Mapping[str, Any]
    arrays: Mapping[str, UInt8[np.ndarray, " _"]]
    num_items: int

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays.values())
