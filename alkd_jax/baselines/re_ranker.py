"""A linear re-ranker: a conditional logit over what counts and titles say of some hundred candidates of a session.

It reads all training sessions and the titles for every answer, so that it is no student; it says how far a linear
model of these can get, which a student may be measured against, or learn from.
"""

import dataclasses
import typing
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

from alkd_jax.baselines.pair_features import PairFeatures
from alkd_jax.baselines.queries import Histories, Scorer
from alkd_jax.checks import check_count
from alkd_jax.evaluation import conditional_logit
from alkd_jax.evaluation.conditional_logit import Choices
from alkd_jax.types import PAD

_BATCH = 64


@dataclasses.dataclass(frozen=True, eq=False)
class Candidates:
    """The candidates of B sessions and their features.

    Attributes:
        items: ``[B, C]``, distinct in each row; 0 where there is none.
        features: ``[B, C, F]``.
    """

    items: Int[np.ndarray, "B C"]
    features: Float[np.ndarray, "B C F"]

    @property
    def mask(self) -> Bool[np.ndarray, "B C"]:
        """True on candidates."""
        return self.items != PAD

    def are_of(self, histories: Histories) -> Bool[np.ndarray, "B C"]:
        """Whether each candidate is an item of its session's history."""
        known = np.where(histories.mask, histories.items, -1)
        return (self.items[:, :, None] == known[:, None, :]).any(2)


