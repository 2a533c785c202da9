"""Inverses on the host: both forms are that of the dense matrix, in no more memory than they say."""

import tracemalloc

import numpy as np
import pytest
from scipy.sparse import csr_array, random_array

from alkd_jax.ops import symmetric_inverse
from alkd_jax.ops.symmetric_inverse import Full, Packed, bytes_of, inverse


def gram(size, seed=0):
    rows = random_array((3 * size, size), density=0.1, rng=np.random.default_rng(seed), format="csr")
    return csr_array(rows.T @ rows)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("block", [1, 5, 512])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8, 61, 90])
def test_the_inverse_is_that_of_the_dense_matrix(size, block, packed, monkeypatch):
    monkeypatch.setattr(symmetric_inverse, "_ROWS_OF_BLOCK", block)
    matrix = gram(size)
    expected = np.linalg.inv(matrix.toarray() + 0.7 * np.eye(size))
    found = inverse(matrix, 0.7, packed=packed)
    assert isinstance(found, Packed if packed else Full)
    assert len(found) == size
    np.testing.assert_allclose(found.multiplied(csr_array(np.eye(size))), expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.diagonal(), expected.diagonal(), rtol=1e-10)
    queries = random_array((5, size), density=0.4, rng=np.random.default_rng(1), format="csr")
    np.testing.assert_allclose(found.multiplied(csr_array(queries)), queries @ expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("packed", "share"), [(False, 1.0), (True, 0.5)])
def test_the_memory_is_that_of_the_result_and_a_few_rows(packed, share, monkeypatch):
    size = 1000
    monkeypatch.setattr(symmetric_inverse, "_ROWS_OF_BLOCK", 10)
    matrix = csr_array(np.eye(size))
    tracemalloc.start()
    found = inverse(matrix, 1.0, packed=packed)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert bytes_of(size, packed=packed) == pytest.approx(share * 8 * size**2, rel=2e-2)
    blocks = found.blocks if packed else [found.values]
    assert sum(block.nbytes for block in blocks) == bytes_of(size, packed=packed)
    assert peak < 1.1 * bytes_of(size, packed=packed)


@pytest.mark.parametrize("packed", [False, True])
def test_a_matrix_that_is_not_positive_definite_is_refused(packed):
    with pytest.raises(np.linalg.LinAlgError, match="row 3 of the matrix"):
        inverse(csr_array(np.diag([2.0, 1.0, -3.0, 5.0])), 1.0, packed=packed)
