"""Linear components of the items' vectors in closed form: principal, whitened, and smooth over a graph of items."""

import numpy as np
from jaxtyping import Bool, Float
from scipy.sparse import csr_array

from alkd_jax.checks import check_at_least, check_count


def principal_components(vectors: Float[np.ndarray, "V1 Z"], dim: int) -> Float[np.ndarray, "V1 D"]:
    """``(z_v − z̄) Q``, Q the D eigenvectors of the covariance of z with the largest eigenvalues, the largest first.

    Args:
        vectors: z; an item of which nothing is known has the vector 0, as the padding row, and stays 0.
        dim: D; beyond Z the components are 0.

    Raises:
        ValueError: D is below 1, or no item has a vector.
    """
    centered, has_vector = _centered(vectors)
    return _projected(centered, has_vector, centered.T @ centered / has_vector.sum(), dim)


def whitened_components(vectors: Float[np.ndarray, "V1 Z"], dim: int) -> Float[np.ndarray, "V1 D"]:
    """:func:`principal_components`, each divided by its standard deviation; those without variance are 0.

    Args:
        vectors: z.
        dim: D.

    Raises:
        ValueError: as of :func:`principal_components`.
    """
    components = principal_components(vectors, dim)
    deviation = np.sqrt((components.astype(np.float64) ** 2).sum(0) / _has_vector(vectors).sum())
    is_flat = deviation <= 1e-6 * max(deviation.max(), 1e-30)
    return (components * np.where(is_flat, 0.0, 1.0 / np.where(is_flat, 1.0, deviation))).astype(np.float32)


def graph_components(
    vectors: Float[np.ndarray, "V1 Z"], dim: int, co_occurrence: csr_array, *, smoothness: float = 1.0
) -> Float[np.ndarray, "V1 D"]:
    """Rec-PCA: ``max_Q tr(Qᵀ (Cov(z) − γ zᵀ L z / Σ_ij A_ij) Q)``, ``QᵀQ = I``, the components ``(z_v − z̄) Q``.

    A is the co-occurrence of two items and ``L = diag(Σ_j A_ij) − A`` its Laplacian, so that
    ``zᵀ L z = ½ Σ_ij A_ij (z_i − z_j)(z_i − z_j)ᵀ``: directions are preferred in which items that occur together differ
    little. Dividing by the sum of A, which is our choice, makes both terms means.

    Args:
        vectors: z, of length 1: other lengths would weigh the items.
        dim: D.
        co_occurrence: ``[V1, V1]``, symmetric counts; the diagonal has no effect.
        smoothness: γ, at least 0; 0 gives :func:`principal_components`.

    Raises:
        ValueError: as of :func:`principal_components`, or γ is negative.

    Reference:
        TF-LLMER, arXiv 2604.20490, the principal components with a graph term.
    """
    check_at_least(0, smoothness=smoothness)
    centered, has_vector = _centered(vectors)
    objective = centered.T @ centered / has_vector.sum()
    # Edges to items of which nothing is known say nothing.
    known = has_vector.astype(np.float64)
    adjacency = co_occurrence * known[:, None] * known[None, :]
    adjacency = csr_array(adjacency)
    degree = np.asarray(adjacency.sum(1)).ravel()
    if degree.sum() > 0:
        laplacian = (centered * degree[:, None]).T @ centered - centered.T @ (adjacency @ centered)
        objective = objective - smoothness * laplacian / degree.sum()
    return _projected(centered, has_vector, objective, dim)


def _has_vector(vectors: Float[np.ndarray, "V1 Z"]) -> Bool[np.ndarray, " V1"]:
    return np.any(vectors != 0, axis=1)


def _centered(vectors: Float[np.ndarray, "V1 Z"]) -> tuple[Float[np.ndarray, "V1 Z"], Bool[np.ndarray, " V1"]]:
    """Returns the vectors less their mean in float64, 0 where there is none; and which items have one."""
    has_vector = _has_vector(vectors)
    if not has_vector.any():
        raise ValueError(f"all {len(vectors)} vectors are 0; expected vectors of some items")
    centered = vectors.astype(np.float64) - vectors[has_vector].mean(0, dtype=np.float64)
    return np.where(has_vector[:, None], centered, 0.0), has_vector


def _projected(
    centered: Float[np.ndarray, "V1 Z"],
    has_vector: Bool[np.ndarray, " V1"],
    objective: Float[np.ndarray, "Z Z"],
    dim: int,
) -> Float[np.ndarray, "V1 D"]:
    """Returns the components along the eigenvectors of the largest eigenvalues, each with a positive largest entry."""
    check_count(1, dim=dim)
    values, directions = np.linalg.eigh((objective + objective.T) / 2)
    directions = directions[:, np.argsort(-values)[:dim]]
    largest = np.abs(directions).argmax(0)
    directions = directions * np.sign(directions[largest, np.arange(directions.shape[1])])
    components = np.where(has_vector[:, None], centered @ directions, 0.0).astype(np.float32)
    return np.pad(components, ((0, 0), (0, dim - components.shape[1])))
