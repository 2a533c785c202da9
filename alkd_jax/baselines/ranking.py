"""Targets ranked and items listed by a training-free recommender, on the host in float64."""

from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Float, Int

from alkd_jax.baselines.counts import Counts, check_ids, count
from alkd_jax.baselines.methods import Scorer
from alkd_jax.types import PAD, Rankings, Sequences, Sessions

# Scores are compared after rounding to this many decimals: sums of the same cosines in another order differ by 1e-16,
# one occurrence in the tie-break by 1e-6 / (largest popularity).
_DECIMALS = 12


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
    check_ids(target, counts.num_items, "targets")
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
