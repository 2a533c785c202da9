"""The items whose titles are most similar to an item's, by the cosines of any vectors of titles."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int8
from scipy.sparse import csr_array, issparse

from alkd_jax.checks import check_count
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
