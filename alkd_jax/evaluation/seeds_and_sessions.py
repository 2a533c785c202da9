"""How far a difference of two methods is known, where both the seeds and the sessions are a sample of many.

Over seeds alone an interval says what training again would give on the same sessions, over sessions alone what the same
trained models would give on others. A claim about the method is about both: other seeds, and other sessions.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from alkd_jax.checks import check_count
from alkd_jax.evaluation.significance import per_session

MOST_SEEDS = 100_000
"""Where more seeds would be needed, their number is not given."""


@dataclasses.dataclass(frozen=True)
class Spread:
    """A mean difference over S seeds and N sessions, and the variances of which its error consists.

    Attributes:
        difference: the mean over seeds and sessions.
        interval: its confidence interval over seeds and sessions together.
        interval_seeds: over seeds alone, on the same sessions, by Student's t.
        standard_error: of the mean over seeds and sessions.
        degrees: degrees of freedom of ``standard_error``, after Satterthwaite.
        sd_seeds: σ_a, standard deviation of what a seed adds to all sessions alike.
        sd_sessions: σ_b, of what a session adds with all seeds alike.
        sd_rest: σ_e, of what is peculiar to a session with one seed.
        sd_seed_means: standard deviation of the seeds' means over these sessions.
        num_seeds: S.
        num_sessions: N.
        confidence: of the intervals.
    """

    difference: float
    interval: tuple[float, float]
    interval_seeds: tuple[float, float]
    standard_error: float
    degrees: float
    sd_seeds: float
    sd_sessions: float
    sd_rest: float
    sd_seed_means: float
    num_seeds: int
    num_sessions: int
    confidence: float

    def detectable(self, power: float = 0.8) -> float:
        """Returns the smallest true difference that a test over seeds and sessions would find with this probability.

        ``(t_{1 − α/2} + t_power) · standard error``.

        Args:
            power: the probability, in (0, 1).
        """
        _check_share("power", power)
        quantiles = stats.t.ppf([0.5 + self.confidence / 2, power], self.degrees)
        return float(quantiles.sum() * self.standard_error)

    def p_value(self) -> float:
        """Returns the two-sided p-value of the test over seeds and sessions that the true difference is 0."""
        if self.standard_error == 0:
            return float(self.difference == 0)
        return float(2 * stats.t.sf(abs(self.difference) / self.standard_error, self.degrees))

    def seeds_for(self, half_width: float) -> int | None:
        """Returns the number of seeds with which the interval over seeds would be at most ``± half_width``.

        The smallest S with ``t_{S − 1} σ / √S ≤ half_width``, with the standard deviation σ of these seeds' means.

        Args:
            half_width: above 0, in the unit of the metric.

        Returns:
            At least 2; None where more than :data:`MOST_SEEDS` would be needed.
        """
        if not half_width > 0:
            raise ValueError(f"half_width is {half_width}; expected a number above 0")
        seeds = np.arange(2, MOST_SEEDS + 1)
        widths = stats.t.ppf(0.5 + self.confidence / 2, seeds - 1) * self.sd_seed_means / np.sqrt(seeds)
        return int(seeds[np.argmax(widths <= half_width)]) if (widths <= half_width).any() else None


def spread(
    ranks: Int[np.ndarray, "*seeds P"],
    other: Int[np.ndarray, "*seeds_of_other Q"],
    *,
    session_id: Int[np.ndarray, " R"] | None = None,
    metric: str = "recall@10",
    confidence: float = 0.95,
) -> Spread:
    """Estimates how far a difference of two methods is known over seeds and sessions together.

    The difference of session n with seed s is ``d_sn = μ + a_s + b_n + e_sn`` with independent effects of seeds and of
    sessions, both random. With the mean squares of the two-way analysis of variance,
    ``σ_e² = MS_e``, ``σ_a² = (MS_a − MS_e) / N``, ``σ_b² = (MS_b − MS_e) / S``, each at least 0, and
    ``Var(mean) = σ_a²/S + σ_b²/N + σ_e²/(S N)``.

    Args:
        ranks: ``[S, P]`` ranks of the first method, from 1.
        other: ``[S, P]`` ranks of the second; row s is of the same seed as row s of ``ranks``.
        session_id: ``[P]`` session of each query, where a session has several; a session then weighs as much as it has
            queries, and the ratio of the sums is made linear about its estimate.
        metric: "recall@K", "ndcg@K", "mrr@K" or "mrr".
        confidence: of the intervals, in (0, 1).

    Raises:
        ValueError: the shapes differ, or there are fewer than two seeds or sessions.

    Reference:
        Satterthwaite, An approximate distribution of estimates of variance components, Biometrics Bulletin 1946;
        Searle, Casella, McCulloch, Variance Components, chapter 4.
    """
    _check_share("confidence", confidence)
    if np.shape(ranks) != np.shape(other) or np.ndim(ranks) != 2:
        raise ValueError(f"shapes are {list(np.shape(ranks))} and {list(np.shape(other))}; expected the same [S, P]")
    values = per_session(ranks, metric) - per_session(other, metric)
    if session_id is not None:
        values = _linear_ratio(values, session_id)
    num_seeds, num_sessions = values.shape
    check_count(2, num_seeds=num_seeds, num_sessions=num_sessions)
    mean, seed_means, session_means = values.mean(), values.mean(1), values.mean(0)
    rest = values - seed_means[:, None] - session_means[None] + mean
    degrees = np.array([num_seeds - 1, num_sessions - 1, (num_seeds - 1) * (num_sessions - 1)])
    squares = num_sessions * ((seed_means - mean) ** 2).sum(), num_seeds * ((session_means - mean) ** 2).sum()
    of_seeds, of_sessions, of_rest = np.array([*squares, (rest**2).sum()]) / degrees
    # Var(mean) · S N, in which a component below 0 counts as 0: MS_a + MS_b − MS_e where there is none.
    has_seeds, has_sessions = of_seeds > of_rest, of_sessions > of_rest
    parts = np.array(
        [has_seeds * of_seeds, has_sessions * of_sessions, (1 - int(has_seeds) - int(has_sessions)) * of_rest]
    )
    variance = parts.sum()
    satterthwaite = variance**2 / (parts**2 / degrees).sum() if variance > 0 else float(num_seeds - 1)
    standard_error = float(np.sqrt(variance / values.size))
    sd_seed_means = float(np.sqrt(of_seeds / num_sessions))
    half, half_seeds = stats.t.ppf(0.5 + confidence / 2, [satterthwaite, num_seeds - 1]) * [
        standard_error,
        sd_seed_means / np.sqrt(num_seeds),
    ]
    return Spread(
        difference=float(mean),
        interval=(float(mean - half), float(mean + half)),
        interval_seeds=(float(mean - half_seeds), float(mean + half_seeds)),
        standard_error=standard_error,
        degrees=float(satterthwaite),
        sd_seeds=float(np.sqrt(max(0.0, of_seeds - of_rest) / num_sessions)),
        sd_sessions=float(np.sqrt(max(0.0, of_sessions - of_rest) / num_seeds)),
        sd_rest=float(np.sqrt(of_rest)),
        sd_seed_means=sd_seed_means,
        num_seeds=num_seeds,
        num_sessions=num_sessions,
        confidence=confidence,
    )


def _linear_ratio(differences: Float[np.ndarray, "S P"], session_id: Int[np.ndarray, " R"]) -> Float[np.ndarray, "S N"]:
    """Returns a number for each session whose mean is the mean over queries: ``θ + (Σ d − θ n) / mean n``."""
    if np.shape(session_id) != differences.shape[1:]:
        raise ValueError(f"session_id has shape {np.shape(session_id)}; expected {differences.shape[1:]}")
    _, session, num_queries = np.unique(session_id, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(session, weights=row) for row in differences])
    ratio = differences.mean()
    return ratio + (sums - ratio * num_queries) / num_queries.mean()


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} is {value}; expected a number in (0, 1)")
