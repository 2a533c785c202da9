"""SKNN, V-SKNN, STAN and V-STAN: scores from the most similar of the recent training sessions, as in session-rec."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int, Int64

from alkd_jax.baselines.counts import Counts
from alkd_jax.baselines.decays import WEIGHTINGS, by_distance, by_position, check_scale
from alkd_jax.baselines.queries import Histories, check_query_items
from alkd_jax.baselines.session_neighbors import Candidates, SessionIndex, index_sessions, inverse_frequency
from alkd_jax.checks import check_at_least, check_count, check_one_of

SIMILARITIES = ("cosine", "jaccard", "binary")
"""``|s ∩ t| / √(|s| |t|)``, ``|s ∩ t| / |s ∪ t|``, and Dice's ``2 |s ∩ t| / (|s| + |t|)``, of sets of items."""

_DECIMALS = 12
"""Similarities are compared after rounding to this many decimals of the largest."""


# Each of the three rules has ``weights`` of a history's items by their last places from 1, the ``similarity`` of
# sessions to a history whose items have these weights, and the ``decay``, the factor of each neighbor in the scores.


@dataclasses.dataclass(frozen=True)
class _Sets:
    """Sessions as sets of items."""

    kind: str

    def weights(self, place: Int64[np.ndarray, " I"], length: int) -> Float[np.ndarray, " I"]:
        return np.ones(len(place))

    def similarity(
        self, found: Candidates, index: SessionIndex, weight: Float[np.ndarray, " I"]
    ) -> Float[np.ndarray, " C"]:
        size, own = index.size[found.session], len(weight)
        match self.kind:
            case "cosine":
                return found.overlap / np.sqrt(size * own)
            case "jaccard":
                return found.overlap / (size + own - found.overlap)
        return 2 * found.overlap / (size + own)

    def decay(self, found: Candidates, length: int) -> Float[np.ndarray, " K"]:
        return np.ones(len(found.session))


@dataclasses.dataclass(frozen=True)
class _Vectors:
    """Items of the history weighted by their places."""

    weighting: str
    weighting_score: str

    def weights(self, place: Int64[np.ndarray, " I"], length: int) -> Float[np.ndarray, " I"]:
        return by_position(place, length, self.weighting)

    def similarity(
        self, found: Candidates, index: SessionIndex, weight: Float[np.ndarray, " I"]
    ) -> Float[np.ndarray, " C"]:
        return found.overlap / max(len(weight), 1)

    def decay(self, found: Candidates, length: int) -> Float[np.ndarray, " K"]:
        return by_distance(length - found.last_match + 1, self.weighting_score)


@dataclasses.dataclass(frozen=True)
class _TimeAware:
    """Exponential weights of places and of the time between the sessions."""

    item_scale: float | int | None
    days: float | int | None
    match_scale: float | int | None = None

    def weights(self, place: Int64[np.ndarray, " I"], length: int) -> Float[np.ndarray, " I"]:
        return _exponential(length - place, self.item_scale)

    def similarity(
        self, found: Candidates, index: SessionIndex, weight: Float[np.ndarray, " I"]
    ) -> Float[np.ndarray, " C"]:
        cosine = found.overlap / (np.sqrt(np.sum(weight**2)) * np.sqrt(index.size[found.session]))
        if self.days is None or index.age is None or not len(cosine):
            return cosine
        # From the most recent candidate, not from the history: a factor of all scores, without which years underflow.
        age = index.age[found.session]
        return cosine * np.exp(-(age - age[0]) / self.days)

    def decay(self, found: Candidates, length: int) -> Float[np.ndarray, " K"]:
        return _exponential(length - found.last_match, self.match_scale)


def _exponential(steps: Int64[np.ndarray, " I"], scale: float | int | None) -> Float[np.ndarray, " I"]:
    """Returns ``exp(−steps / scale)``; 1 without a scale."""
    return np.ones(len(steps)) if scale is None else np.exp(-steps / scale)


