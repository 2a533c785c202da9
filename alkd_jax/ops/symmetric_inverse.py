"""The inverse of a symmetric positive definite matrix on the host, as one dense array or as half of one.

It is made in place in float64, block after block of rows: LAPACK inverts the block itself, and products update the
rest. Whole matrices are not given to LAPACK, since the Cholesky factorization of OpenBLAS 0.3.30, which SciPy 1.17 has,
ends the process at 24,000 rows.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import lapack
from scipy.sparse import csr_array

_ROWS_OF_BLOCK = 512


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
    """A symmetric matrix in about half the memory: blocks of its rows, each up to the block's last column.

    Attributes:
        blocks: arrays ``[R, E]`` of R successive rows each, with the E columns up to the last of these rows.
    """

    blocks: Sequence[Float[np.ndarray, "_ _"]]

    def __len__(self) -> int:
        """Returns the number of rows M."""
        return sum(map(len, self.blocks))

    def diagonal(self) -> Float[np.ndarray, " M"]:
        """Returns a copy of the diagonal."""
        return np.concatenate([block[:, -len(block) :].diagonal() for block in self.blocks])

    def rows(self, chosen: Int[np.ndarray, " R"]) -> Float[np.ndarray, "R M"]:
        """Returns some rows; what stands behind a row's block are columns of later blocks."""
        found = np.empty((len(chosen), len(self)))
        for block in self.blocks:
            stop = block.shape[1]
            start = stop - len(block)
            inside, before = (chosen >= start) & (chosen < stop), chosen < start
            found[inside, :stop] = block[chosen[inside] - start]
            found[before, start:stop] = block[:, chosen[before]].T
        return found

    def multiplied(self, rows: csr_array) -> Float[np.ndarray, "B M"]:
        """Returns the product of sparse rows ``[B, M]`` and the matrix."""
        used, place = np.unique(rows.indices, return_inverse=True)
        return csr_array((rows.data, place, rows.indptr), shape=(rows.shape[0], len(used))) @ self.rows(used)


SymmetricMatrix: TypeAlias = Full | Packed


def bytes_of(size: int, *, packed: bool) -> int:
    """Returns the number of bytes of a matrix with ``size`` rows."""
    return 8 * (sum((stop - start) * stop for start, stop in _blocks_of(size)) if packed else size**2)


def inverse(matrix: csr_array, ridge: float | int, *, packed: bool = False) -> SymmetricMatrix:
    """Returns ``(G + λI)⁻¹`` of a sparse symmetric G.

    The memory is that of the result, :func:`bytes_of`, and of three blocks of 512 rows. It takes M³ operations.

    Args:
        matrix: ``[M, M]``, G.
        ridge: λ.
        packed: whether only a triangle is stored.

    Raises:
        np.linalg.LinAlgError: the sum is not positive definite in float64.
    """
    size = matrix.shape[0]
    bounds = _blocks_of(size)
    values = None if packed else np.empty((size, size))
    blocks = []
    for start, stop in bounds:
        block = np.empty((stop - start, stop)) if values is None else values[start:stop, :stop]
        block[:] = matrix[start:stop, :stop].toarray()
        block[np.arange(stop - start), np.arange(start, stop)] += ridge
        blocks.append(block)
    _invert(blocks)
    if values is None:
        return Packed(blocks)
    for start, stop in bounds:
        values[:start, start:stop] = values[start:stop, :start].T
    return Full(values)


def _blocks_of(size: int) -> list[tuple[int, int]]:
    """Returns the first row of each block and the one after its last."""
    bounds = [*range(0, size, _ROWS_OF_BLOCK), size]
    return list(itertools.pairwise(bounds))


def _invert(blocks: Sequence[Float[np.ndarray, "_ _"]]) -> None:
    """Inverts a matrix in place, whose block i has its rows up to the diagonal, by sweeping one block after the other.

    To sweep block k of ``A`` with ``D = A_kk`` and ``B = A_·k`` sets ``A ← A − B D⁻¹ Bᵀ`` in all other rows and
    columns, ``A_·k ← B D⁻¹`` and ``A_kk ← −D⁻¹``. When all are swept, A is the negative inverse. D is positive
    definite, since it is a part of a Schur complement.
    """
    size = blocks[-1].shape[1]
    product = np.empty((len(blocks[0]), size))
    for number, block in enumerate(blocks):
        stop = block.shape[1]
        start = stop - len(block)
        pivot = _small_inverse(block[:, start:], start)
        column = np.empty((size, len(block)))
        column[:start] = block[:, :start].T
        for below in blocks[number + 1 :]:
            column[below.shape[1] - len(below) : below.shape[1]] = below[:, start:stop]
        # No update of the block's own columns: they are set below.
        column[start:stop] = 0.0
        for other in blocks:
            if other is not block:
                end = other.shape[1]
                scaled = column[end - len(other) : end] @ pivot
                update = product[: len(other), :end]
                np.matmul(scaled, column[:end].T, out=update)
                other -= update
                if end > stop:
                    other[:, start:stop] = scaled
        block[:, :start] = pivot @ column[:start].T
        block[:, start:] = -pivot
    for block in blocks:
        np.negative(block, out=block)


def _small_inverse(matrix: Float[np.ndarray, "R R"], first: int) -> Float[np.ndarray, "R R"]:
    """Returns the inverse of a block on the diagonal; an error counts rows from ``first``."""
    lower, failed = lapack.dpotrf(matrix, lower=1)
    if not failed:
        lower, failed = lapack.dpotri(lower, lower=1, overwrite_c=1)
    if failed:
        raise np.linalg.LinAlgError(f"row {first + failed} of the matrix depends on the ones before it")
    return np.tril(lower) + np.tril(lower, -1).T
