"""Statistical tests of whether one method is better than another, from stored ranks.

Tests over seeds ask whether training again would give the same order of the methods; tests over sessions ask whether
other sessions of the same kind would. A difference is worth reporting where both tests show it. :func:`holm` corrects
for several tests.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy  # Its part stats takes a second to import, and is imported when it is first used.
from jaxtyping import Float, Int

from alkd_jax.checks import check_count, check_one_of, check_ranks, check_where
from alkd_jax.evaluation import metrics

INTERVALS = ("percentile", "bca")
"""Kinds of bootstrap intervals."""

_METRICS = {"recall": metrics.recall, "ndcg": metrics.ndcg, "mrr": metrics.reciprocal_rank}

_BATCH_VALUES = 2**20
"""Resampled values that are in memory at the same time: 8 MiB of float64."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Estimates and tests of ``mean m(a) − mean m(b)`` for a metric m and two methods a and b.

    Numbers over seeds are NaN where a method has one row of ranks, or where the difference is the same for all seeds.

    Attributes:
        metric: "recall@10" and the like.
        difference: the difference of the means over seeds and sessions.
        interval: confidence interval of the difference, by resampling sessions.
        p_randomization: two-sided p of the randomization test, which draws the signs of the sessions' differences.
        p_bootstrap: two-sided p from the same resamples as ``interval``.
        effect: Cohen's d_z over sessions; of the sums of their differences where they have several queries.
        interval_seeds: confidence interval of the difference by Student's t over seeds.
        p_seeds: two-sided p of the paired t-test over seeds.
        effect_seeds: Cohen's d_z over seeds.
        num_sessions: number of sessions, the units that are resampled.
        num_queries: P, number of ranks of each method; the number of sessions where each has one query.
        num_seeds: number of pairs of seeds; 1 where a method has one row of ranks.
    """

    metric: str
    difference: float
    interval: tuple[float, float]
    p_randomization: float
    p_bootstrap: float
    effect: float
    interval_seeds: tuple[float, float]
    p_seeds: float
    effect_seeds: float
    num_sessions: int
    num_queries: int
    num_seeds: int


def per_session(ranks: Int[np.ndarray, "*batch"], metric: str) -> Float[np.ndarray, "*batch"]:
    """The metric of each session, or of each query where a session has several, in float64.

    Args:
        ranks: positions from 1.
        metric: "recall@K", "ndcg@K", "mrr@K" or "mrr".

    Raises:
        ValueError: the metric is unknown, or a rank is no whole number of at least 1.
    """
    name, _, k = metric.partition("@")
    if metric == "mrr":
        check_ranks("ranks", ranks)
        return 1.0 / ranks
    if name not in _METRICS or not k.isdecimal() or int(k) < 1:
        raise ValueError(f"metric is {metric!r}; expected recall@K, ndcg@K, mrr@K or mrr")
    return np.asarray(_METRICS[name](ranks, int(k)), np.float64)


def compare(
    rng: np.random.Generator,
    ranks: Int[np.ndarray, "*seeds P"],
    other: Int[np.ndarray, "*seeds_of_other Q"],
    *,
    session_id: Int[np.ndarray, " P"] | None = None,
    metric: str = "recall@10",
    sign_patterns: int = 10_000,
    resamples: int = 2_000,
    confidence: float = 0.95,
    interval: str = "percentile",
) -> Comparison:
    """Compares two methods that ranked the targets of the same queries.

    The queries of a session depend on each other, so a test over sessions draws whole sessions. With d the differences
    of a session's n queries, a sign or a resample concerns its sum ``Σ d``, and an estimate is the ratio of the sums of
    ``Σ d`` and of n: the difference of the reported means over queries, in which a session weighs as much as it has
    queries.

    Args:
        rng: a random generator, for the sign patterns and resamples; the function advances it.
        ranks: ranks of the first method, ``[P]``, or ``[S, P]`` with one row for each seed.
        other: ranks of the second method, ``[P]`` or ``[S, P]``; row s is of the same seed as row s of ``ranks``. A
            method with one row is compared with the mean of the other over its seeds.
        session_id: ``[P]`` session of each query; None where each query is of a session of its own.
        metric: "recall@K", "ndcg@K", "mrr@K" or "mrr".
        sign_patterns: number of random sign patterns; if fewer exist, each is tried once and p is exact.
        resamples: number of resamples of the bootstrap.
        confidence: confidence level of the intervals, in (0, 1).
        interval: "percentile", or "bca" for the bias-corrected and accelerated interval.

    Raises:
        ValueError: the numbers of queries or seeds differ, there are fewer than two sessions or no seeds, a rank is no
            whole number of at least 1, or an option is out of range.

    Reference:
        Field, Welsh, Bootstrapping clustered data, JRSS B 2007.
    """
    ranks_a, ranks_b = np.atleast_2d(ranks), np.atleast_2d(other)
    for name, array in (("ranks", ranks_a), ("other", ranks_b)):
        if array.ndim != 2 or len(array) == 0:
            raise ValueError(f"shape of {name} is {list(np.shape(array))}; expected [N], or [S, N] with S ≥ 1")
        check_ranks(name, array)
    if ranks_a.shape[1] != ranks_b.shape[1] or ranks_a.shape[1] < 2:
        raise ValueError(
            f"numbers of queries are {ranks_a.shape[1]} and {ranks_b.shape[1]}; expected the same number of at least 2"
        )
    if len(ranks_a) != len(ranks_b) and 1 not in (len(ranks_a), len(ranks_b)):
        raise ValueError(f"numbers of seeds are {len(ranks_a)} and {len(ranks_b)}; expected the same number, or 1")
    values_a, values_b = per_session(ranks_a, metric), per_session(ranks_b, metric)
    query_differences = values_a.mean(0) - values_b.mean(0)
    session_differences, weight = query_differences, None
    if session_id is not None:
        session_differences, weight = _sums_of_sessions(query_differences, session_id)
    num_seeds = min(len(values_a), len(values_b))
    seed_differences = values_a.mean(1) - values_b.mean(1) if num_seeds > 1 else np.zeros(0)
    p_randomization = randomization_test(rng, session_differences, sign_patterns=sign_patterns)
    p_bootstrap, interval_sessions = bootstrap(
        rng, session_differences, weight=weight, resamples=resamples, confidence=confidence, interval=interval
    )
    p_seeds, interval_seeds = paired_t(seed_differences, confidence=confidence)
    return Comparison(
        metric=metric,
        difference=float(query_differences.mean()),
        interval=interval_sessions,
        p_randomization=p_randomization,
        p_bootstrap=p_bootstrap,
        effect=effect_size(session_differences),
        interval_seeds=interval_seeds,
        p_seeds=p_seeds,
        effect_seeds=effect_size(seed_differences),
        num_sessions=session_differences.size,
        num_queries=query_differences.size,
        num_seeds=num_seeds,
    )


def randomization_test(
    rng: np.random.Generator, differences: Float[np.ndarray, " N"], *, sign_patterns: int = 10_000
) -> float:
    """The paired randomization test: two-sided p of a mean difference if both signs of each difference are as likely.

    Args:
        rng: a random generator; the function advances it.
        differences: ``[N]`` differences of pairs; N may be 0.
        sign_patterns: number of random sign patterns; if only that many exist, all ``2^N`` are used once.

    Returns:
        p; 1 where fewer than two pairs differ.

    Raises:
        ValueError: the differences are not ``[N]`` finite numbers, or there are no sign patterns.
    """
    check_count(1, sign_patterns=sign_patterns)
    differences = _checked("differences", differences)
    # A difference of 0 has no sign; without it the sums are the same, and most sessions have a difference of 0.
    nonzero = differences[differences != 0]
    if nonzero.size < 2:
        return 1.0
    batch = max(1, _BATCH_VALUES // nonzero.size)
    # 2^N ≤ sign_patterns in integer arithmetic, because 2^1024 overflows a float.
    if nonzero.size < int(sign_patterns).bit_length():
        result = scipy.stats.permutation_test(
            (nonzero,), np.sum, permutation_type="samples", vectorized=True, n_resamples=sign_patterns, batch=batch
        )
        return float(result.pvalue)
    distribution = scipy.stats.monte_carlo_test(
        nonzero,
        lambda size: nonzero * (2 * rng.integers(0, 2, size, np.int8) - 1),
        np.sum,
        vectorized=True,
        n_resamples=sign_patterns,
        batch=batch,
    )
    return float(distribution.pvalue)


def bootstrap(
    rng: np.random.Generator,
    difference: Float[np.ndarray, " N"],
    *,
    weight: Float[np.ndarray, " N"] | Int[np.ndarray, " N"] | None = None,
    resamples: int = 2_000,
    confidence: float = 0.95,
    interval: str = "percentile",
) -> tuple[float, tuple[float, float]]:
    """The bootstrap: two-sided p and confidence interval of a mean difference, from resampling pairs with replacement.

    The estimate is the mean, or with weights the ratio ``Σ d / Σ w``, whose sums are resampled together.
    ``p = 2 min(#{θ* ≤ 0} + 1, #{θ* ≥ 0} + 1) / (R + 1)``, at most 1.

    Args:
        rng: a random generator; the function advances it.
        difference: ``[N]`` differences of pairs, N at least 2.
        weight: ``[N]`` positive numbers w, such as the number of queries that a session's difference sums up.
        resamples: R.
        confidence: confidence level of the interval, in (0, 1).
        interval: "percentile" or "bca".

    Returns:
        ``(p, (low, high))``.

    Raises:
        ValueError: the differences are not ``[N]`` finite numbers with N ≥ 2, or an option is out of range.
    """
    check_count(1, resamples=resamples)
    _check_confidence(confidence)
    check_one_of("interval", interval, INTERVALS)
    difference = _checked("difference", difference, least=2)
    samples, statistic = _samples_and_statistic(difference, weight)
    estimate = float(statistic(*samples))
    # Where all pairs have the same, so has every resample.
    if np.ptp(difference if weight is None else difference / samples[1]) == 0:
        return (1.0 if estimate == 0 else 2.0 / (resamples + 1)), (estimate, estimate)
    result = scipy.stats.bootstrap(
        samples,
        statistic,
        paired=weight is not None,
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, _BATCH_VALUES // difference.size),
        confidence_level=confidence,
        method="BCa" if interval == "bca" else "percentile",
        rng=rng,
    )
    distribution = result.bootstrap_distribution
    tail_count = min((distribution <= 0).sum(), (distribution >= 0).sum())
    low, high = result.confidence_interval
    return float(min(1.0, 2 * (tail_count + 1) / (resamples + 1))), (float(low), float(high))


def paired_t(difference: Float[np.ndarray, " S"], *, confidence: float = 0.95) -> tuple[float, tuple[float, float]]:
    """The paired t-test: two-sided p and confidence interval of a mean difference.

    Args:
        difference: ``[S]`` differences of pairs.
        confidence: confidence level of the interval, in (0, 1).

    Returns:
        ``(p, (low, high))``; NaN for all three where there are fewer than two pairs, or where all differences are
        equal, because the variance in t is then unknown.

    Raises:
        ValueError: the differences are not ``[S]`` finite numbers, or the confidence is not in (0, 1).
    """
    _check_confidence(confidence)
    difference = _checked("difference", difference)
    if difference.size < 2 or _is_constant(difference):
        return float("nan"), (float("nan"), float("nan"))
    result = scipy.stats.ttest_1samp(difference, 0.0)
    low, high = result.confidence_interval(confidence)
    return float(result.pvalue), (float(low), float(high))


def effect_size(difference: Float[np.ndarray, " N"]) -> float:
    """Cohen's ``d_z = mean / standard deviation`` of paired differences; NaN where they do not vary.

    Raises:
        ValueError: the differences are not ``[N]`` finite numbers.

    Reference:
        Lakens, Calculating and reporting effect sizes, Frontiers in Psychology 2013.
    """
    difference = _checked("difference", difference)
    if difference.size < 2 or _is_constant(difference):
        return float("nan")
    return float(difference.mean() / difference.std(ddof=1))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's correction of p-values for several tests: it controls the probability of any false rejection.

    With the p-values in ascending order, ``p'_i = max_{j ≤ i} min(1, (M − j + 1) p_j)``.

    Args:
        p_values: ``[M]``, in [0, 1]; NaN, for a test that is not possible, stays NaN and is not counted in M.

    Returns:
        The adjusted p-values ``[M]``.

    Raises:
        ValueError: a p-value is outside [0, 1].

    Reference:
        Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 1979.
    """
    p = np.asarray(p_values, np.float64)
    valid = np.flatnonzero(~np.isnan(p))
    if ((p[valid] < 0) | (p[valid] > 1)).any():
        raise ValueError(f"p_values span {np.nanmin(p)}..{np.nanmax(p)}; expected 0..1")
    ascending = valid[np.argsort(p[valid], kind="stable")]
    adjusted = p.copy()
    adjusted[ascending] = np.minimum(1.0, np.maximum.accumulate(np.arange(valid.size, 0, -1) * p[ascending]))
    return adjusted


def _sums_of_sessions(
    differences: Float[np.ndarray, " P"], session_id: Int[np.ndarray, " P"]
) -> tuple[Float[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """Returns the sum of each session's differences, and its number of queries, in the order of the ids."""
    if np.shape(session_id) != differences.shape:
        raise ValueError(f"session_id has shape {np.shape(session_id)}; expected {differences.shape}, one per query")
    _, session, num_queries = np.unique(session_id, return_inverse=True, return_counts=True)
    if num_queries.size < 2:
        raise ValueError(f"session_id has {num_queries.size} session; expected at least 2")
    return np.bincount(session, weights=differences), num_queries


def _samples_and_statistic(
    difference: Float[np.ndarray, " N"], weight: np.ndarray | None
) -> tuple[tuple[Float[np.ndarray, " N"], ...], Callable[..., Any]]:
    """Returns what the bootstrap resamples together, and the estimate that it computes from it."""
    if weight is None:
        return (difference,), np.mean
    weight = _checked("weight", weight)
    if weight.size != difference.size:
        raise ValueError(f"weight has {weight.size} numbers; expected {difference.size}, one per difference")
    check_where(weight > 0, "weight", weight, "a number above 0")
    return (difference, weight), lambda sums, weights, axis=-1: sums.sum(axis) / weights.sum(axis)


def _checked(name: str, values: np.ndarray, *, least: int = 0) -> Float[np.ndarray, " N"]:
    """Returns differences in float64, if they are finite, one-dimensional, and at least ``least`` of them."""
    values = np.asarray(values)
    if values.ndim != 1 or len(values) < least or values.dtype.kind not in "iuf":
        expected = f"[N] numbers with N ≥ {least}"
        raise ValueError(f"{name} has shape {list(values.shape)} and type {values.dtype}; expected {expected}")
    values = values.astype(np.float64)
    size = np.abs(values)
    # The square of a number that is smaller or larger leaves the range of float64.
    check_where((size == 0) | ((size >= 1e-100) & (size <= 1e100)), name, values, "0, or from 1e-100 to 1e100 in size")
    return values


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a number in (0, 1)")


def _is_constant(values: np.ndarray) -> bool:
    """Returns whether values differ only by rounding."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())
