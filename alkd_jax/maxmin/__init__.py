"""The selection game: policies that maximise the least expected gain, and their exact worst cases."""

from alkd_jax.maxmin.adversary import log_worst_case, worst_case
from alkd_jax.maxmin.exact import solve
from alkd_jax.maxmin.game import LEAST_LOSS, POOLED, SPLIT, Solution
from alkd_jax.maxmin.prefix import closed_form, rad_bc
from alkd_jax.maxmin.ranked import RankedGame, draw_resolving

__all__ = [
    "LEAST_LOSS",
    "POOLED",
    "SPLIT",
    "RankedGame",
    "Solution",
    "closed_form",
    "draw_resolving",
    "log_worst_case",
    "rad_bc",
    "solve",
    "worst_case",
]
