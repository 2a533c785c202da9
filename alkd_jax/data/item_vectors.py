"""Vectors of the items from outside, such as an encoder's of their titles: files of several forms, never unpickled."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from alkd_jax.checks import check_count, check_finite
from alkd_jax.errors import import_extra, reading, shown
from alkd_jax.io import open_arrays
from alkd_jax.types import PAD

FORMS = (".npz", ".npy", ".safetensors")
"""Endings of the files that can be read."""


def read_vectors(
    file: str | os.PathLike[str], num_items: int, *, item_ids: Sequence[str] | None = None
) -> Float[np.ndarray, "V1 D"]:
    """Reads vectors of the items, and scales them to length 1.

    Args:
        file: ``.npz`` or ``.safetensors`` with an array ``vectors``, and for integers ``scale``, a factor for each row;
            or ``.npy`` with the vectors alone. Without ids the rows are those of the items, row 0 of none. Ids come
            from the array ``ids`` of the ``.npz`` file, or from a text file ``FILE.ids`` with one for each row; items
            without a row then get the vector 0, and rows of other ids are left out.
        num_items: V.
        item_ids: V1 raw ids, the first of them empty, to which the file's ids refer.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an array is missing, of another shape or type, or not finite; or the ids are repeated, or unknown.
    """
    path = pathlib.Path(file)
    arrays = read_arrays(path)
    if "vectors" not in arrays:
        raise ValueError(f"{path}: arrays are {sorted(arrays)}; expected vectors, and scale for integers")
    stored, ids = arrays["vectors"], _read_ids(path, arrays)
    rows = num_items + 1 if ids is None else len(ids)
    scale = arrays.get("scale", np.ones(rows, np.float32))
    if stored.ndim != 2 or len(stored) != rows or scale.shape != (rows,) or stored.shape[1] == 0:
        raise ValueError(f"{path}: shape of vectors is {stored.shape}; expected ({rows}, D)")
    if stored.dtype.kind not in "iuf" or scale.dtype.kind not in "iuf":
        raise ValueError(f"{path}: type of vectors is {stored.dtype}; expected numbers")
    vectors = stored.astype(np.float32) * scale.astype(np.float32)[:, None]
    check_finite(f"{path}: vectors", vectors)
    if ids is not None:
        vectors = _by_item(path, vectors, ids, num_items, item_ids)
    vectors[PAD] = 0.0
    return unit_length(vectors)


def unit_length(vectors: Float[np.ndarray, "V1 D"]) -> Float[np.ndarray, "V1 D"]:
    """Returns the vectors divided by their lengths; a vector 0 stays 0."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def title_vectors(titles: Sequence[str], dim: int = 64, *, seed: int = 0) -> Float[np.ndarray, "V1 D"]:
    """Returns vectors of the titles without an encoder: the largest components of their words' tf-idf, of length 1.

    The function needs scikit-learn, the extra "titles". A title without a word that another has gets few components.

    Args:
        titles: V1 titles, the first of them empty.
        dim: D, at most the number of words and of items.
        seed: of the randomized decomposition.

    Raises:
        ValueError: no title has a word.

    Reference:
        Deerwester et al., Indexing by latent semantic analysis, JASIS 1990.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    check_count(1, dim=dim)
    words = TfidfVectorizer(token_pattern=r"(?u)\w+", dtype=np.float32).fit_transform(titles)
    components = TruncatedSVD(min(dim, words.shape[1], len(titles) - 1), random_state=seed).fit_transform(words)
    return unit_length(components.astype(np.float32))


def shuffled_vectors(vectors: Float[np.ndarray, "V1 D"], *, seed: int = 0) -> Float[np.ndarray, "V1 D"]:
    """Returns the vectors permuted among the items, a control with all of their statistics and no meaning."""
    order = np.random.default_rng(seed).permutation(len(vectors) - 1)
    return np.concatenate([vectors[:1], vectors[1:][order]])


def read_arrays(path: pathlib.Path) -> dict[str, Any]:
    """Returns the arrays of a file by name, nothing else that it may hold.

    Args:
        path: a file of one of :data:`FORMS`; the array of an ``.npy`` file is "vectors".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the name has another ending, or the file is damaged.
    """
    if path.suffix not in FORMS:
        raise ValueError(f"{path}: the name ends in {path.suffix or 'nothing'}; expected {', '.join(FORMS)}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected vectors")
    if path.suffix == ".npz":
        with open_arrays(path) as archive:
            return {name: archive[name] for name in ("vectors", "scale", "ids", "session_id") if name in archive}
    if path.suffix == ".npy":
        with reading(path, expected="an undamaged npy file of numbers"):
            return {"vectors": np.load(path, allow_pickle=False)}
    safetensors_numpy = import_extra("safetensors.numpy")
    with reading(path, expected="arrays in the safetensors format"):
        return dict(safetensors_numpy.load(path.read_bytes()))


def _read_ids(path: pathlib.Path, arrays: dict[str, Any]) -> list[str] | None:
    """Returns the raw ids of the rows; None where the rows are those of the items."""
    beside = path.with_name(path.name + ".ids")
    if "ids" in arrays and path.suffix == ".npz":
        ids = arrays["ids"]
        if ids.ndim != 1 or ids.dtype.kind not in "Uiu":
            raise ValueError(f"{path}: ids have shape {ids.shape} and type {ids.dtype}; expected one text for each row")
        found = [str(item) for item in ids.tolist()]
    elif beside.is_file():
        with reading(beside, expected="a text with one id on each line"):
            found = beside.read_text(encoding="utf-8").splitlines()
        path = beside
    else:
        return None
    if len(set(found)) < len(found):
        repeated = next(item for row, item in enumerate(found) if item in found[:row])
        raise ValueError(f"{path}: id {shown(repeated)} is there more than once; expected distinct ids")
    return found


def _by_item(
    path: pathlib.Path,
    vectors: Float[np.ndarray, "R D"],
    ids: Sequence[str],
    num_items: int,
    item_ids: Sequence[str] | None,
) -> Float[np.ndarray, "V1 D"]:
    """Returns the vectors in the order of the items."""
    if item_ids is None:
        raise ValueError(
            f"{path} has ids; expected vectors of all items in their order, or item_ids that these refer to"
        )
    number_of = {raw_id: number for number, raw_id in enumerate(item_ids) if number != PAD}
    pairs = [(row, number_of[raw_id]) for row, raw_id in enumerate(ids) if raw_id in number_of]
    if not pairs:
        raise ValueError(
            f"{path}: none of the {len(ids)} ids is that of an item; expected ids such as {shown(item_ids[1])}"
        )
    rows, numbers = map(np.array, zip(*pairs, strict=True))
    placed = np.zeros((num_items + 1, vectors.shape[1]), np.float32)
    placed[numbers] = vectors[rows]
    return placed
