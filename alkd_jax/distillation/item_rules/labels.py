"""Soft labels of a re-ranker for items and for sessions, made into rules of items, which a table can hold."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array, diags_array

from alkd_jax.baselines.counts import Counts
from alkd_jax.baselines.pair_features import PairFeatures
from alkd_jax.baselines.queries import Histories, query_matrix, steps_to_end
from alkd_jax.baselines.re_ranker import CandidateRanker, find_candidates
from alkd_jax.checks import check_at_least, check_count, check_share
from alkd_jax.distillation.method import check_positive

_BATCH = 256
_SMALLEST = 1e-7
"""Labels below this probability are left out; at any temperature in use they remain far below a list's last place."""


def item_labels(features: PairFeatures, ranker: CandidateRanker, *, places: int = 50) -> csr_array:
    """``p(v | x) = softmax_v s(v | x)``: the re-ranker's labels for each item x as the only one of a session.

    Args:
        features: counts and titles that the re-ranker reads.
        ranker: the fitted re-ranker.
        places: as of :func:`alkd_jax.baselines.find_candidates`.

    Returns:
        ``[V1, V1]`` rows of sum 1 but for labels below 1e-7, or 0 for an item without candidates; row 0 and the
        diagonal are empty.

    Raises:
        ValueError: an option is out of its range.
    """
    num_items = features.counts.num_items
    items = np.arange(1, num_items + 1)[:, None]
    labels = session_labels(features, ranker, Histories(items, np.ones_like(items, bool)), places=places)
    return csr_array((labels.data, labels.indices, np.concatenate([[0], labels.indptr])), shape=(num_items + 1,) * 2)


def session_labels(
    features: PairFeatures,
    ranker: CandidateRanker,
    histories: Histories,
    sessions: Int[np.ndarray, " N"] | None = None,
    *,
    places: int = 50,
) -> csr_array:
    """``p(v | s) = softmax_v s(v | s)`` over the candidates of each session that are no items of it.

    Args:
        features: as of :func:`item_labels`.
        ranker: likewise.
        histories: the known items of N sessions.
        sessions: ``[N]``, the training session that each row leaves out of all counts; −1 or None for none.
        places: as of :func:`item_labels`.

    Returns:
        ``[N, V1]`` rows of sum 1 but for labels below 1e-7, or 0 for a session without candidates.

    Raises:
        ValueError: an option is out of its range, or an item or a session does not exist.
    """
    parts = list(_label_parts(features, ranker, histories, sessions, places))
    row, column, value = (np.concatenate(column) for column in zip(*parts, strict=True)) if parts else np.zeros((3, 0))
    shape = len(histories), features.counts.num_items + 1
    return csr_array((value, (row.astype(np.int64), column.astype(np.int64))), shape=shape)


def _label_parts(
    features: PairFeatures,
    ranker: CandidateRanker,
    histories: Histories,
    sessions: Int[np.ndarray, " N"] | None,
    places: int,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields row, item and probability of the labels of some sessions at a time."""
    for start in range(0, len(histories), _BATCH):
        rows = slice(start, start + _BATCH)
        known = Histories(histories.items[rows], histories.mask[rows])
        found = find_candidates(features, known, None if sessions is None else sessions[rows], places=places)
        scores = np.where(found.are_of(known), -np.inf, ranker.scores(found))
        odds = np.exp(scores - scores.max(1, keepdims=True, initial=-1e300))
        # The sum is at least 1 where there is a candidate.
        share = odds / np.maximum(odds.sum(1, keepdims=True), 1.0)
        row, place = np.nonzero(share > _SMALLEST)
        yield start + row, found.items[row, place], share[row, place]


def sharpened(labels: csr_array, *, temperature: float, places: int) -> csr_array:
    """``p^(1/τ) / Σ p^(1/τ)`` of the most likely items of each row.

    Args:
        labels: ``[N, V1]`` probabilities.
        temperature: τ, above 0.
        places: number of items of a row that are kept, at least 1.

    Raises:
        ValueError: an option is out of its range.
    """
    check_positive(temperature=temperature)
    check_count(1, places=places)
    row = np.repeat(np.arange(labels.shape[0]), np.diff(labels.indptr))
    largest = np.asarray(labels.max(1).todense()).ravel()[row]
    found = labels.copy()
    # The largest label of a row is 1 before the sum, so that no row vanishes at a low temperature.
    found.data = np.where(places_in_rows(labels) < places, (labels.data / largest) ** (1 / temperature), 0.0)
    found.eliminate_zeros()
    total = np.asarray(found.sum(1)).ravel()
    return csr_array(diags_array(1 / np.maximum(total, 1.0)) @ found)


def places_in_rows(matrix: csr_array) -> Int[np.ndarray, " M"]:
    """Returns the place of every entry in its row by descending value, from 0; of equal ones the first column leads."""
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    place = np.empty(matrix.nnz, np.int64)
    place[np.lexsort((matrix.indices, -matrix.data, row))] = np.arange(matrix.nnz) - matrix.indptr[row]
    return place


def averaged_labels(
    counts: Counts,
    histories: Histories,
    of_sessions: csr_array,
    of_items: csr_array,
    *,
    recency: float = 0.65,
    pseudo_count: float = 3.0,
) -> csr_array:
    """``R_xv = (Σ_s w_sx p(v | s) + κ p(v | x)) / (Σ_s w_sx + κ)``: labels of sessions, averaged for each item.

    Args:
        counts: counts of the training sessions.
        histories: the known items of N sessions; w has the weights λʲ of the items j steps before the end.
        of_sessions: ``[N, V1]`` labels of these sessions.
        of_items: ``[V1, V1]`` labels of items alone, which decide where an item is in few sessions.
        recency: λ in (0, 1].
        pseudo_count: κ, above 0: how many sessions the labels of an item alone are worth.

    Raises:
        ValueError: an option is out of its range.
    """
    check_share("recency", recency)
    check_positive(pseudo_count=pseudo_count)
    weights = query_matrix(counts, histories, recency ** steps_to_end(histories.mask))
    total = 1 / (np.asarray(weights.sum(0)).ravel() + pseudo_count)
    return csr_array(diags_array(total) @ (weights.T @ of_sessions) + diags_array(pseudo_count * total) @ of_items)


def add_labels(rules: csr_array, labels: csr_array, weight: float) -> csr_array:
    """``R + c √(Σ_v R_xv) p(v | x)``: labels beside rules, with more weight where an item's rules have more.

    Args:
        rules: ``[V1, V1]`` R, at least 0.
        labels: ``[V1, V1]`` p, rows of sum 1.
        weight: c, at least 0.

    Raises:
        ValueError: the weight is out of its range.
    """
    check_at_least(0, weight=weight)
    totals: Float[np.ndarray, " V1"] = np.asarray(rules.sum(1)).ravel()
    return csr_array(rules + weight * csr_array(diags_array(np.sqrt(totals)) @ labels))
