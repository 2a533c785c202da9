"""Vectors of training sessions from outside, such as an encoder's of profiles that an LLM wrote of them."""

import dataclasses
import os
import pathlib

import numpy as np
from jaxtyping import Float, Int

from alkd_jax.checks import check_finite, check_integers
from alkd_jax.data.item_vectors import read_arrays


@dataclasses.dataclass(frozen=True, eq=False)
class ProfileVectors:
    """Vectors of some sessions.

    Attributes:
        session_id: ``[M]`` distinct ids, as in :class:`alkd_jax.types.Sessions`.
        vectors: ``[M, P]``, finite.
    """

    session_id: Int[np.ndarray, " M"]
    vectors: Float[np.ndarray, "M P"]

    def __post_init__(self) -> None:
        check_finite("vectors", self.vectors)
        ids, counts = np.unique(self.session_id, return_counts=True)
        if (counts > 1).any():
            raise ValueError(f"session {ids[counts > 1][0]} has {counts.max()} vectors; expected one")

    def __len__(self) -> int:
        """Returns the number of sessions M."""
        return len(self.session_id)


def read_profiles(file: str | os.PathLike[str]) -> ProfileVectors:
    """Reads vectors of sessions.

    Args:
        file: ``.npz`` or ``.safetensors`` with ``session_id`` ``[M]`` and ``vectors`` ``[M, P]``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an array is missing, of another shape or type, or not finite; or a session is repeated.
    """
    path = pathlib.Path(file)
    arrays = read_arrays(path)
    if not {"session_id", "vectors"} <= arrays.keys():
        raise ValueError(f"{path}: arrays are {sorted(arrays)}; expected session_id and vectors")
    session_id, vectors = arrays["session_id"], arrays["vectors"]
    if session_id.ndim != 1 or vectors.ndim != 2 or len(vectors) != len(session_id) or not vectors.size:
        shapes = f"session_id {session_id.shape} and vectors {vectors.shape}"
        raise ValueError(f"{path}: shapes are {shapes}; expected [M] and [M, P]")
    if vectors.dtype.kind not in "iuf":
        raise ValueError(f"{path}: type of vectors is {vectors.dtype}; expected numbers")
    check_integers(f"{path}: session_id", session_id)
    try:
        return ProfileVectors(session_id.astype(np.int64), vectors.astype(np.float32))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
