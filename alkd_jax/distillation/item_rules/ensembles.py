"""Several teachers' lists for the same sessions made one."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from alkd_jax.types import PAD, Rankings


def fuse(lists: Sequence[Rankings], *, k: int = 25, offset: float = 60.0) -> Rankings:
    """Each session's items by how high they stand in all lists together: ``Σ_t 1 / (c + place_t(v))``.

    Args:
        lists: of the same sessions in the same order, one a teacher.
        k: list length.
        offset: c ≥ 0; the larger, the more it counts to stand in many lists.

    Returns:
        The k best, ties to the lower item; 0 and mask False where there are fewer.

    Raises:
        ValueError: there are no lists, they are of other sessions, or k or the offset is too small.

    Reference:
        Cormack et al., Reciprocal rank fusion, SIGIR 2009.
    """
    if not lists or k < 1 or offset < 0:
        raise ValueError(f"{len(lists)} teachers, k {k}, offset {offset}; expected at least 1, 1 and 0")
    session_id = np.asarray(lists[0].session_id)
    if any(not np.array_equal(session_id, one.session_id) for one in lists):
        raise ValueError("the teachers' lists are of different sessions; expected the same in the same order")
    size = 1 + max(int(np.max(one.items, initial=0)) for one in lists)
    score = csr_array((len(session_id), size))
    for one in lists:
        row, place = np.nonzero(np.asarray(one.mask))
        value = 1.0 / (offset + 1.0 + place)
        score = score + csr_array((value, (row, np.asarray(one.items)[row, place])), shape=score.shape)
    score = score.tocsr()
    score.sort_indices()
    items = np.full((len(session_id), k), PAD, np.int32)
    for line, (start, stop) in enumerate(zip(score.indptr[:-1], score.indptr[1:], strict=True)):
        best = np.argsort(-score.data[start:stop], kind="stable")[:k]
        items[line, : best.size] = score.indices[start:stop][best]
    return Rankings(session_id, items, items != PAD)
