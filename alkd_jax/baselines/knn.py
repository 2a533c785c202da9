"""Nearest neighbors: of the query's items, and of the query among the training sessions.

Arguments, results and errors are those of all scoring functions, see :mod:`alkd_jax.baselines.queries`.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from alkd_jax.baselines.counts import Counts
from alkd_jax.baselines.queries import Histories, check_query_items, query_matrix, steps_to_end
from alkd_jax.checks import check_count, check_share


def item_knn(counts: Counts, histories: Histories, *, recency: float | int = 1.0) -> Float[np.ndarray, "B V1"]:
    """``score(v | s) = Σ_j λʲ C[x_j, v] / √(pop(x_j) pop(v))``, x_j the query's item j steps before its end.

    Args:
        counts: the counts of the training sessions.
        histories: B histories.
        recency: λ in (0, 1]; with 1 all items have the same weight.

    Reference:
        Deshpande and Karypis, "Item-based top-N recommendation algorithms", TOIS 2004, cosine similarity.
    """
    check_share("recency", recency)
    norm = np.sqrt(np.maximum(counts.popularity, 1.0))
    queries = query_matrix(counts, histories, recency ** steps_to_end(histories.mask))
    queries.data /= norm[queries.indices]
    return (queries @ counts.co_occurrence).toarray() / norm


def session_knn(counts: Counts, histories: Histories, *, neighbors: int = 100) -> Float[np.ndarray, "B V1"]:
    """``score(v | s) = Σ_{t ∈ N(s), v ∈ t} sim(s, t)``, N(s) the training sessions of largest ``sim = |s ∩ t| / √|t|``.

    Sessions are taken as sets of items. Among equally similar sessions the earlier ones in the training data are
    neighbors. A session that shares no item with the query is never a neighbor.

    Args:
        counts: the counts of the training sessions.
        histories: B histories.
        neighbors: size of N(s), at least 1.

    Reference:
        Jannach and Ludewig, "When recurrent neural networks meet the neighborhood for session-based recommendation",
        RecSys 2017.
    """
    check_count(1, neighbors=neighbors)
    check_query_items(counts.num_items, histories)
    queries = zip(histories.items, histories.mask, strict=True)
    neighborhoods = [_nearest_sessions(counts, query[real], neighbors) for query, real in queries]
    indptr = np.cumsum([0, *(session.size for session, _ in neighborhoods)])
    session = np.concatenate([np.empty(0, np.int64), *(session for session, _ in neighborhoods)])
    similarity = np.concatenate([np.empty(0), *(similarity for _, similarity in neighborhoods)])
    similarities = csr_array((similarity, session, indptr), shape=(len(histories), len(counts)))
    return (similarities @ counts.session_items).toarray()


def _nearest_sessions(
    counts: Counts, query: Int[np.ndarray, " L"], neighbors: int
) -> tuple[Int[np.ndarray, " K"], Float[np.ndarray, " K"]]:
    """Returns the training sessions that are most similar to one query, and their similarities."""
    indptr, indices = counts.item_sessions.indptr, counts.item_sessions.indices
    sessions_of_items = [indices[indptr[item] : indptr[item + 1]] for item in np.unique(query)]
    session, num_shared = np.unique(
        np.concatenate([np.empty(0, indices.dtype), *sessions_of_items]), return_counts=True
    )
    # Squared similarities are compared: equal ones are equal floats, while 1/√2 and 3/√18 may round differently.
    squared = num_shared**2 / np.diff(counts.session_items.indptr)[session]
    nearest = np.argsort(-squared, kind="stable")[:neighbors]
    return session[nearest], np.sqrt(squared[nearest])
