"""Rules between pairs of items: Markov chain, co-occurrence and sequential rules.

Arguments, results and errors are those of all scoring functions, see :mod:`alkd_jax.baselines.queries`.
"""

import numpy as np
from jaxtyping import Float

from alkd_jax.baselines.counts import Counts
from alkd_jax.baselines.queries import Histories, query_matrix, steps_to_end
from alkd_jax.checks import check_at_least, check_share


def markov(counts: Counts, histories: Histories) -> Float[np.ndarray, "B V1"]:
    """``score(v | s) = #(x_last → v)``, how often v directly followed the query's last item in training sessions.

    Reference:
        Ludewig and Jannach, "Evaluation of session-based recommendation algorithms", UMUAI 2018, Markov chains.
    """
    last = histories.mask & (steps_to_end(histories.mask) == 0)
    return (query_matrix(counts, histories, last.astype(np.float64)) @ counts.transitions).toarray()


def co_occurrence(counts: Counts, histories: Histories) -> Float[np.ndarray, "B V1"]:
    """``score(v | s) = Σ_{x ∈ s} C[x, v]``, C[x, v] the number of training sessions that contain both x and v.

    An item that occurs several times in the query counts each time.
    """
    return (query_matrix(counts, histories, histories.mask.astype(np.float64)) @ counts.co_occurrence).toarray()


def sequential_rules(
    counts: Counts,
    histories: Histories,
    *,
    recency: float | int = 0.65,
    backward: float | int = 0.0,
    damping: float | int = 0.3,
) -> Float[np.ndarray, "B V1"]:
    """``score(v | s) = Σ_j λʲ (F[x_j, v] + β F[v, x_j]) / pop(x_j)ᵟ``, x_j the query's item j steps before its end.

    F[x, v] counts how often v comes after x in a training session, with a weight that decays with their distance
    (``Counts.followers``).

    Args:
        counts: the counts of the training sessions.
        histories: B histories.
        recency: λ in (0, 1], the decay of an item's weight with each step to the query's end.
        backward: β ≥ 0, the weight of pairs in which v comes before x_j.
        damping: δ ≥ 0, the exponent by which the popularity of x_j reduces its weight.

    Reference:
        Ludewig and Jannach, "Evaluation of session-based recommendation algorithms", UMUAI 2018, sequential rules.
    """
    check_share("recency", recency)
    check_at_least(0, backward=backward, damping=damping)
    queries = query_matrix(counts, histories, recency ** steps_to_end(histories.mask))
    queries.data /= np.maximum(counts.popularity, 1.0)[queries.indices] ** damping
    scores = queries @ counts.followers
    return (scores + backward * (queries @ counts.followers.T) if backward else scores).toarray()
