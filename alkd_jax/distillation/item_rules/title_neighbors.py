"""The items whose titles are most similar to an item's, by the cosines of any vectors of titles."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int8
from scipy.sparse import csr_array, issparse

from alkd_jax.checks import check_count, check_finite
from alkd_jax.io import open_arrays
from alkd_jax.types import PAD

_BLOCK_CELLS = 2**24
"""Number of cosines that are held at a time."""


def word_vectors(titles: Sequence[str]) -> csr_array:
    """Returns the tf-idf vectors of the titles' words, of length 1 or 0.

    The function needs scikit-learn, the extra "titles".

    Args:
        titles: V1 titles, the first of them empty.

    Raises:
        ValueError: no title has a word.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    return csr_array(TfidfVectorizer(token_pattern=r"(?u)\w+", dtype=np.float32).fit_transform(titles))


def read_vectors(file: str | os.PathLike[str], num_items: int) -> Float[np.ndarray, "V1 D"]:
    """Reads the vectors that an encoder gave the titles, and scales them to length 1.

    Args:
        file: an ``.npz`` archive with ``vectors`` ``[V1, D]`` of an integer or float type, and for integers ``scale``
            ``[V1]``; row i is of item i, row 0 of none.
        num_items: V.

    Raises:
        ValueError: an array is missing, of another shape, or not finite.
    """
    with open_arrays(pathlib.Path(file)) as archive:
        if "vectors" not in archive:
            raise ValueError(f"{file}: arrays are {sorted(archive)}; expected vectors, and scale for integers")
        stored = archive["vectors"]
        scale = archive["scale"] if "scale" in archive else np.ones(len(stored), np.float32)
    if stored.ndim != 2 or len(stored) != num_items + 1 or scale.shape != (num_items + 1,):
        raise ValueError(f"{file}: shape of vectors is {stored.shape}; expected ({num_items + 1}, D)")
    vectors = stored.astype(np.float32) * scale.astype(np.float32)[:, None]
    check_finite(f"{file}: vectors", vectors)
    vectors[PAD] = 0.0
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def title_neighbors(
    vectors: csr_array | Float[np.ndarray, "V1 D"] | Int8[np.ndarray, "V1 D"],
    *,
    places: int = 40,
    min_cosine: float = 0.2,
) -> csr_array:
    """Returns the cosines of each item with the ``places`` items of the most similar titles.

    Args:
        vectors: ``[V1, D]`` vectors of length 1 or 0, dense or sparse.
        places: number of neighbors of an item, at least 1.
        min_cosine: pairs of a lower cosine are no neighbors.

    Returns:
        ``[V1, V1]`` cosines, without the diagonal and the padding.

    Raises:
        ValueError: an option is out of its range.
    """
    check_count(1, places=places)
    if not 0.0 < min_cosine <= 1.0:
        raise ValueError(f"min_cosine is {min_cosine}; expected above 0 and at most 1")
    num_rows = vectors.shape[0]
    places = min(places, num_rows)
    rows, columns, cosines = [], [], []
    block = max(1, _BLOCK_CELLS // num_rows)
    transposed = vectors.T
    for start in range(0, num_rows, block):
        product = vectors[start : start + block] @ transposed
        similar = product.toarray() if issparse(product) else product
        own = np.arange(len(similar))
        similar[own, start + own] = 0.0
        similar[:, PAD] = 0.0
        best = np.argpartition(-similar, places - 1, axis=1)[:, :places]
        found = np.take_along_axis(similar, best, axis=1)
        row, place = np.nonzero(found >= min_cosine)
        rows.append(start + row)
        columns.append(best[row, place])
        cosines.append(found[row, place])
    row = np.concatenate(rows)
    is_item = row != PAD
    entries = (np.concatenate(cosines)[is_item].astype(np.float64), (row[is_item], np.concatenate(columns)[is_item]))
    return csr_array(entries, shape=(num_rows, num_rows))
