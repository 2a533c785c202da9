"""Which sessions to ask the LLM about: difficulty, gains, and the draw from a policy."""

from alkd_jax.selection.draws import RANDOM_BLOCK, random_policy, select
from alkd_jax.selection.payoffs import LogGains, class_counts, gains, log_fraction
from alkd_jax.selection.ratings import (
    by_difficulty,
    check_num,
    difficulty,
    difficulty_rank,
    easiest,
    hardest,
    session_difficulty,
)

__all__ = [
    "RANDOM_BLOCK",
    "LogGains",
    "by_difficulty",
    "check_num",
    "class_counts",
    "difficulty",
    "difficulty_rank",
    "easiest",
    "gains",
    "hardest",
    "log_fraction",
    "random_policy",
    "select",
    "session_difficulty",
]
