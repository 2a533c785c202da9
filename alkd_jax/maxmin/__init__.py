"""The max-min selection game: policies that maximize the worst-case expected gain, and exact worst cases."""

from alkd_jax.maxmin.adversary import log_worst_case, worst_case
from alkd_jax.maxmin.exact import solve
from alkd_jax.maxmin.game import LEAST_LOSS, POOLED, SPLIT, Solution
from alkd_jax.maxmin.prefix import closed_form, rad_bc
from alkd_jax.maxmin.ranked import RankedGame, sample_with_resolving

__all__ = [
    "LEAST_LOSS",
    "POOLED",
    "SPLIT",
    "RankedGame",
    "Solution",
    "closed_form",
    "log_worst_case",
    "rad_bc",
    "sample_with_resolving",
    "solve",
    "worst_case",
]
