"""The parameters of the selection game: gains by difficulty rank, and the number of sessions in each class."""

import fractions
import math
from collections.abc import Sequence

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alkd_jax.checks import check_count, check_ranks
from alkd_jax.maxmin.game import IntArray, check_power_gains, check_ratios


@flax.struct.dataclass
class LogGains:
    """Gains and losses of the selection game; the true logarithm is ``field + log_scale``.

    Attributes:
        effective: ``[N]`` log a.
        similar: ``[N]`` log b.
        incorrect: ``[N]`` log d.
        log_scale: logarithm of the common factor of all gains, which is left out; policies do not depend on it.
    """

    effective: Float[Array, "*batch N"]
    similar: Float[Array, "*batch N"]
    incorrect: Float[Array, "*batch N"]
    log_scale: float = flax.struct.field(pytree_node=False)


def gains(
    rank: IntArray, *, exponent: float | int = 10, similar_ratio: float = 0.5, incorrect_ratio: float | int = 0.5
) -> LogGains:
    """The paper's gains, as logarithms: the harder the session, the larger its gains and its loss.

    ``a_s = rank_s^−μ``, ``b_s = similar_ratio · a_s``, ``d_s = incorrect_ratio · a_s``

    Args:
        rank: ``[N]`` from 1 (hardest) to N.
        exponent: μ ≥ 0.
        similar_ratio: b/a, in (0, 1).
        incorrect_ratio: d/a > 0.

    Returns:
        Gains relative to the easiest session, ``log (rank/N)^−μ``. Policies have their weight near the easiest session,
        and float32 is most precise there: for μ = 10 and N up to 10^8, the gains of the easier half have a relative
        error below 2e-6.

    Raises:
        ValueError: there is no session, a rank is no whole number from 1 to N, or a number is out of its range.

    Reference:
        Du et al., AAAI 2025, "Gains". The printed formula ranks by ascending difficulty; the text and the released code
        rank by descending difficulty.
    """
    check_power_gains(exponent, similar_ratio, incorrect_ratio, len(rank))
    check_ranks("rank", rank, most=len(rank))
    effective = -exponent * log_fraction(jnp.asarray(rank, jnp.int32), rank.shape[0])
    return LogGains(
        effective=effective,
        similar=effective + math.log(similar_ratio),
        incorrect=effective + math.log(incorrect_ratio),
        log_scale=-exponent * math.log(rank.shape[0]),
    )


def log_fraction(rank: Int[Array, " N"], num_sessions: int) -> Float[Array, " N"]:
    """Returns ``log(rank / num_sessions)``, precise near 0 also for ranks beyond the integers of float32."""
    easier_share = (num_sessions - rank).astype(jnp.float32) / num_sessions
    direct = jnp.log(rank.astype(jnp.float32) / num_sessions)
    return jnp.where(rank > num_sessions // 2, jnp.log1p(-easier_share), direct)


def class_counts(num_sessions: int, ratios: Sequence[float | int] = (1, 5, 4)) -> tuple[int, int, int]:
    """Splits N sessions into effective, similar and incorrect ones.

    Args:
        num_sessions: N.
        ratios: effective : similar : incorrect; at least 0, in any unit.

    Returns:
        ``(k_ef, k_si, k_in)``; the first two are rounded down, and all other sessions are incorrect.

    Raises:
        ValueError: a number is negative, or there are not three ratios with a positive sum.
    """
    check_count(0, num_sessions=num_sessions)
    check_ratios(ratios)
    # The text of a ratio such as 0.3 is used, not the nearest binary fraction.
    exact = [fractions.Fraction(str(ratio)) for ratio in ratios]
    num_effective, num_similar = (math.floor(num_sessions * ratio / sum(exact)) for ratio in exact[:2])
    return num_effective, num_similar, num_sessions - num_effective - num_similar
