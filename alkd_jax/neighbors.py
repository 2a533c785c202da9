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

import dataclasses
from collections.abc import Callable, Iterator
from typing import TypeAlias

import jax
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array

from alkd_jax.types import PAD, Rankings, Sequences, Sessions

# Scores are compared after rounding to this many decimals: sums of the same cosines in another order differ by 1e-16,
# one occurrence in the tie-break by 1e-6 / (largest popularity).
_DECIMALS = 12


@dataclasses.dataclass(frozen=True, eq=False)
class Counts:
    """What N training sessions say of the items ``1..V``: exact counts in float64, ready to multiply with weights.

    Attributes:
        num_items: V.
        popularity: ``[V + 1]``, occurrences of each item, inputs and targets alike.
        transitions: ``[V + 1, V + 1]``, how often the column's item directly follows the row's.
        co_occurrence: ``[V + 1, V + 1]``, sessions that contain both items; on the diagonal, that contain the item.
        contents: ``[N, V + 1]``, 1 where the session contains the item.
        postings: ``[V + 1, N]``, the transpose: the sessions of each item.
    """

    num_items: int
    popularity: Float[np.ndarray, " V1"]
    transitions: csr_array
    co_occurrence: csr_array
    contents: csr_array
    postings: csr_array


Scorer: TypeAlias = Callable[
    [Counts, Int[np.ndarray, "B L"], Bool[np.ndarray, "B L"]],
    Float[np.ndarray, "B V1"],
]


def count(sequences: Sequences, num_items: int) -> Counts:
    """Counts items, adjacent pairs and co-occurrences of whole training sessions.

    Args:
        sequences: N training sessions, never cut, inputs followed by the target.
        num_items: V.

    Returns:
        The counts every method of this module scores with.

    Raises:
        ValueError: there is nothing to count, an id is outside ``1..V``, or the offsets do not cut up the items.
    """
    items, offsets = np.asarray(sequences.items), np.asarray(sequences.offsets)
    if items.size == 0:
        raise ValueError("training sequences hold no items; expected at least one")
    _check_ids(items, num_items, "training sequences")
    lengths = np.diff(offsets)
    if offsets[0] != 0 or offsets[-1] != items.size or lengths.min() < 0:
        raise ValueError(
            f"offsets go from {offsets[0]} to {offsets[-1]}; expected to rise from 0 to the {items.size} items"
        )
    session = np.repeat(np.arange(lengths.size), lengths)
    adjacent = session[1:] == session[:-1]
    contents = _tally(session, items, (lengths.size, num_items + 1))
    contents.data[:] = 1.0
    postings = contents.T.tocsr()
    return Counts(
        num_items=num_items,
        popularity=np.bincount(items, minlength=num_items + 1).astype(np.float64),
        transitions=_tally(items[:-1][adjacent], items[1:][adjacent], (num_items + 1, num_items + 1)),
        co_occurrence=(postings @ contents).tocsr(),
        contents=contents,
        postings=postings,
    )


def popularity(
    counts: Counts, items: Int[np.ndarray, "B L"], mask: Bool[np.ndarray, "B L"]
) -> Float[np.ndarray, "B V1"]:
    """``score(v | s) = pop(v)``, the occurrences of v in training sessions, whatever the query."""
    _check_ids(items[mask], counts.num_items, "queries")
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
    _check_ids(items[mask], counts.num_items, "queries")
    found = [_nearest(counts, query[real], neighbors) for query, real in zip(items, mask, strict=True)]
    indptr = np.cumsum([0, *(session.size for session, _ in found)])
    session = np.concatenate([np.empty(0, np.int64), *(session for session, _ in found)])
    similarity = np.concatenate([np.empty(0), *(similarity for _, similarity in found)])
    nearest = csr_array((similarity, session, indptr), shape=(items.shape[0], counts.contents.shape[0]))
    return (nearest @ counts.contents).toarray()


