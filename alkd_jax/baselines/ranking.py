"""Ranks of targets and top-k lists by a training-free recommender, on the host in float64."""

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Float, Int

from alkd_jax import scoring
from alkd_jax.baselines.counts import Counts, held_out_folds
from alkd_jax.baselines.queries import Scorer
from alkd_jax.checks import check_count, check_finite, check_one_of, check_span
from alkd_jax.types import PAD, Rankings, Sequences, Sessions

# Scores are compared after rounding to this many decimals: sums of the same cosines in another order differ by 1e-16,
# one occurrence in the tie-break by 1e-6 / (largest popularity).
_DECIMALS = 12

TIES = (*scoring.TIES, "published")
"""Rules for items whose score equals the target's, see :meth:`Places.ranks`."""


@dataclasses.dataclass(frozen=True)
class Places:
    """The places of targets among the ranked items, from which every rule for ties computes a rank.

    Attributes:
        better: ``[N]`` int32, number of items with a higher score than the target.
        equal: ``[N]`` int32, number of other items with the target's score; above 0 the target is tied.
    """

    better: Int[np.ndarray, " N"]
    equal: Int[np.ndarray, " N"]

    @property
    def mean(self) -> Float[np.ndarray, " N"]:
        """The mean rank of the target and the items that are equal to it, from 1: an integer or a half."""
        return 1 + self.better + self.equal / 2

    @property
    def num_tied(self) -> int:
        """The number of tied targets."""
        return int(np.count_nonzero(self.equal))

    def ranks(self, *, ties: str = "average") -> Int[np.ndarray, " N"]:
        """Returns ranks from 1, int32.

        Args:
            ties: "average" is the mean rank with a half rounded up, the rule of :func:`alkd_jax.evaluate`; "optimistic"
                and "pessimistic" place the target before and after all items that are equal to it; "published" is the
                mean rank with a half rounded down, by which the published results of the training-free recommenders
                were computed.

        Raises:
            ValueError: the rule is unknown.
        """
        check_one_of("ties", ties, TIES)
        shared = {"average": (self.equal + 1) // 2, "published": self.equal // 2, "pessimistic": self.equal}
        return (1 + self.better + shared.get(ties, 0)).astype(np.int32)


def target_places(score_function: Scorer, counts: Counts, sessions: Sessions, *, batch_size: int = 512) -> Places:
    """Counts, for each session, the items that are not in the session and have a higher score than its target.

    Ties are first broken by popularity, ``score(v) + 10⁻⁶ pop(v) / max pop``, which is a part of every method's
    definition; what is equal after that is a tie. The target itself is always ranked.

    Args:
        score_function: a method of this package, or a function with the same arguments and result.
        counts: the counts of the training sessions.
        sessions: N sessions.
        batch_size: sessions scored at a time, which bounds the memory to a few times ``batch_size · V`` numbers.

    Raises:
        ValueError: an id is outside ``1..V``, the batch size is below 1, or scores are not finite ``[B, V + 1]``.
    """
    target = np.asarray(sessions.target)
    check_span("targets", target, 1, counts.num_items)
    better, equal = np.empty(len(sessions), np.int32), np.empty(len(sessions), np.int32)
    for rows, scores in _masked_scores(score_function, counts, sessions, target, batch_size):
        target_score = np.take_along_axis(scores, target[rows, None], axis=1)
        better[rows] = (scores > target_score).sum(axis=1)
        equal[rows] = (scores == target_score).sum(axis=1) - 1
    return Places(better, equal)


def rank_targets(
    score_function: Scorer, counts: Counts, sessions: Sessions, *, ties: str = "average", batch_size: int = 512
) -> Int[np.ndarray, " N"]:
    """Ranks each session's target, from 1 and as int32, see :func:`target_places` and :meth:`Places.ranks`.

    Counts tie often, so the rule for ties changes metrics: a target that shares positions 10 and 11 has rank 11 by
    ``ties="average"`` and 10 by ``ties="published"``. With these, popularity has recall@10 0.0093 and 0.0110 on the
    authors' ML test sessions.
    """
    return target_places(score_function, counts, sessions, batch_size=batch_size).ranks(ties=ties)


def top_k_lists(
    score_function: Scorer, counts: Counts, sessions: Sessions, k: int, *, batch_size: int = 512
) -> Rankings:
    """Lists the k best items that are not in the session, so that a neighbor method can be a teacher.

    The order is that of :func:`target_places`, ties to the lower id. If the counts include a session, the method has
    seen its target: for training sessions use :func:`held_out_lists`.

    Args:
        score_function: a method of this package, or a function with the same arguments and result.
        counts: the counts of the training sessions.
        sessions: N sessions.
        k: list length, at least 1.
        batch_size: sessions scored at a time.

    Returns:
        ``[N, k]`` rankings, best first; 0 and mask False where fewer than k items remain.

    Raises:
        ValueError: k is below 1, or as in :func:`target_places`.
    """
    items, _ = top_k(score_function, counts, sessions, k, batch_size=batch_size)
    return Rankings.from_top_k(sessions.session_id, items)


def top_k(
    score_function: Scorer, counts: Counts, sessions: Sessions, k: int, *, batch_size: int = 512
) -> tuple[Int[np.ndarray, "N K"], Float[np.ndarray, "N K"]]:
    """Returns the items of :func:`top_k_lists`, 0 where fewer remain, and their scores, 0 there too.

    Raises:
        ValueError: as in :func:`top_k_lists`.
    """
    check_count(1, k=k)
    # Zeros take no memory until they are written, so that a k far beyond the catalogue does no harm.
    list_items, list_scores = np.zeros((len(sessions), k), np.int32), np.zeros((len(sessions), k))
    num_best = min(k, counts.num_items)
    no_exception = np.full(len(sessions), PAD)
    for rows, batch_scores in _masked_scores(score_function, counts, sessions, no_exception, batch_size):
        for row, scores in zip(rows, batch_scores, strict=True):
            least = np.partition(scores, -num_best)[-num_best]
            candidates = np.flatnonzero((scores >= least) & (scores > -np.inf))
            best = candidates[np.argsort(-scores[candidates], kind="stable")[:k]]
            list_items[row, : best.size], list_scores[row, : best.size] = best, scores[best]
    return list_items, list_scores


def held_out_lists(
    score_function: Scorer, sequences: Sequences, num_items: int, sessions: Sessions, k: int, *, folds: int = 10
) -> Rankings:
    """Lists the k best items for each training session by counts that exclude it, see :func:`held_out_folds`.

    Args:
        score_function: a method of this package, or a function with the same arguments and result.
        sequences: N training sessions at full length.
        num_items: V.
        sessions: the same N sessions in the same order.
        k: list length, at least 1.
        folds: number of folds, in ``2..N``; N leaves out one session at a time.

    Returns:
        ``[N, k]`` rankings, as in :func:`top_k_lists`.

    Raises:
        ValueError: the numbers of sessions and sequences differ, folds is outside ``2..N``, or as in
            :func:`alkd_jax.baselines.count` and :func:`top_k_lists`.
    """
    if len(sequences) != len(sessions):
        raise ValueError(f"number of sessions is {len(sessions)}; expected {len(sequences)}, as of sequences")
    lists, rows_of_folds = [], []
    for counts, rows in held_out_folds(sequences, num_items, folds=folds):
        lists.append(top_k_lists(score_function, counts, sessions.take(rows), k))
        rows_of_folds.append(rows)
    order = np.argsort(np.concatenate(rows_of_folds))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *lists).take(order)


