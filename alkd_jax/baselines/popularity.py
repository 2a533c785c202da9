"""Popularity: the most frequent items of the training sessions, of their last days, or of the session itself."""

import dataclasses

import numpy as np
from jaxtyping import Float

from alkd_jax.baselines.counts import Counts
from alkd_jax.baselines.decays import check_scale
from alkd_jax.baselines.queries import Histories, check_query_items, query_matrix


def popularity(counts: Counts, histories: Histories) -> Float[np.ndarray, "B V1"]:
    """``score(v | s) = pop(v)``, the number of occurrences of v in the training sessions.

    Arguments, result and errors are those of all scoring functions, see :mod:`alkd_jax.baselines.queries`.
    """
    check_query_items(counts.num_items, histories)
    return np.repeat(counts.popularity[None], len(histories), axis=0)


@dataclasses.dataclass(frozen=True, eq=False)
class RecentPopularity:
    """``score(v | s)``, the number of occurrences of v in the last days of the training sessions.

    Attributes:
        occurrences: ``[V + 1]``.
    """

    occurrences: Float[np.ndarray, " V1"]

    def __call__(self, histories: Histories) -> Float[np.ndarray, "B V1"]:
        """Returns the scores of all items."""
        check_query_items(len(self.occurrences) - 1, histories)
        return np.repeat(self.occurrences[None], len(histories), axis=0)


def recent_popularity(counts: Counts, *, days: float | int = 7.0) -> RecentPopularity:
    """Counts the items of the last days.

    Args:
        counts: the counts of the training sessions.
        days: length of the time before the last training event, which counts, above 0.

    Raises:
        ValueError: ``days`` is out of range, or the training sessions have no times.
    """
    check_scale("days", days)
    if counts.sequences.time is None:
        raise ValueError(f"days is {days}, but the training sessions have no times; expected sessions with times")
    time = np.asarray(counts.sequences.time, np.int64)
    recent = np.asarray(counts.sequences.items)[time.max() - time <= days * 86_400_000]
    return RecentPopularity(np.bincount(recent, minlength=counts.num_items + 1).astype(np.float64))


def session_popularity(counts: Counts, histories: Histories) -> Float[np.ndarray, "B V1"]:
    """``score(v | s) = #(v in s) + pop(v) / (1 + pop(v))``: the session's items by their count, then popularity.

    Arguments, result and errors are those of all scoring functions, see :mod:`alkd_jax.baselines.queries`.

    Reference:
        Hidasi et al., "Session-based recommendations with recurrent neural networks", ICLR 2016, S-POP.
    """
    own = query_matrix(counts, histories, histories.mask.astype(np.float64)).toarray()
    return own + counts.popularity / (1.0 + counts.popularity)