@typing.runtime_checkable
class CandidateRanker(typing.Protocol):
    """What ranks candidates by their features."""

    def scores(self, candidates: Candidates) -> Float[np.ndarray, "B C"]:
        """Returns the scores of candidates, −inf where there is none."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class ReRanker:
    """A fitted re-ranker: ``score(v | s) = βᵀ (f(s, v) − μ) / σ``.

    Attributes:
        coefficients: ``[F]`` β.
        mean: ``[F]`` μ of the candidates that it was fitted to.
        deviation: ``[F]`` σ; infinite for a feature that did not vary.
    """

    coefficients: Float[np.ndarray, " F"]
    mean: Float[np.ndarray, " F"]
    deviation: Float[np.ndarray, " F"]

    def scores(self, candidates: Candidates) -> Float[np.ndarray, "B C"]:
        """Returns the scores of candidates, −inf where there is none."""
        scores = (candidates.features - self.mean) @ (self.coefficients / self.deviation)
        return np.where(candidates.mask, scores, -np.inf)


def find_candidates(
    features: PairFeatures, histories: Histories, sessions: Int[np.ndarray, " B"] | None = None, *, places: int = 50
) -> Candidates:
    """Finds and describes the candidates of sessions: the best of rules, of similar sessions and of titles.

    Args:
        features: counts and titles.
        histories: B histories.
        sessions: ``[B]``, the training session that each row leaves out of all counts; −1 or None for none.
        places: number of candidates that each way of counting proposes, at least 1.

    Raises:
        ValueError: an option is out of range, or an item or a session does not exist.
    """
    check_count(1, places=places)
    scores = features.scores(histories, sessions)
    rows = features.candidates(scores, places)
    items = np.full((len(rows), max(1, *map(len, rows)) if rows else 1), PAD, np.int64)
    for row, found in zip(items, rows, strict=True):
        row[: len(found)] = found
    described = features.describe(scores, items, sessions)
    return Candidates(items, np.where((items != PAD)[..., None], described, 0.0))


def training_choices(
    features: PairFeatures,
    histories: Histories,
    target: Int[np.ndarray, " N"],
    sessions: Int[np.ndarray, " N"],
    *,
    places: int = 50,
) -> Choices:
    """Returns the choices of training sessions, each described by the counts of all other sessions.

    Items of the history are no candidates, the target excepted. Sessions whose target is no candidate are left out,
    because a target that is added to them would be told by having no scores.

    Args:
        features: counts and titles.
        histories: the known items of N training sessions.
        target: their next items.
        sessions: their numbers among the training sessions.
        places: as of :func:`find_candidates`.

    Raises:
        ValueError: no session has its target among its candidates, or as of :func:`find_candidates`.
    """
    parts = []
    for start in range(0, len(histories), _BATCH):
        rows = slice(start, start + _BATCH)
        known = Histories(histories.items[rows], histories.mask[rows])
        found = find_candidates(features, known, sessions[rows], places=places)
        is_target = found.items == target[rows, None]
        mask = found.mask & (~found.are_of(known) | is_target)
        kept = is_target.any(1) & (mask.sum(1) > 1)
        parts.append((found.features[kept].astype(np.float32), mask[kept], is_target[kept].argmax(1)))
    width = max(mask.shape[1] for _, mask, _ in parts) if parts else 0
    if not sum(len(mask) for _, mask, _ in parts):
        raise ValueError(f"none of the {len(histories)} sessions has its next item among its candidates; expected some")

    def padded(array: np.ndarray) -> np.ndarray:
        return np.pad(array, [(0, 0), (0, width - array.shape[1])] + [(0, 0)] * (array.ndim - 2))

    return Choices(
        np.concatenate([padded(array) for array, _, _ in parts]).astype(np.float64),
        np.concatenate([padded(mask) for _, mask, _ in parts]),
        np.concatenate([chosen for _, _, chosen in parts]),
    )


def fit_re_ranker(choices: Choices, *, ridge: float = 10.0) -> ReRanker:
    """Fits the conditional logit of candidates, whose features are scaled to mean 0 and standard deviation 1.

    Args:
        choices: of :func:`training_choices`.
        ridge: penalty of the coefficients, see :func:`alkd_jax.evaluation.conditional_logit.fit`.

    Raises:
        ValueError: as of the fit.
    """
    listed = choices.features[choices.mask]
    mean, deviation = listed.mean(0), listed.std(0)
    is_constant = deviation <= 1e-12 * np.abs(listed).max(0, initial=0.0)
    deviation = np.where(is_constant, np.inf, deviation)
    coefficients = conditional_logit.fit(conditional_logit.standardized(choices), ridge=ridge)
    return ReRanker(coefficients, mean, deviation)


def re_ranker_scorer(
    features: PairFeatures, ranker: CandidateRanker, find: Callable[[Histories], Candidates] | None = None
) -> Scorer:
    """Returns the scorer of a re-ranker: candidates in the order of its scores, and all other items behind them.

    Args:
        features: counts and titles.
        ranker: the fitted re-ranker.
        find: function that finds candidates, :func:`find_candidates` with its defaults where it is None.

    Returns:
        A scorer that breaks ties, see :func:`full_scores`; other items have at most half, by their popularity.

    Example:
        >>> data = alkd.data.synthetic(seed=0)
        >>> known, sessions = data.train.take(slice(200)), np.arange(200)
        >>> features = alkd.baselines.pair_features(data.train_sequences, data.num_items)
        >>> histories = alkd.baselines.Histories(np.asarray(known.items), np.asarray(known.mask))
        >>> choices = alkd.baselines.training_choices(features, histories, np.asarray(known.target), sessions)
        >>> scorer = alkd.baselines.re_ranker_scorer(features, alkd.baselines.fit_re_ranker(choices))
        >>> scorer(histories).shape == (200, data.num_items + 1)
        True
    """
    rest = 0.5 * features.counts.popularity / features.counts.popularity.max()

    def scores(histories: Histories) -> Float[np.ndarray, "B V1"]:
        found = find_candidates(features, histories) if find is None else find(histories)
        return full_scores(found, ranker, rest)

    return scores


def full_scores(
    candidates: Candidates, ranker: CandidateRanker, rest: Float[np.ndarray, " V1"]
) -> Float[np.ndarray, "B V1"]:
    """Returns ``1 + 1 / (1 + max s − s_v)`` of candidates with scores s, and below 1 that of all other items.

    Args:
        candidates: of B sessions.
        ranker: the re-ranker.
        rest: scores below 1 of items that are no candidates.
    """
    found = ranker.scores(candidates)
    best = np.max(found, axis=1, keepdims=True, initial=-1e300)
    value = 1.0 + 1.0 / (1.0 + best - found)
    full = np.tile(rest, (len(found), 1))
    row, place = np.nonzero(candidates.mask)
    full[row, candidates.items[row, place]] = value[row, place]
    return full
