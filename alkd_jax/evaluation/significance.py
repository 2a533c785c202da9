"""Whether one method beats another, from stored ranks: over seeds, over sessions, and corrected for many tests.

Seeds and sessions answer different questions. Over seeds: would training again give the same order? Over sessions:
would other sessions of the same kind? A difference is worth telling where both say so.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from alkd_jax.evaluation import metrics

INTERVALS = ("percentile", "bca")
"""How a bootstrap interval is cut from its distribution."""

_VALUES_AT_A_TIME = 2**20
"""Resampled values in memory at a time: 8 MiB of float64."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is known of ``mean m(a) − mean m(b)`` for a metric m, methods a and b.

    Numbers over seeds are NaN where a side has one row of ranks, or where all seeds differ by the same amount.

    Attributes:
        metric: "recall@10" and the like.
        difference: the mean over seeds and sessions.
        interval: of the difference, by resampling sessions.
        p_randomisation: two-sided, signs of the sessions' differences drawn at random.
        p_bootstrap: two-sided, from the same resampling as ``interval``.
        effect: Cohen's d_z over sessions.
        interval_seeds: of the difference, Student's t over seeds.
        p_seeds: two-sided, paired t over seeds.
        effect_seeds: Cohen's d_z over seeds.
        num_sessions: N.
        num_seeds: pairs of seeds compared; 1 where a side has one row.
    """

    metric: str
    difference: float
    interval: tuple[float, float]
    p_randomisation: float
    p_bootstrap: float
    effect: float
    interval_seeds: tuple[float, float]
    p_seeds: float
    effect_seeds: float
    num_sessions: int
    num_seeds: int


def per_session(ranks: Int[np.ndarray, "*batch"], metric: str) -> Float[np.ndarray, "*batch"]:
    """The metric of every session, in float64.

    Args:
        ranks: positions from 1.
        metric: "recall@K", "ndcg@K" or "mrr".

    Raises:
        ValueError: the metric is unknown.
    """
    name, _, cut = metric.partition("@")
    if metric == "mrr":
        return 1.0 / ranks
    if name not in ("recall", "ndcg") or not cut.isdecimal() or int(cut) < 1:
        raise ValueError(f"metric is {metric!r}; expected recall@K, ndcg@K or mrr")
    values = metrics.recall(ranks, int(cut)) if name == "recall" else metrics.ndcg(ranks, int(cut))
    return np.asarray(values, np.float64)


def compare(
    rng: np.random.Generator,
    ranks: Int[np.ndarray, "*seeds N"],
    other: Int[np.ndarray, "*seeds_of_other M"],
    *,
    metric: str = "recall@10",
    sign_patterns: int = 10_000,
    resamples: int = 2_000,
    confidence: float = 0.95,
    interval: str = "percentile",
) -> Comparison:
    """Compares two methods that ranked the targets of the same sessions.

    Args:
        rng: consumed; decides the resamples.
        ranks: ``[N]`` or ``[S, N]``, row s of both sides being the same seed.
        other: what is subtracted; a side of one row is compared with the other's mean over seeds.
        metric: "recall@K", "ndcg@K" or "mrr".
        sign_patterns: drawn for the randomisation; where there are fewer, each is tried once and p is exact.
        resamples: of the sessions, for the bootstrap.
        confidence: of the intervals, in (0, 1).
        interval: "percentile", or "bca" for the bias-corrected and accelerated one.

    Raises:
        ValueError: sessions or seeds do not pair, there are fewer than two sessions, or an option is out of range.
    """
    for name, number in (("sign_patterns", sign_patterns), ("resamples", resamples)):
        if number < 1:
            raise ValueError(f"{name} is {number}; expected at least 1")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected between 0 and 1")
    if interval not in INTERVALS:
        raise ValueError(f"interval is {interval!r}; expected one of {', '.join(INTERVALS)}")
    mine, theirs = np.atleast_2d(ranks), np.atleast_2d(other)
    if mine.shape[1] != theirs.shape[1] or mine.shape[1] < 2:
        raise ValueError(f"ranks of {mine.shape[1]} and {theirs.shape[1]} sessions; expected the same two or more")
    if len(mine) != len(theirs) and 1 not in (len(mine), len(theirs)):
        raise ValueError(f"ranks of {len(mine)} and {len(theirs)} seeds; expected as many, or one")
    values, other_values = per_session(mine, metric), per_session(theirs, metric)
    by_session = values.mean(0) - other_values.mean(0)
    num_seeds = min(len(values), len(other_values))
    by_seed = values.mean(1) - other_values.mean(1) if num_seeds > 1 else np.zeros(0)
    p_randomisation = randomization_test(rng, by_session, sign_patterns=sign_patterns)
    p_bootstrap, over_sessions = bootstrap(
        rng, by_session, resamples=resamples, confidence=confidence, interval=interval
    )
    p_seeds, over_seeds = paired_t(by_seed, confidence=confidence)
    return Comparison(
        metric=metric,
        difference=float(by_session.mean()),
        interval=over_sessions,
        p_randomisation=p_randomisation,
        p_bootstrap=p_bootstrap,
        effect=effect_size(by_session),
        interval_seeds=over_seeds,
        p_seeds=p_seeds,
        effect_seeds=effect_size(by_seed),
        num_sessions=by_session.size,
        num_seeds=num_seeds,
    )


def randomization_test(
    rng: np.random.Generator, differences: Float[np.ndarray, " N"], *, sign_patterns: int = 10_000
) -> float:
    """Two-sided p of a mean of paired differences, if each could as well have had the other sign.

    Args:
        rng: consumed.
        differences: of the pairs, any number of them, zero and one among these.
        sign_patterns: how many are drawn; all ``2^N`` once where there are no more.

    Returns:
        p; 1 where fewer than two pairs differ.
    """
    # A pair without a difference has no sign to turn: leaving it out changes no sum, and most sessions are such.
    moved = differences[differences != 0]
    if moved.size < 2:
        return 1.0
    batch = max(1, _VALUES_AT_A_TIME // moved.size)
    # 2^N ≤ sign_patterns, in whole numbers: as a float 2^1024 is too large.
    if moved.size < int(sign_patterns).bit_length():
        outcome = stats.permutation_test(
            (moved,), np.sum, permutation_type="samples", vectorized=True, n_resamples=sign_patterns, batch=batch
        )
        return float(outcome.pvalue)
    drawn = stats.monte_carlo_test(
        moved,
        lambda size: moved * (2 * rng.integers(0, 2, size, np.int8) - 1),
        np.sum,
        vectorized=True,
        n_resamples=sign_patterns,
        batch=batch,
    )
    return float(drawn.pvalue)


def bootstrap(
    rng: np.random.Generator,
    difference: Float[np.ndarray, " N"],
    *,
    resamples: int = 2_000,
    confidence: float = 0.95,
    interval: str = "percentile",
) -> tuple[float, tuple[float, float]]:
    """Two-sided p and interval of a mean of paired differences, from drawing pairs with replacement.

    ``p = 2 min(#{θ* ≤ 0} + 1, #{θ* ≥ 0} + 1) / (R + 1)``, at most 1.

    Args:
        rng: consumed.
        difference: of the pairs, at least two.
        resamples: R.
        confidence: of the interval.
        interval: "percentile" or "bca".
    """
    mean = float(difference.mean())
    if np.ptp(difference) == 0:
        return (1.0 if mean == 0 else 2.0 / (resamples + 1)), (mean, mean)
    outcome = stats.bootstrap(
        (difference,),
        np.mean,
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, _VALUES_AT_A_TIME // difference.size),
        confidence_level=confidence,
        method="BCa" if interval == "bca" else "percentile",
        rng=rng,
    )
    drawn = outcome.bootstrap_distribution
    rarer = min((drawn <= 0).sum(), (drawn >= 0).sum())
    low, high = outcome.confidence_interval
    return float(min(1.0, 2 * (rarer + 1) / (resamples + 1))), (float(low), float(high))


def paired_t(difference: Float[np.ndarray, " S"], *, confidence: float = 0.95) -> tuple[float, tuple[float, float]]:
    """Two-sided p and interval of a mean of paired differences by Student's t.

    Args:
        difference: of the pairs.
        confidence: of the interval.

    Returns:
        NaN for all three where there are fewer than two pairs, or all differ by the same amount: the variance that t
        divides by is then not known, however equal the pairs look.
    """
    if difference.size < 2 or _is_constant(difference):
        return float("nan"), (float("nan"), float("nan"))
    outcome = stats.ttest_1samp(difference, 0.0)
    low, high = outcome.confidence_interval(confidence)
    return float(outcome.pvalue), (float(low), float(high))


def effect_size(difference: Float[np.ndarray, " N"]) -> float:
    """Cohen's ``d_z = mean / standard deviation`` of paired differences; NaN where they do not vary.

    Reference:
        Lakens, Calculating and reporting effect sizes, Frontiers in Psychology 2013.
    """
    if difference.size < 2 or _is_constant(difference):
        return float("nan")
    return float(difference.mean() / difference.std(ddof=1))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Adjusts p-values so that the chance of any false alarm among them stays below the level.

    With the p-values in rising order, ``p'_i = max_{j ≤ i} min(1, (M − j + 1) p_j)``.

    Args:
        p_values: M of them, in [0, 1]; NaN, a test that could not be made, counts for nothing and stays NaN.

    Raises:
        ValueError: a p-value is outside [0, 1].

    Reference:
        Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 1979.
    """
    given = np.asarray(p_values, np.float64)
    made = np.flatnonzero(~np.isnan(given))
    if ((given[made] < 0) | (given[made] > 1)).any():
        raise ValueError(f"p-values span {np.nanmin(given)}..{np.nanmax(given)}; expected 0..1")
    rising = made[np.argsort(given[made], kind="stable")]
    adjusted = given.copy()
    adjusted[rising] = np.minimum(1.0, np.maximum.accumulate(np.arange(made.size, 0, -1) * given[rising]))
    return adjusted


def _is_constant(values: np.ndarray) -> bool:
    """Whether values differ by no more than rounding."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())