def mean_ranks(
    score_function: Scorer, counts: Counts, sessions: Sessions, *, batch_size: int = 512
) -> Float[np.ndarray, " N"]:
    """Ranks each session's target among the items that are not in the session.

    Ties are first broken by popularity, ``score(v) + 10⁻⁶ pop(v) / max pop``; items still equal share their mean rank.
    The target itself is never left out.

    Args:
        score_function: a method of this module, or a function like one.
        counts: what the training sessions say.
        sessions: N sessions.
        batch_size: sessions scored at a time, to bound memory at a few ``batch_size · V`` numbers.

    Returns:
        Ranks from 1, whole or half.

    Raises:
        ValueError: an id is outside ``1..V``, the batch size is below 1, or scores are not finite ``[B, V + 1]``.
    """
    target = np.asarray(sessions.target)
    _check_ids(target, counts.num_items, "targets")
    ranks = np.empty(len(sessions))
    for rows, scores in _allowed_scores(score_function, counts, sessions, target, batch_size):
        own = np.take_along_axis(scores, target[rows, None], axis=1)
        ranks[rows] = 1 + (scores > own).sum(axis=1) + ((scores == own).sum(axis=1) - 1) / 2
    return ranks


def rank_targets(
    score_function: Scorer, counts: Counts, sessions: Sessions, *, batch_size: int = 512
) -> Int[np.ndarray, " N"]:
    """Returns :func:`mean_ranks` as int32, a half rounded down; arguments and errors are the same.

    Counts tie often, so the rounding shows: a target that shares the places 10 and 11 is a hit at 10. Rounded up, with
    ``np.ceil(mean_ranks(...))``, popularity has recall@10 0.0093 instead of 0.0110 on the authors' ML test sessions.
    """
    return np.floor(mean_ranks(score_function, counts, sessions, batch_size=batch_size)).astype(np.int32)


def top_k_lists(
    score_function: Scorer, counts: Counts, sessions: Sessions, k: int, *, batch_size: int = 512
) -> Rankings:
    """Lists the k best items that are not in the session, so that a neighbor method can be a teacher.

    The order is that of :func:`mean_ranks`, ties to the lower id. A session that was counted has shown its target to
    the method: for training sessions see :func:`held_out_lists`.

    Args:
        score_function: a method of this module, or a function like one.
        counts: what the training sessions say.
        sessions: N sessions.
        k: list length, at least 1.
        batch_size: sessions scored at a time.

    Returns:
        ``[N, k]`` rankings, best first; 0 and mask False where fewer than k items remain.

    Raises:
        ValueError: k is below 1, or as in :func:`mean_ranks`.
    """
    listed, _ = top_k(score_function, counts, sessions, k, batch_size=batch_size)
    return Rankings(session_id=np.asarray(sessions.session_id), items=listed, mask=listed != PAD)


def top_k(
    score_function: Scorer, counts: Counts, sessions: Sessions, k: int, *, batch_size: int = 512
) -> tuple[Int[np.ndarray, "N K"], Float[np.ndarray, "N K"]]:
    """The k best items of :func:`top_k_lists`, 0 where fewer remain, and their scores, 0 there.

    Raises:
        ValueError: as in :func:`top_k_lists`.
    """
    if k < 1:
        raise ValueError(f"k is {k}; expected at least 1")
    listed, found = np.full((len(sessions), k), PAD, np.int32), np.zeros((len(sessions), k))
    cut = min(k, counts.num_items)
    nothing = np.full(len(sessions), PAD)
    for rows, batch in _allowed_scores(score_function, counts, sessions, nothing, batch_size):
        for row, scores in zip(rows, batch, strict=True):
            least = np.partition(scores, -cut)[-cut]
            candidates = np.flatnonzero((scores >= least) & (scores > -np.inf))
            best = candidates[np.argsort(-scores[candidates], kind="stable")[:k]]
            listed[row, : best.size], found[row, : best.size] = best, scores[best]
    return listed, found


