"""Training-free recommenders: popularity, Markov chain, co-occurrence, item-kNN and session-kNN.

Everything is counted once from whole training sessions (:func:`count`) and kept sparse. A method is a function
``(counts, items, mask) -> scores``; set its options with ``functools.partial`` before handing it to
:func:`rank_targets` or :func:`top_k_lists`. All of it runs on the host in float64, so that the tie-break of 1e-6 is
never lost to rounding. What the methods have in common:

Args:
    counts: what the training sessions say.
    items: ``[B, L]``, queries in time order, ids in ``1..V`` where real.
    mask: ``[B, L]``, True on real items.

Returns:
    ``[B, V + 1]`` scores of all items, the query's own among them; column 0 is padding.

Raises:
    ValueError: a query holds an id outside ``1..V``, or an option is out of range.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from alkd_jax.baselines.counts import Counts, check_ids

Scorer: TypeAlias = Callable[
    [Counts, Int[np.ndarray, "B L"], Bool[np.ndarray, "B L"]],
    Float[np.ndarray, "B V1"],
]


def popularity(
    counts: Counts, items: Int[np.ndarray, "B L"], mask: Bool[np.ndarray, "B L"]
) -> Float[np.ndarray, "B V1"]:
    """``score(v | s) = pop(v)``, the occurrences of v in training sessions, whatever the query."""
    check_ids(items[mask], counts.num_items, "queries")
    return np.repeat(counts.popularity[None], items.shape[0], axis=0)


def markov(counts: Counts, items: Int[np.ndarray, "B L"], mask: Bool[np.ndarray, "B L"]) -> Float[np.ndarray, "B V1"]:
    """``score(v | s) = #(x_last → v)``, how often v directly followed the query's last item in training sessions.

    Reference:
        Ludewig and Jannach, "Evaluation of session-based recommendation algorithms", UMUAI 2018, Markov chains.
    """
    last = mask & (_steps_to_end(mask) == 0)
    return (_weigh(counts, items, mask, last.astype(np.float64)) @ counts.transitions).toarray()


def co_occurrence(
    counts: Counts, items: Int[np.ndarray, "B L"], mask: Bool[np.ndarray, "B L"]
) -> Float[np.ndarray, "B V1"]:
    """``score(v | s) = Σ_{x ∈ s} C[x, v]``, C the number of training sessions that contain both.

    An item that repeats in the query counts each time.
    """
    return (_weigh(counts, items, mask, mask.astype(np.float64)) @ counts.co_occurrence).toarray()


def sequential_rules(
    counts: Counts,
    items: Int[np.ndarray, "B L"],
    mask: Bool[np.ndarray, "B L"],
    *,
    recency: float = 0.65,
    backward: float = 0.0,
    damping: float = 0.3,
) -> Float[np.ndarray, "B V1"]:
    """``score(v | s) = Σ_j λʲ (F[x_j, v] + β F[v, x_j]) / pop(x_j)ᵟ``, F how often one item follows another, decayed.

    Args:
        recency: λ in (0, 1], for each step before the query's end.
        backward: β ≥ 0, what counts that v came before x_j.
        damping: δ ≥ 0, how much less a frequent item of the query says.

    Reference:
        Ludewig and Jannach, "Evaluation of session-based recommendation algorithms", UMUAI 2018, sequential rules.
    """
    if not 0.0 < recency <= 1.0:
        raise ValueError(f"recency is {recency}; expected in (0, 1]")
    if backward < 0 or damping < 0:
        raise ValueError(f"backward is {backward} and damping {damping}; expected at least 0")
    queries = _weigh(counts, items, mask, recency ** _steps_to_end(mask))
    queries.data /= np.maximum(counts.popularity, 1.0)[queries.indices] ** damping
    found = queries @ counts.followers
    return (found + backward * (queries @ counts.followers.T) if backward else found).toarray()


def item_knn(
    counts: Counts, items: Int[np.ndarray, "B L"], mask: Bool[np.ndarray, "B L"], *, recency: float = 1.0
) -> Float[np.ndarray, "B V1"]:
    """``score(v | s) = Σ_j λʲ C[x_j, v] / √(pop(x_j) pop(v))``, x_j the query's item j steps before its end.

    Args:
        recency: λ in (0, 1]; 1 weighs all items alike.

    Reference:
        Deshpande and Karypis, "Item-based top-N recommendation algorithms", TOIS 2004, cosine similarity.
    """
    if not 0.0 < recency <= 1.0:
        raise ValueError(f"recency is {recency}; expected in (0, 1]")
    norm = np.sqrt(np.maximum(counts.popularity, 1.0))
    queries = _weigh(counts, items, mask, recency ** _steps_to_end(mask))
    queries.data /= norm[queries.indices]
    return (queries @ counts.co_occurrence).toarray() / norm


def session_knn(
    counts: Counts, items: Int[np.ndarray, "B L"], mask: Bool[np.ndarray, "B L"], *, neighbors: int = 100
) -> Float[np.ndarray, "B V1"]:
    """``score(v | s) = Σ_{t ∈ N(s), v ∈ t} sim(s, t)``, N(s) the training sessions of largest ``sim = |s ∩ t| / √|t|``.

    Sessions are taken as sets. Of equally similar ones the earlier in the training data is kept; one that shares no
    item is no neighbor.

    Args:
        neighbors: size of N(s), at least 1.

    Reference:
        Jannach and Ludewig, "When recurrent neural networks meet the neighborhood for session-based recommendation",
        RecSys 2017.
    """
    if neighbors < 1:
        raise ValueError(f"neighbors is {neighbors}; expected at least 1")
    check_ids(items[mask], counts.num_items, "queries")
    found = [_nearest(counts, query[real], neighbors) for query, real in zip(items, mask, strict=True)]
    indptr = np.cumsum([0, *(session.size for session, _ in found)])
    session = np.concatenate([np.empty(0, np.int64), *(session for session, _ in found)])
    similarity = np.concatenate([np.empty(0), *(similarity for _, similarity in found)])
    nearest = csr_array((similarity, session, indptr), shape=(items.shape[0], counts.contents.shape[0]))
    return (nearest @ counts.contents).toarray()


def _nearest(
    counts: Counts, query: Int[np.ndarray, " L"], neighbors: int
) -> tuple[Int[np.ndarray, " K"], Float[np.ndarray, " K"]]:
    """Returns the training sessions most similar to one query, and their similarities."""
    indptr, indices = counts.postings.indptr, counts.postings.indices
    touched = [indices[indptr[item] : indptr[item + 1]] for item in np.unique(query)]
    session, shared = np.unique(np.concatenate([np.empty(0, indices.dtype), *touched]), return_counts=True)
    # Equal squares are equal floats, being quotients of the same value; 1/√2 and 3/√18 need not be.
    squared = shared**2 / np.diff(counts.contents.indptr)[session]
    nearest = np.argsort(-squared, kind="stable")[:neighbors]
    return session[nearest], np.sqrt(squared[nearest])


def _weigh(
    counts: Counts, items: Int[np.ndarray, "B L"], mask: Bool[np.ndarray, "B L"], weights: Float[np.ndarray, "B L"]
) -> csr_array:
    """Returns the queries as a sparse ``[B, V + 1]`` matrix of weights, summed where an item repeats."""
    check_ids(items[mask], counts.num_items, "queries")
    row, position = np.nonzero(mask & (weights != 0))
    shape = (items.shape[0], counts.num_items + 1)
    return csr_array((weights[row, position], (row, items[row, position])), shape=shape)


def _steps_to_end(mask: Bool[np.ndarray, "B L"]) -> Int[np.ndarray, "B L"]:
    """Counts the real items after each position."""
    return mask.sum(axis=1, keepdims=True) - np.cumsum(mask, axis=1)
