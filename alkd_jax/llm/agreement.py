"""Several rankings of the same candidates: their fusion, their agreement, and how far they follow the order as shown.

A ranking that depends on the order in which candidates were shown says little about them. Asked again with the
candidates in another order, a teacher agrees with itself as far as it judges the candidates.
"""

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from alkd_jax.checks import check_at_least

RECIPROCAL_RANK_OFFSET: Final = 60
"""The constant of Cormack et al., by which the first places do not decide alone."""


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How far rankings of the same session agree, as means over all pairs.

    Attributes:
        kendall_tau: over the items that both rankings list, from -1 to 1; NaN where no pair shares two items.
        overlap: share of the shorter list's items that the other lists as well, from 0 to 1; NaN without a pair.
        pairs: number of pairs.
    """

    kendall_tau: float
    overlap: float
    pairs: int


def fuse_rankings(
    rankings: Sequence[Sequence[int]], k: int, *, offset: int = RECIPROCAL_RANK_OFFSET
) -> tuple[int, ...]:
    """Fuses rankings by reciprocal rank: score(i) = Σ_r 1 / (offset + rank_r(i)).

    Args:
        rankings: each of distinct items, best first; an item that a ranking does not list adds nothing.
        k: length of the fused ranking at most, from 1.
        offset: added to ranks, which count from 1; from 0.

    Returns:
        At most k items, the highest score first; equal scores by the best rank, then by the number of the item.

    Raises:
        ValueError: `k` or `offset` is out of its range, or a ranking lists an item twice.

    Reference:
        Cormack, Clarke and Buettcher, Reciprocal Rank Fusion, SIGIR 2009.
    """
    check_at_least(1, k=k)
    check_at_least(0, offset=offset)
    scores: defaultdict[int, float] = defaultdict(float)
    best: dict[int, int] = {}
    for number, ranking in enumerate(rankings):
        _check_distinct(number, ranking)
        for rank, item in enumerate(ranking, start=1):
            scores[item] += 1 / (offset + rank)
            best[item] = min(rank, best.get(item, rank))
    return tuple(sorted(scores, key=lambda item: (-scores[item], best[item], item))[:k])


def self_agreement(rankings: Sequence[Sequence[int]]) -> Agreement:
    """Measures how far rankings agree that the same question gave with its candidates in other orders.

    Args:
        rankings: each of distinct items, best first.

    Returns:
        Kendall's τ and overlap, as means over all pairs of rankings.

    Raises:
        ValueError: a ranking lists an item twice.
    """
    for number, ranking in enumerate(rankings):
        _check_distinct(number, ranking)
    pairs = [(a, b) for a, b in itertools.combinations(rankings, 2) if a and b]
    taus = [tau for a, b in pairs if not np.isnan(tau := kendall_tau(a, b))]
    overlaps = [len(set(a) & set(b)) / min(len(a), len(b)) for a, b in pairs]
    return Agreement(
        float(np.mean(taus)) if taus else float("nan"),
        float(np.mean(overlaps)) if overlaps else float("nan"),
        len(pairs),
    )


def mean_agreement(lists: Iterable[Sequence[Sequence[int]]]) -> Agreement:
    """The mean of :func:`self_agreement` over the sessions that have one.

    Args:
        lists: of each session, its rankings.

    Returns:
        Means over sessions, and the number of all pairs.
    """
    known = [one for one in map(self_agreement, lists) if not np.isnan(one.kendall_tau)]
    if not known:
        return Agreement(float("nan"), float("nan"), 0)
    tau, overlap = (float(np.mean([getattr(one, name) for one in known])) for name in ("kendall_tau", "overlap"))
    return Agreement(tau, overlap, sum(one.pairs for one in known))


def kendall_tau(first: Sequence[int], second: Sequence[int]) -> float:
    """Kendall's τ of two rankings over the items of both: (concordant − discordant) / number of pairs.

    Args:
        first: distinct items, best first.
        second: distinct items, best first.

    Returns:
        From -1, reversed, to 1, the same order; NaN where fewer than two items are in both.
    """
    places = {item: place for place, item in enumerate(second)}
    order = np.array([places[item] for item in first if item in places])
    if len(order) < 2:
        return float("nan")
    signs = np.sign(order[None, :] - order[:, None])[np.triu_indices(len(order), 1)]
    return float(signs.mean())


def position_bias(shown: Sequence[Sequence[int]], rankings: Sequence[Sequence[int]]) -> float:
    """Measures how far rankings follow the order in which their candidates were shown: the mean of Kendall's τ.

    Args:
        shown: of each question, its candidates as shown.
        rankings: of each question, the answer, best first; one that is too short for a τ is left out.

    Returns:
        From -1 to 1; 1 where every answer repeats the order of the question, near 0 where there is no bias, because
        questions show their candidates in random order. NaN without an answer.

    Raises:
        ValueError: there are not as many rankings as questions.
    """
    if len(shown) != len(rankings):
        raise ValueError(f"rankings are {len(rankings)}; expected {len(shown)}, one for each question")
    taus = [kendall_tau(order, ranking) for order, ranking in zip(shown, rankings, strict=True)]
    known = [tau for tau in taus if not np.isnan(tau)]
    return float(np.mean(known)) if known else float("nan")


def _check_distinct(number: int, ranking: Sequence[int]) -> None:
    """Raises ValueError where a ranking lists an item twice."""
    if len(set(ranking)) < len(ranking):
        raise ValueError(f"ranking {number} lists an item twice; expected distinct items")
