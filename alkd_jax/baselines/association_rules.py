"""Association and sequential rules of the session-rec framework, with its weights and its pruning.

Both read the last item of a history; sequential rules can read some before it.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int64
from scipy.sparse import csr_array

from alkd_jax.baselines.counts import Counts
from alkd_jax.baselines.decays import WEIGHTINGS, by_distance
from alkd_jax.baselines.queries import Histories, check_query_items, steps_to_end
from alkd_jax.checks import check_count, check_one_of
from alkd_jax.types import Sequences

_PAIRS_AT_A_TIME = 2_000_000


@dataclasses.dataclass(frozen=True, eq=False)
class AssociationRules:
    """``score(v | s) = Σ_j w_j rule[x_j, v]``, x_j the history's item j steps before its end.

    Attributes:
        rules: ``[V + 1, V + 1]``, the strength of the rule from the row's item to the column's.
        weights: ``[J]``, w_j; 1 for the last item.
    """

    rules: csr_array
    weights: Float[np.ndarray, " J"]

    def __call__(self, histories: Histories) -> Float[np.ndarray, "B V1"]:
        """Returns the scores of all items."""
        check_query_items(self.rules.shape[0] - 1, histories)
        steps = steps_to_end(histories.mask)
        row, place = np.nonzero(histories.mask & (steps < len(self.weights)))
        weights = self.weights[steps[row, place]]
        shape = (len(histories), self.rules.shape[0])
        queries = csr_array((weights, (row, histories.items[row, place])), shape=shape)
        return (queries @ self.rules).toarray()


def association_rules(counts: Counts, *, pruning: int = 10) -> AssociationRules:
    """``rule[a, b]`` is the number of pairs of places in a session that hold a and b, in either order.

    A pair of places with the same item counts twice, once for each order.

    Args:
        counts: the counts of the training sessions.
        pruning: number of strongest rules that each item keeps, ties by the order in which the rules were first met;
            0 keeps all.

    Raises:
        ValueError: pruning is negative.

    Reference:
        Ludewig and Jannach, "Evaluation of session-based recommendation algorithms", UMUAI 2018, simple association
        rules.
    """
    check_count(0, pruning=pruning)
    return AssociationRules(_mine(counts, None, "same", pruning), np.ones(1))


def sequential_rules_by_distance(
    counts: Counts,
    *,
    steps: int = 10,
    weighting: str = "div",
    pruning: int = 20,
    last_in_session: int = 0,
    session_weighting: str | None = None,
) -> AssociationRules:
    """``rule[a, b] = Σ w(i)`` over the places of b that are i ≤ ``steps`` places after one of a in a session.

    Args:
        counts: the counts of the training sessions.
        steps: the largest distance of a pair, at least 1.
        weighting: w, one of :data:`alkd_jax.baselines.decays.WEIGHTINGS`.
        pruning: number of strongest rules that each item keeps, ties by the order in which the rules were first met;
            0 keeps all.
        last_in_session: number of items before the last one that are read too, with the weights w(2), w(3), …
        session_weighting: the w of these; None for ``weighting``.

    Raises:
        ValueError: an option is unknown or out of range.

    Reference:
        Ludewig and Jannach, "Evaluation of session-based recommendation algorithms", UMUAI 2018, sequential rules.
    """
    check_count(1, steps=steps)
    check_count(0, pruning=pruning, last_in_session=last_in_session)
    check_one_of("weighting", weighting, WEIGHTINGS)
    if session_weighting is not None:
        check_one_of("session_weighting", session_weighting, WEIGHTINGS)
    rules = _mine(counts, steps, weighting, pruning)
    earlier = by_distance(np.arange(2, last_in_session + 2), session_weighting or weighting)
    return AssociationRules(rules, np.concatenate([[1.0], earlier]))


def _mine(counts: Counts, steps: int | None, weighting: str, pruning: int) -> csr_array:
    """Sums the weights of pairs in the order of the sessions, in blocks, and prunes; ``steps`` None: in both orders."""
    items, width = np.asarray(counts.sequences.items, np.int64), counts.num_items + 1
    num_before = _num_before(counts.sequences)
    reach = num_before if steps is None else np.minimum(num_before, steps)
    block = np.cumsum(reach) // _PAIRS_AT_A_TIME
    key, first, num_pairs = np.empty(0, np.int64), np.empty(0, np.int64), 0
    strength: Float[np.ndarray, " R"] = np.empty(0)
    for start, stop in _runs(block):
        later = np.repeat(np.arange(start, stop), reach[start:stop])
        ends = np.cumsum(reach[start:stop])
        distance = 1 + np.arange(len(later)) - np.repeat(ends - reach[start:stop], reach[start:stop])
        if steps is None:
            # The earliest place first, and each pair of places in both orders.
            a, b = items[later + distance - 1 - reach[later]], items[later]
            pairs, weights = np.stack([a * width + b, b * width + a], axis=1).ravel(), np.ones(2 * len(later))
        else:
            pairs, weights = items[later - distance] * width + items[later], by_distance(distance, weighting)
        # The sums so far stand first, so that each is added to in the order of the sessions, in which rounding matters
        # for ties. An entry's first meeting is its own where it is in the sums.
        met = np.concatenate([first, num_pairs + np.arange(len(pairs))])
        key, index, inverse = np.unique(np.concatenate([key, pairs]), return_index=True, return_inverse=True)
        strength = np.bincount(inverse, np.concatenate([strength, weights]), minlength=len(key)).astype(np.float64)
        first, num_pairs = met[index], num_pairs + len(pairs)
    row, column = np.divmod(key, width)
    kept = _strongest(row, strength, first, pruning) if pruning else slice(None)
    return csr_array((strength[kept], (row[kept], column[kept])), shape=(width, width))


def _num_before(sequences: Sequences) -> Int64[np.ndarray, " T"]:
    """Returns the number of items before each one in its session."""
    offsets = np.asarray(sequences.offsets, np.int64)
    return np.arange(offsets[-1]) - np.repeat(offsets[:-1], np.diff(offsets))


def _runs(block: Int64[np.ndarray, " T"]) -> list[tuple[int, int]]:
    """Returns start and stop of every run of equal numbers."""
    starts = np.flatnonzero(np.diff(block, prepend=-1))
    return list(zip(starts.tolist(), [*starts[1:].tolist(), len(block)], strict=True))


def _strongest(
    row: Int64[np.ndarray, " R"], strength: Float[np.ndarray, " R"], first: Int64[np.ndarray, " R"], most: int
) -> Int64[np.ndarray, " K"]:
    """Returns the entries that are among the ``most`` strongest of their row, ties to those that were met first."""
    order = np.lexsort((first, -strength, row))
    sizes = np.bincount(row)
    rank = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return order[rank < most]
