"""Components of vectors against NumPy's singular values, and against what a graph says by hand."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from alkd_jax.models.vector_components import graph_components, principal_components, whitened_components


def vectors(num=60, width=8, seed=0):
    found = np.random.default_rng(seed).normal(size=(num + 1, width)) * np.arange(width, 0, -1)
    found[0] = 0
    return found.astype(np.float32)


def test_principal_components_are_those_of_the_singular_values():
    z = vectors().astype(np.float64)
    found = principal_components(vectors(), 3)
    u, s, _ = np.linalg.svd(z[1:] - z[1:].mean(0), full_matrices=False)
    expected = u[:, :3] * s[:3]
    np.testing.assert_allclose(np.abs(found[1:]), np.abs(expected), rtol=1e-4, atol=1e-4)
    assert not found[0].any()


def test_an_item_without_a_vector_is_left_out():
    z = vectors()
    z[7] = 0
    found, expected = principal_components(z, 3), principal_components(np.delete(z, 7, 0), 3)
    assert not found[7].any()
    np.testing.assert_allclose(np.delete(found, 7, 0), expected, atol=1e-5)


def test_whitened_components_are_uncorrelated_with_variance_1():
    found = whitened_components(vectors(), 8)[1:]
    np.testing.assert_allclose(found.T @ found / 60, np.eye(8), atol=1e-4)
    flat = vectors()
    flat[:, 5:] = 0
    assert not whitened_components(flat, 8)[:, 5:].any(), "noise of rounding is not scaled up"


def test_components_beyond_the_width_are_0():
    found = principal_components(vectors(width=2), 5)
    assert found.shape == (61, 5)
    assert not found[:, 2:].any()


def test_graph_components_are_the_eigenvectors_of_the_written_out_objective():
    rng = np.random.default_rng(1)
    z = vectors(num=20, width=5).astype(np.float64)
    counts = rng.integers(0, 3, (21, 21))
    counts = counts + counts.T
    counts[0] = counts[:, 0] = 0
    found = graph_components(z.astype(np.float32), 2, csr_array(counts.astype(np.float64)), smoothness=0.7)
    centered = np.where(np.arange(21)[:, None] > 0, z - z[1:].mean(0), 0)
    smooth = np.zeros((5, 5))
    for i in range(21):
        for j in range(21):
            d = centered[i] - centered[j]
            smooth += 0.5 * counts[i, j] * np.outer(d, d)
    objective = centered.T @ centered / 20 - 0.7 * smooth / counts.sum()
    values, directions = np.linalg.eig(objective)
    best = directions[:, np.argsort(-values)[:2]]
    np.testing.assert_allclose(np.abs(found), np.abs(centered @ best), atol=1e-3)
    plain = graph_components(z.astype(np.float32), 2, csr_array(counts.astype(np.float64)), smoothness=0.0)
    np.testing.assert_allclose(plain, principal_components(z.astype(np.float32), 2), atol=1e-4)


def test_a_direction_in_which_neighbors_differ_is_avoided():
    # Two directions of equal variance; items that occur together differ in the first one alone.
    z = np.array([[0, 0], [1, 1], [-1, 1], [1, -1], [-1, -1]], np.float32)
    counts = np.zeros((5, 5))
    counts[1, 2] = counts[2, 1] = counts[3, 4] = counts[4, 3] = 1
    found = graph_components(z, 1, csr_array(counts))
    np.testing.assert_allclose(np.abs(found[1:, 0]), 1, atol=1e-6)
    assert found[1, 0] == found[2, 0]
    assert found[3, 0] == found[4, 0]


def test_vectors_of_nothing_are_refused():
    with pytest.raises(ValueError, match="all 4 vectors are 0"):
        principal_components(np.zeros((4, 3), np.float32), 2)
    with pytest.raises(ValueError, match="dim is 0"):
        principal_components(vectors(), 0)
