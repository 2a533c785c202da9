"""The inverse of a symmetric positive definite matrix on the host, as one dense array or as half of one.

Both are made in place by a Cholesky factorization in float64. :class:`Packed` has one triangle in LAPACK's rectangular
full packed format, half the memory of :class:`Full` for as many operations; reading its rows takes longer, because half
of a row lies scattered over the array.
"""

import ctypes
import dataclasses
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import cython_lapack, lapack
from scipy.sparse import csr_array

_ENTRIES_AT_A_TIME = 2**22

_capsule_name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", ctypes.pythonapi))
_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


@dataclasses.dataclass(frozen=True, eq=False)
class Full:
    """A symmetric matrix.

    Attributes:
        values: ``[M, M]``.
    """

    values: Float[np.ndarray, "M M"]

    def __len__(self) -> int:
        """Returns the number of rows M."""
        return len(self.values)

    def diagonal(self) -> Float[np.ndarray, " M"]:
        """Returns the diagonal."""
        return self.values.diagonal()

    def multiplied(self, rows: csr_array) -> Float[np.ndarray, "B M"]:
        """Returns the product of sparse rows ``[B, M]`` and the matrix."""
        return rows @ self.values


@dataclasses.dataclass(frozen=True, eq=False)
class Packed:
    """A symmetric matrix P in half the memory, ``8 · M (M + 1) / 2`` bytes.

    With ``h = ⌈M / 2⌉``, the first h columns of P from the diagonal on share the rows of one array with the triangle
    that remains from row and column h on.

    Attributes:
        values: ``[h, 2 ⌊M / 2⌋ + 1]``.
        size: M.
    """

    values: Float[np.ndarray, "H W"]
    size: int

    def __len__(self) -> int:
        """Returns the number of rows M."""
        return self.size

    @property
    def half(self) -> int:
        """The number h of rows of the array."""
        return (self.size + 1) // 2

    @property
    def shift(self) -> int:
        """The place of ``P[0, 0]`` in the first row: 1 for an even M, 0 for an odd one."""
        return 1 - self.size % 2

    def diagonal(self) -> Float[np.ndarray, " M"]:
        """Returns a copy of the diagonal."""
        rows = np.arange(self.half)
        # Row i ≥ h of P ends in the array's row i − (h − 1 + shift).
        rest = np.arange(self.half, self.size) - (self.half - 1 + self.shift)
        return np.concatenate([self.values[rows, rows + self.shift], self.values[rest, rest - 1 + self.shift]])

    def rows(self, chosen: Int[np.ndarray, " R"]) -> Float[np.ndarray, "R M"]:
        """Returns some rows of P."""
        half, shift, size = self.half, self.shift, self.size
        found = np.empty((len(chosen), size))
        found[:, :half] = self.values[:, chosen + shift].T
        for row, place in zip(found, chosen.tolist(), strict=True):
            if place < half:
                row[place:] = self.values[place, place + shift : size + shift]
            else:
                end = place - (half - 1 + shift)
                row[half : place + 1] = self.values[end, : place - half + 1]
                row[place + 1 :] = self.values[end + 1 : size - (half - 1 + shift), place - half]
        return found

    def multiplied(self, rows: csr_array) -> Float[np.ndarray, "B M"]:
        """Returns the product of sparse rows ``[B, M]`` and the matrix."""
        used, place = np.unique(rows.indices, return_inverse=True)
        return csr_array((rows.data, place, rows.indptr), shape=(rows.shape[0], len(used))) @ self.rows(used)


SymmetricMatrix: TypeAlias = Full | Packed


def bytes_of(size: int, *, packed: bool) -> int:
    """Returns the number of bytes of a matrix with ``size`` rows."""
    return 8 * (size * (size + 1) // 2 if packed else size**2)


def inverse(matrix: csr_array, ridge: float | int, *, packed: bool = False) -> SymmetricMatrix:
    """Returns ``(G + λI)⁻¹`` of a sparse symmetric G.

    The memory is that of the result, :func:`bytes_of`, and of a few dense rows of G.

    Args:
        matrix: ``[M, M]``, G.
        ridge: λ.
        packed: whether only a triangle is stored.

    Raises:
        np.linalg.LinAlgError: the sum is not positive definite in float64.
    """
    return _packed_inverse(matrix, ridge) if packed else _full_inverse(matrix, ridge)


def _full_inverse(matrix: csr_array, ridge: float | int) -> Full:
    size = matrix.shape[0]
    values = np.zeros((size, size), order="F")
    block = _rows_at_a_time(size)
    for start in range(0, size, block):
        values[:, start : start + block] = matrix[start : start + block].toarray().T
    values[np.arange(size), np.arange(size)] += ridge
    values, failed = lapack.dpotrf(values, lower=1, overwrite_a=1)
    _check(failed)
    values, failed = lapack.dpotri(values, lower=1, overwrite_c=1)
    _check(failed)
    for start in range(0, size, block):
        stop = min(start + block, size)
        values[:start, start:stop] = values[start:stop, :start].T
        corner = values[start:stop, start:stop]
        corner[:] = np.tril(corner) + np.tril(corner, -1).T
    # Symmetric: rows of the transpose are its columns, which lie together in memory.
    return Full(values.T)


def _packed_inverse(matrix: csr_array, ridge: float | int) -> Packed:
    size = matrix.shape[0]
    packed = Packed(np.empty(((size + 1) // 2, size // 2 * 2 + 1)), size)
    values, half, shift = packed.values, packed.half, packed.shift
    block = _rows_at_a_time(size)
    for start in range(0, half, block):
        stop = min(start + block, half)
        values[start:stop, shift : size + shift] = matrix[start:stop].toarray()
    first = half - 1 + shift
    for start in range(half, size, block):
        for row, dense in enumerate(matrix[start : start + block, half:].toarray(), start):
            values[row - first, : row - half + 1] = dense[: row - half + 1]
    rows, rest = np.arange(half), np.arange(half, size) - first
    values[rows, rows + shift] += ridge
    values[rest, rest - 1 + shift] += ridge
    for step in ("dpftrf", "dpftri"):
        _check(_call_packed(step, values, size))
    return packed


def _call_packed(name: str, values: Float[np.ndarray, "H W"], size: int) -> int:
    """Calls a LAPACK function of a packed triangle in place, and returns what it says has failed.

    SciPy's Python functions count the entries in 32 bits, and so refuse more than 46,340 rows. LAPACK itself counts the
    rows alone, and is called by the pointer that SciPy offers to compiled code.
    """
    capsule = cython_lapack.__pyx_capi__[name]
    address = _capsule_pointer(capsule, _capsule_name(capsule))
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 5)(address)
    rows, failed = ctypes.c_int(size), ctypes.c_int(0)
    form, triangle = ctypes.c_char(b"N"), ctypes.c_char(b"L")
    function(
        *(ctypes.addressof(value) for value in (form, triangle, rows)), values.ctypes.data, ctypes.addressof(failed)
    )
    return failed.value


def _rows_at_a_time(size: int) -> int:
    return max(1, _ENTRIES_AT_A_TIME // max(size, 1))


def _check(failed: int) -> None:
    if failed:
        raise np.linalg.LinAlgError(f"row {failed} of the matrix depends on the ones before it")
