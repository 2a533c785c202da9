"""Metrics beyond accuracy: how much of the catalogue is recommended, how evenly, and how popular the lists are.

They are functions of the exposure of each item, the number of top-k lists that contain it, so that no lists need to be
kept; and of training counts, how often each item occurs in the training sessions.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int, Int64

from alkd_jax.checks import check_at_least, check_count, check_span, check_where
from alkd_jax.evaluation import metrics
from alkd_jax.types import PAD

Exposure = Int[np.ndarray, " V1"]


def count_exposure(lists: Int[np.ndarray, "P K"], num_items: int, ks: Sequence[int]) -> Int64[np.ndarray, "num_ks V1"]:
    """Counts the top-k lists that contain each item.

    Args:
        lists: ``[P, K]`` distinct items, best first; 0 or −1 fills a short list.
        num_items: V.
        ks: cut-offs, at least 1; one above K counts all items of a list.

    Returns:
        For each cut-off the number of lists with each item; 0 for the padding.

    Raises:
        ValueError: a cut-off is below 1, or an item is outside the catalogue.
    """
    check_span("lists", lists, -1, num_items)
    exposure = np.zeros((len(ks), num_items + 1), np.int64)
    for row, k in enumerate(ks):
        check_count(1, k=k)
        exposure[row] = np.bincount(np.maximum(lists[:, :k], PAD).ravel(), minlength=num_items + 1)
    exposure[:, PAD] = 0
    return exposure


def coverage(exposure: Exposure) -> float:
    """The share of the catalogue that at least one list contains.

    Args:
        exposure: number of lists with each item; row 0 is the padding.
    """
    return float(np.mean(exposure[1:] > 0))


def gini(exposure: Exposure) -> float:
    """The Gini index of the exposure: 0 where all items are listed equally often, 1 − 1 / V where one has every place.

    ``G = Σ_i (2i − V − 1) e_i / (V Σ_i e_i)``, with the exposures e in ascending order; 0 where nothing is listed.

    Args:
        exposure: number of lists with each item; row 0 is the padding.

    Reference:
        Fleder, Hosanagar, Blockbuster culture's next rise or fall, Management Science 2009.
    """
    ascending = np.sort(exposure[1:].astype(np.float64))
    num_items, total = len(ascending), ascending.sum()
    weight = 2.0 * np.arange(1, num_items + 1) - num_items - 1
    return float(weight @ ascending / (num_items * total)) if total else 0.0


def mean_popularity(exposure: Exposure, counts: Float[np.ndarray, " V1"] | Int[np.ndarray, " V1"]) -> float:
    """The mean training count of the items in the lists; NaN where nothing is listed.

    Args:
        exposure: number of lists with each item; row 0 is the padding.
        counts: number of occurrences of each item in the training sessions.

    Raises:
        ValueError: the counts are of another catalogue, or negative.

    Reference:
        Yin et al., Challenging the long tail recommendation, VLDB 2012.
    """
    return _mean_of_listed(exposure, _checked_counts(counts, exposure))


def novelty(exposure: Exposure, counts: Float[np.ndarray, " V1"] | Int[np.ndarray, " V1"]) -> float:
    """The mean self-information of the items in the lists, in bits: ``−log₂ p_v``, with p_v item v's training share.

    An item without occurrences counts as one with a single one. NaN where nothing is listed.

    Args:
        exposure: number of lists with each item; row 0 is the padding.
        counts: number of occurrences of each item in the training sessions.

    Raises:
        ValueError: the counts are of another catalogue, negative, or all 0.

    Reference:
        Zhou et al., Solving the apparent diversity-accuracy dilemma of recommender systems, PNAS 2010.
    """
    counts = _checked_counts(counts, exposure)
    if not counts.sum() > 0:
        raise ValueError("counts is 0 for every item; expected an item with interactions")
    return _mean_of_listed(exposure, -np.log2(np.maximum(counts, 1.0) / counts.sum()))


def from_exposure(
    exposure: Mapping[int, Exposure], counts: Float[np.ndarray, " V1"] | Int[np.ndarray, " V1"] | None = None
) -> dict[str, float]:
    """Computes every metric of the lists.

    Args:
        exposure: cut-off k → number of top-k lists with each item, as of an :class:`alkd_jax.evaluation.Evaluation`.
        counts: number of occurrences of each item in the training sessions; None leaves out what needs them.

    Returns:
        ``{"coverage@5": …, "gini@5": …}`` for each cut-off, and with counts ``"popularity@5"`` and ``"novelty@5"``.

    Raises:
        ValueError: as in :func:`mean_popularity` and :func:`novelty`.
    """
    values: dict[str, float] = {}
    for k, exposure_at_k in exposure.items():
        values[f"coverage@{k}"] = coverage(exposure_at_k)
        values[f"gini@{k}"] = gini(exposure_at_k)
        if counts is not None:
            values[f"popularity@{k}"] = mean_popularity(exposure_at_k, counts)
            values[f"novelty@{k}"] = novelty(exposure_at_k, counts)
    return values


def stratified_recall(
    ranks: Int[np.ndarray, " P"],
    target: Int[np.ndarray, " P"],
    counts: Float[np.ndarray, " V1"] | Int[np.ndarray, " V1"],
    k: int,
    *,
    exponent: float = 0.5,
) -> float:
    """Popularity-stratified recall, in which hits of rare targets weigh more: ``Σ_q w_q [r_q ≤ k] / Σ_q w_q``.

    The weight is the inverse of a propensity that grows with the target's popularity, ``w_q = max(c_q, 1)^(−β)`` with
    c its training count. β = 0 gives recall; β = 1 gives every item the same weight, if targets are as frequent as
    training items.

    Args:
        ranks: positions from 1.
        target: the queries' targets.
        counts: number of occurrences of each item in the training sessions.
        k: cut-off, at least 1.
        exponent: β, at least 0.

    Raises:
        ValueError: there are no ranks, a target has no count, or an option is out of range.

    Reference:
        Steck, Item popularity and recommendation accuracy, RecSys 2011; self-normalized as in Yang et al., Unbiased
        offline recommender evaluation for missing-not-at-random implicit feedback, RecSys 2018.
    """
    check_at_least(0, exponent=exponent)
    counts = _checked_counts(counts, counts)
    check_span("target", target, 1, len(counts) - 1)
    if np.shape(target) != np.shape(ranks) or np.size(ranks) == 0:
        raise ValueError(f"ranks and target have shapes {np.shape(ranks)} and {np.shape(target)}; expected equal ones")
    weight = np.maximum(counts[target], 1.0) ** -exponent
    return float(weight @ np.asarray(metrics.recall(ranks, k), np.float64) / weight.sum())


def _mean_of_listed(exposure: Exposure, values: Float[np.ndarray, " V1"]) -> float:
    total = exposure[1:].sum()
    return float(exposure[1:] @ values[1:] / total) if total else float("nan")


def _checked_counts(counts: np.ndarray, exposure: np.ndarray) -> Float[np.ndarray, " V1"]:
    counts = np.asarray(counts, np.float64)
    if counts.shape != np.shape(exposure):
        raise ValueError(f"counts has shape {counts.shape}; expected {np.shape(exposure)}, one per item and padding")
    check_where(np.isfinite(counts) & (counts >= 0), "counts", counts, "a finite number of at least 0")
    counts = counts.copy()
    counts[PAD] = 0.0
    return counts