@dataclasses.dataclass(frozen=True, eq=False)
class NeighborMethod:
    """``score(v | s) = (1 + idf(v)) Σ_{t ∈ N(s), v ∈ t} sim(s, t) decay(s, t) nearness(v, t)``, N(s) the k nearest.

    Attributes:
        index: the training sessions.
        k: number of neighbors.
        rule: weights, similarity and decay.
        item_weight: ``[V + 1]``, 1 + idf of each item.
        nearness: scale l of ``exp(−|p_v − p*| / l)``, with p_v the last place of v in t, and p* that of an item of s;
            None for 1.
    """

    index: SessionIndex
    k: int
    rule: _Sets | _Vectors | _TimeAware
    item_weight: Float[np.ndarray, " V1"]
    nearness: float | int | None = None

    def __call__(self, histories: Histories) -> Float[np.ndarray, "B V1"]:
        """Returns the scores of all items."""
        check_query_items(self.index.num_items, histories)
        scores = np.zeros((len(histories), self.index.num_items + 1))
        for row, items, real in zip(scores, histories.items, histories.mask, strict=True):
            row += self._score(items[real])
        return scores

    def _score(self, history: Int[np.ndarray, " L"]) -> Float[np.ndarray, " V1"]:
        length = len(history)
        items, from_end = np.unique(history[::-1], return_index=True)
        place = length - from_end
        weight = self.rule.weights(place, length)
        found = self.index.candidates(items, place, weight)
        similarity = self.rule.similarity(found, self.index, weight)
        # Equal similarities are rounded differently, such as 1 / √2 and 2 / √8; as ties they keep the order of recency.
        rounded = np.round(similarity / np.max(similarity, initial=np.finfo(float).tiny), _DECIMALS)
        nearest = np.argsort(-rounded, kind="stable")[: self.k]
        nearest = nearest[similarity[nearest] > 0]
        found, similarity = found.take(nearest), similarity[nearest]
        neighbor, entry = self.index.entries(found.session)
        share = (similarity * self.rule.decay(found, length))[neighbor]
        if self.nearness is not None:
            distance = np.abs(self.index.places.data[entry] - found.last_place[neighbor])
            share = share * np.exp(-distance / self.nearness)
        items = self.index.places.indices[entry]
        return self.item_weight * np.bincount(items, share, minlength=len(self.item_weight))


def sknn(counts: Counts, *, k: int = 100, sample_size: int = 1000, similarity: str = "cosine") -> NeighborMethod:
    """SKNN: ``score(v | s) = Σ_{t ∈ N(s), v ∈ t} sim(s, t)``, sessions as sets of items.

    Args:
        counts: the counts of the training sessions.
        k: number of neighbors, at least 1.
        sample_size: number of most recent sessions with an item of the history that are compared; 0 for all.
        similarity: one of :data:`SIMILARITIES`.

    Raises:
        ValueError: an option is unknown or out of range.

    Reference:
        Jannach and Ludewig, "When recurrent neural networks meet the neighborhood for session-based recommendation",
        RecSys 2017.
    """
    check_count(1, k=k)
    check_one_of("similarity", similarity, SIMILARITIES)
    return NeighborMethod(index_sessions(counts, sample_size), k, _Sets(similarity), np.ones(counts.num_items + 1))


def vsknn(
    counts: Counts,
    *,
    k: int = 100,
    sample_size: int = 1000,
    weighting: str = "div",
    weighting_score: str = "div",
    idf_weighting: float | int = 0.0,
) -> NeighborMethod:
    """V-SKNN: the sum of the weights of shared items, over the number of different items, as the similarity.

    The factor of a neighbor is w(i), with i − 1 the steps from the history's end to its last item in the neighbor.

    Args:
        counts: the counts of the training sessions.
        k: number of neighbors, at least 1.
        sample_size: number of most recent sessions with an item of the history that are compared; 0 for all.
        weighting: weights of the history's items by their places, see :func:`alkd_jax.baselines.decays.by_position`.
        weighting_score: w, see :func:`alkd_jax.baselines.decays.by_distance`.
        idf_weighting: factor of the inverse frequency, rescaled to [0, 1], that is added to an item's weight 1.

    Raises:
        ValueError: an option is unknown or out of range.

    Reference:
        Ludewig and Jannach, "Evaluation of session-based recommendation algorithms", UMUAI 2018, V-SKNN.
    """
    check_count(1, k=k)
    check_one_of("weighting", weighting, WEIGHTINGS)
    check_one_of("weighting_score", weighting_score, WEIGHTINGS)
    check_at_least(0, idf_weighting=idf_weighting)
    item_weight = 1.0 + idf_weighting * inverse_frequency(counts, rescaled=True)
    return NeighborMethod(index_sessions(counts, sample_size), k, _Vectors(weighting, weighting_score), item_weight)


