"""The games over a run's training sessions, from which the policies of its selections are."""

import functools
from typing import TYPE_CHECKING

from jaxtyping import Array, Int

from alkd_jax import maxmin, selection

if TYPE_CHECKING:
    from .settings import Settings


def solve_game(settings: "Settings", rank: Int[Array, " N"]) -> tuple[maxmin.Solution, float]:
    """Solves the max-min game over N sessions (rule "policy": by the paper's closed form).

    Args:
        settings: of the run.
        rank: of the sessions by difficulty, from 1, the hardest.

    Returns:
        The solution, and the logarithm of the unit of all gains, which the solution leaves out.
    """
    num_effective, num_similar, _ = selection.class_counts(len(rank), settings.ratios)
    gains = selection.gains(rank)
    solver = functools.partial(maxmin.closed_form, drop_last=True) if "policy" in settings.rules else maxmin.solve
    solution = solver(
        gains.effective,
        gains.similar,
        gains.incorrect,
        num_effective=num_effective,
        num_similar=num_similar,
        log_gains=True,
    )
    return solution, gains.log_scale


def solve_rad_bc(settings: "Settings", rank: Int[Array, " N"]) -> maxmin.Solution:
    """Solves RAD-BC's game: correct answers, effective or similar, and incorrect ones; see :func:`solve_game`."""
    num_effective, num_similar, _ = selection.class_counts(len(rank), settings.ratios)
    gains = selection.gains(rank)
    return maxmin.rad_bc(
        gains.effective,
        gains.incorrect,
        num_correct=num_effective + num_similar,
        log_gains=True,
        drop_last="policy" in settings.rules,
    )
