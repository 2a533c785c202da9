"""Top-k lists of a training-free recommender, on the host in float64."""

import math

import jax
import numpy as np
from jaxtyping import Float, Int, Int64

from alkd_jax.baselines.counts import Counts, held_out_folds
from alkd_jax.baselines.queries import BATCH_SIZE, Histories, Method, Scorer, break_ties, call_scorer
from alkd_jax.checks import check_count
from alkd_jax.types import PAD, Rankings, Sequences, Sessions


def top_k_lists(
    scorer: Scorer,
    counts: Counts,
    sessions: Sessions,
    k: int,
    *,
    time: Int64[np.ndarray, " N"] | None = None,
    batch_size: int = BATCH_SIZE,
) -> Rankings:
    """Lists the k best items that are not in the session, so that a neighbor method can be a teacher.

    The order is that of :func:`alkd_jax.baselines.target_places`, ties to the lower id. If the counts include a
    session, the method has seen its target: for training sessions use :func:`held_out_lists`.

    Args:
        scorer: function of histories that returns scores, such as of :func:`alkd_jax.baselines.fit`.
        counts: the counts of the training sessions.
        sessions: N sessions.
        k: list length, at least 1.
        time: ``[N]`` time of each session's last item, as in :class:`alkd_jax.baselines.Histories`.
        batch_size: sessions scored at a time.

    Returns:
        ``[N, k]`` rankings, best first; 0 and mask False where fewer than k items remain.

    Raises:
        ValueError: k is below 1, or as in :func:`alkd_jax.baselines.target_places`.
    """
    items, _ = top_k(scorer, counts, sessions, k, time=time, batch_size=batch_size)
    return Rankings.from_top_k(sessions.session_id, items)


def top_k(
    scorer: Scorer,
    counts: Counts,
    sessions: Sessions,
    k: int,
    *,
    time: Int64[np.ndarray, " N"] | None = None,
    batch_size: int = BATCH_SIZE,
) -> tuple[Int[np.ndarray, "N K"], Float[np.ndarray, "N K"]]:
    """Returns the items of :func:`top_k_lists`, 0 where fewer remain, and their scores, 0 there too.

    Raises:
        ValueError: as in :func:`top_k_lists`.
    """
    check_count(1, k=k, batch_size=batch_size)
    # Zeros take no memory until they are written, so that a k far beyond the catalogue does no harm.
    list_items, list_scores = np.zeros((len(sessions), k), np.int32), np.zeros((len(sessions), k))
    num_best = min(k, counts.num_items)
    items, mask = np.asarray(sessions.items), np.asarray(sessions.mask)
    for start in range(0, len(sessions), batch_size):
        rows = slice(start, start + batch_size)
        histories = Histories(items[rows], mask[rows], None if time is None else np.asarray(time)[rows])
        batch_scores = break_ties(counts, call_scorer(scorer, counts, histories))
        np.put_along_axis(batch_scores, np.where(mask[rows], items[rows], PAD), -np.inf, axis=1)
        for row, scores in enumerate(batch_scores, start):
            best = best_items(scores, num_best)
            list_items[row, :num_best], list_scores[row, :num_best] = best, np.where(best != PAD, scores[best], 0.0)
    return list_items, list_scores


def best_items(scores: Float[np.ndarray, " V1"], k: int) -> Int[np.ndarray, " K"]:
    """Returns the k items of the highest scores, best first, ties to the lower id; 0 where fewer remain.

    Only items that score at least the k-th largest maximum of blocks of √V items are sorted: k items do, and these
    include the k best.

    Args:
        scores: of one query, −inf for what is not listed, such as the padding.
        k: list length, in ``1..V``.
    """
    width = math.isqrt(scores.size)
    num_blocks = scores.size // width
    maxima = scores[: num_blocks * width].reshape(num_blocks, width).max(axis=1) if k <= num_blocks else scores
    least = np.partition(maxima, -k)[-k]
    candidates = np.flatnonzero((scores >= least) & (scores > -np.inf))
    best = candidates[np.argsort(-scores[candidates], kind="stable")[:k]]
    return np.pad(best, (0, k - best.size), constant_values=PAD)


def held_out_lists(
    method: Method, sequences: Sequences, num_items: int, sessions: Sessions, k: int, *, folds: int = 10
) -> Rankings:
    """Lists the k best items for each training session by counts that exclude it, see :func:`held_out_folds`.

    Args:
        method: function of counts that returns a scorer, such as of :func:`alkd_jax.baselines.method`.
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
    # The last item of each session is its target, the one before it the last known.
    time = None if sequences.time is None else np.asarray(sequences.time)[np.asarray(sequences.offsets)[1:] - 2]
    for counts, rows in held_out_folds(sequences, num_items, folds=folds):
        known = None if time is None else time[rows]
        lists.append(top_k_lists(method(counts), counts, sessions.take(rows), k, time=known))
        rows_of_folds.append(rows)
    order = np.argsort(np.concatenate(rows_of_folds))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *lists).take(order)