def stan(
    counts: Counts,
    *,
    k: int = 100,
    sample_size: int = 5000,
    lambda_spw: float | int | None = 1.02,
    lambda_snh: float | int | None = 5.0,
    lambda_inh: float | int | None = 2.05,
) -> NeighborMethod:
    """STAN: cosine of the history, its items weighted by ``exp(−steps to the end / λ₁)``, times ``exp(−age / λ₂)``.

    Each item of a neighbor counts with ``exp(−|p_v − p*| / λ₃)``, see :class:`NeighborMethod`. Ages are taken from the
    most recent candidate, which changes all scores of a history by one factor.

    Args:
        counts: the counts of the training sessions.
        k: number of neighbors, at least 1.
        sample_size: number of most recent sessions with an item of the history that are compared; 0 for all.
        lambda_spw: λ₁, in steps; None gives all items of the history the same weight.
        lambda_snh: λ₂, in days; None does without times.
        lambda_inh: λ₃, in places; None gives all items of a neighbor the same weight.

    Raises:
        ValueError: an option is out of range, or λ₂ is given and the training sessions have no times.

    Reference:
        Garg et al., "Sequence and time aware neighborhood for session-based recommendations", SIGIR 2019.
    """
    rule = _TimeAware(lambda_spw, lambda_snh)
    item_weight = np.ones(counts.num_items + 1)
    return _time_aware(counts, k, sample_size, rule, item_weight, lambda_inh)


def vstan(
    counts: Counts,
    *,
    k: int = 100,
    sample_size: int = 5000,
    lambda_spw: float | int | None = 1.02,
    lambda_snh: float | int | None = 5.0,
    lambda_inh: float | int | None = 2.05,
    lambda_ipw: float | int | None = 1.02,
    lambda_idf: float | int | None = 5.0,
) -> NeighborMethod:
    """V-STAN: STAN with the factors ``exp(−j / λ₄)`` of a neighbor and ``1 + λ₅ idf(v)`` of an item.

    j is the number of steps from the history's end to its last item in the neighbor, and idf(v) = ln(N / pop(v)).

    Args:
        counts: the counts of the training sessions.
        k: as of :func:`stan`, as all options that are not named here.
        sample_size: as of :func:`stan`.
        lambda_spw: as of :func:`stan`.
        lambda_snh: as of :func:`stan`.
        lambda_inh: as of :func:`stan`.
        lambda_ipw: λ₄, in steps; None for the factor 1.
        lambda_idf: λ₅; None for the factor 1.

    Raises:
        ValueError: as in :func:`stan`.

    Reference:
        Ludewig et al., "Empirical analysis of session-based recommendation algorithms", UMUAI 2021, V-STAN.
    """
    check_scale("lambda_ipw", lambda_ipw)
    check_scale("lambda_idf", lambda_idf)
    rule = _TimeAware(lambda_spw, lambda_snh, lambda_ipw)
    item_weight = 1.0 + (lambda_idf or 0.0) * inverse_frequency(counts, rescaled=False)
    return _time_aware(counts, k, sample_size, rule, item_weight, lambda_inh)


def _time_aware(
    counts: Counts,
    k: int,
    sample_size: int,
    rule: _TimeAware,
    item_weight: Float[np.ndarray, " V1"],
    nearness: float | int | None,
) -> NeighborMethod:
    check_count(1, k=k)
    for name, scale in (("lambda_spw", rule.item_scale), ("lambda_snh", rule.days), ("lambda_inh", nearness)):
        check_scale(name, scale)
    if rule.days is not None and counts.sequences.time is None:
        raise ValueError(f"lambda_snh is {rule.days} days, but the training sessions have no times; expected None")
    return NeighborMethod(index_sessions(counts, sample_size), k, rule, item_weight, nearness)
