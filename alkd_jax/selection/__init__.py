"""Selection of the sessions that the LLM ranks: difficulty, gains, and sampling from a policy."""

from alkd_jax.selection.difficulty import (
    by_difficulty,
    check_num,
    difficulty,
    difficulty_rank,
    easiest,
    hardest,
    session_difficulty,
)
from alkd_jax.selection.gains import LogGains, class_counts, gains, log_fraction
from alkd_jax.selection.protocol import Selection
from alkd_jax.selection.sampling import RANDOM_BLOCK, random_policy, select

__all__ = [
    "RANDOM_BLOCK",
    "LogGains",
    "Selection",
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
