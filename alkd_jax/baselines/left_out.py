"""Counts of pairs of items without one training session, so that a session's own target does not tell on itself."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from alkd_jax.baselines.counts import Counts
from alkd_jax.checks import check_between, check_span
from alkd_jax.models.stored_sessions import farthest_follower


@dataclasses.dataclass(frozen=True, eq=False)
class PairCounts:
    """Counts of C candidates with the H items of a session's history, as if the session had not been counted.

    Attributes:
        followers: ``[H, C]``, how often the candidate comes after the item, ``decayᵈ⁻¹`` at d positions.
        preceders: ``[H, C]``, the same before the item.
        transitions: ``[H, C]``, how often the candidate directly follows the item.
        co_occurrence: ``[H, C]``, number of sessions with both.
        history_popularity: ``[H]``, occurrences of the item.
        popularity: ``[C]``, occurrences of the candidate.
    """

    followers: Float[np.ndarray, "H C"]
    preceders: Float[np.ndarray, "H C"]
    transitions: Float[np.ndarray, "H C"]
    co_occurrence: Float[np.ndarray, "H C"]
    history_popularity: Float[np.ndarray, " H"]
    popularity: Float[np.ndarray, " C"]


def pair_counts_without(counts: Counts, session: int, candidates: Int[np.ndarray, " C"]) -> PairCounts:
    """Returns the counts of candidates with the items of a training session's history, less what the session adds.

    The history is all of the session but its last item. The counts are those of ``baselines.count`` of the other
    sessions, up to rounding; the function takes what the session contributes from the counts of all.

    Args:
        counts: the counts of the training sessions.
        session: number of the session, in ``0..N - 1``.
        candidates: items in ``1..V``, those of the session among them or not.

    Raises:
        ValueError: a number is out of its range.
    """
    check_between(0, len(counts) - 1, session=session)
    check_span("candidates", candidates, 1, counts.num_items)
    start, stop = np.asarray(counts.sequences.offsets)[session : session + 2]
    items = np.asarray(counts.sequences.items)[start:stop]
    history = items[:-1]
    distance = np.arange(len(items))[None, :] - np.arange(len(items))[:, None]
    weight = np.where(
        (distance > 0) & (distance <= farthest_follower(counts.decay)), counts.decay ** (distance - 1.0), 0.0
    )
    # An item at several positions has the pairs of all of them.
    of_history = (history[:, None] == items[None, :]).astype(np.float64)
    of_candidates = (items[:, None] == candidates[None, :]).astype(np.float64)

    def own(pairs: Float[np.ndarray, "T T"]) -> Float[np.ndarray, "H C"]:
        return of_history @ pairs @ of_candidates

    followers = counts.followers[history][:, candidates].toarray() - own(weight)
    preceders = counts.followers[candidates][:, history].toarray().T - own(weight.T)
    transitions = counts.transitions[history][:, candidates].toarray() - own((distance == 1).astype(np.float64))
    co_occurrence = counts.co_occurrence[history][:, candidates].toarray() - of_candidates.any(0)
    # Sums in another order differ by rounding, and a count is at least 0.
    return PairCounts(
        followers=np.maximum(followers, 0.0),
        preceders=np.maximum(preceders, 0.0),
        transitions=np.maximum(transitions, 0.0),
        co_occurrence=np.maximum(co_occurrence, 0.0),
        history_popularity=counts.popularity[history] - of_history.sum(1),
        popularity=counts.popularity[candidates] - of_candidates.sum(0),
    )