def _masked_scores(
    score_function: Scorer, counts: Counts, sessions: Sessions, exception: Int[np.ndarray, " N"], batch_size: int
) -> Iterator[tuple[Int[np.ndarray, " B"], Float[np.ndarray, "B V1"]]]:
    """Yields row numbers and scores with ties broken, -inf for padding and for the session's items.

    ``exception`` holds one item for each session that keeps its score, or padding.
    """
    check_count(1, batch_size=batch_size)
    items, mask = np.asarray(sessions.items), np.asarray(sessions.mask)
    tie_break = 1e-6 * counts.popularity / counts.popularity.max()
    for start in range(0, len(sessions), batch_size):
        rows = np.arange(start, min(start + batch_size, len(sessions)))
        scores = score_function(counts, items[rows], mask[rows])
        expected = (rows.size, tie_break.size)
        if scores.shape != expected:
            raise ValueError(f"shape of scores is {scores.shape}; expected finite scores of shape {expected}")
        check_finite("scores", scores)
        scores = np.round(scores + tie_break, _DECIMALS)
        exception_scores = scores[np.arange(rows.size), exception[rows]]
        row, position = np.nonzero(mask[rows])
        scores[row, items[rows][row, position]] = -np.inf
        scores[np.arange(rows.size), exception[rows]] = exception_scores
        scores[:, PAD] = -np.inf
        yield rows, scores
