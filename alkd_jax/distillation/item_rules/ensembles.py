"""Ensembles of teachers: the lists of several teachers for the same sessions are fused into one list a session."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from alkd_jax.checks import check_at_least, check_count
from alkd_jax.types import PAD, Rankings


def fuse_rankings(rankings: Sequence[Rankings], *, k: int = 25, offset: float = 60.0) -> Rankings:
    """Reciprocal rank fusion: ranks each session's items by ``Σ_t 1 / (c + rank_t(v))`` over all teachers t.

    Args:
        rankings: the lists of each teacher, for the same sessions in the same order.
        k: K, length of the fused lists, at least 1.
        offset: c, at least 0; the larger it is, the more the number of lists that hold an item matters.

    Returns:
        The K best items of each session, ties to the lower item; 0 and mask False in short lists.

    Raises:
        ValueError: there are no teachers, their sessions differ, or an option is out of its range.

    Reference:
        Cormack et al., Reciprocal rank fusion, SIGIR 2009.
    """
    check_count(1, num_teachers=len(rankings), k=k)
    check_at_least(0, offset=offset)
    session_id = np.asarray(rankings[0].session_id)
    for number, teacher_rankings in enumerate(rankings):
        if not np.array_equal(session_id, teacher_rankings.session_id):
            raise ValueError(f"rankings[{number}] has other sessions; expected those of rankings[0] in the same order")
    num_columns = 1 + max(int(np.max(teacher_rankings.items, initial=0)) for teacher_rankings in rankings)
    scores = csr_array((len(session_id), num_columns))
    for teacher_rankings in rankings:
        rows, columns = np.nonzero(np.asarray(teacher_rankings.mask))
        reciprocal_ranks = 1.0 / (offset + 1.0 + columns)
        list_items = np.asarray(teacher_rankings.items)[rows, columns]
        scores = scores + csr_array((reciprocal_ranks, (rows, list_items)), shape=scores.shape)
    scores = scores.tocsr()
    scores.sort_indices()
    items = np.full((len(session_id), k), PAD, np.int32)
    for row, (start, stop) in enumerate(zip(scores.indptr[:-1], scores.indptr[1:], strict=True)):
        best = np.argsort(-scores.data[start:stop], kind="stable")[:k]
        items[row, : best.size] = scores.indices[start:stop][best]
    return Rankings(session_id, items, items != PAD)