def held_out_lists(
    score_function: Scorer, sequences: Sequences, num_items: int, sessions: Sessions, k: int, *, folds: int = 10
) -> Rankings:
    """Lists the k best items of each training session by counts of other sessions only.

    Session n is ranked by the counts of the sessions m with ``m mod folds ≠ n mod folds``.

    Args:
        score_function: a method of this module, or a function like one.
        sequences: N training sessions, whole.
        num_items: V.
        sessions: the same N sessions in the same order.
        k: list length, at least 1.
        folds: 2 to N; N leaves out one session at a time.

    Returns:
        ``[N, k]`` rankings, as in :func:`top_k_lists`.

    Raises:
        ValueError: there are not as many sessions as sequences, folds is outside ``2..N``, or as in :func:`count` and
            :func:`top_k_lists`.
    """
    total = len(sessions)
    if len(sequences) != total:
        raise ValueError(f"{total} sessions for {len(sequences)} training sequences; expected as many")
    if not 2 <= folds <= total:
        raise ValueError(f"folds is {folds}; expected in 2..{total}")
    fold = np.arange(total) % folds
    items, lengths = np.asarray(sequences.items), np.diff(np.asarray(sequences.offsets))
    lists = []
    for part in range(folds):
        others = fold != part
        offsets = np.concatenate([[0], np.cumsum(lengths[others])])
        counts = count(Sequences(items=items[np.repeat(others, lengths)], offsets=offsets), num_items)
        held_out = jax.tree.map(lambda leaf, chosen=~others: np.asarray(leaf)[chosen], sessions)
        lists.append(top_k_lists(score_function, counts, held_out, k))
    in_place = np.argsort(np.concatenate([np.flatnonzero(fold == part) for part in range(folds)]))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[in_place], *lists)


def _allowed_scores(
    score_function: Scorer, counts: Counts, sessions: Sessions, keep: Int[np.ndarray, " N"], batch_size: int
) -> Iterator[tuple[Int[np.ndarray, " B"], Float[np.ndarray, "B V1"]]]:
    """Yields rows and their tie-broken scores, -inf on padding and on the session's items but the one to keep."""
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1")
    items, mask = np.asarray(sessions.items), np.asarray(sessions.mask)
    bonus = 1e-6 * counts.popularity / counts.popularity.max()
    for start in range(0, len(sessions), batch_size):
        rows = np.arange(start, min(start + batch_size, len(sessions)))
        scores = score_function(counts, items[rows], mask[rows])
        if scores.shape != (rows.size, bonus.size) or not np.isfinite(scores).all():
            raise ValueError(f"scores are {scores.shape}; expected finite ones of shape {(rows.size, bonus.size)}")
        scores = np.round(scores + bonus, _DECIMALS)
        kept = scores[np.arange(rows.size), keep[rows]]
        row, position = np.nonzero(mask[rows])
        scores[row, items[rows][row, position]] = -np.inf
        scores[np.arange(rows.size), keep[rows]] = kept
        scores[:, PAD] = -np.inf
        yield rows, scores


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
    _check_ids(items[mask], counts.num_items, "queries")
    row, position = np.nonzero(mask & (weights != 0))
    shape = (items.shape[0], counts.num_items + 1)
    return csr_array((weights[row, position], (row, items[row, position])), shape=shape)


def _tally(row: Int[np.ndarray, " T"], column: Int[np.ndarray, " T"], shape: tuple[int, int]) -> csr_array:
    """Counts how often each (row, column) occurs."""
    return csr_array((np.ones(row.size), (row, column)), shape=shape)


def _steps_to_end(mask: Bool[np.ndarray, "B L"]) -> Int[np.ndarray, "B L"]:
    """Counts the real items after each position."""
    return mask.sum(axis=1, keepdims=True) - np.cumsum(mask, axis=1)


def _check_ids(items: Int[np.ndarray, "..."], num_items: int, where: str) -> None:
    """Raises ValueError on the first id outside ``1..num_items``."""
    wrong = items[(items < 1) | (items > num_items)]
    if wrong.size:
        raise ValueError(f"item {wrong[0]} in the {where} is outside 1..{num_items}")
