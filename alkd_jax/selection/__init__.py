"""Selection of the sessions that the LLM ranks: difficulty, gains, sampling from a policy, and active learning."""

from alkd_jax.selection.acceptance import randomized_acceptance
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
from alkd_jax.selection.gradient_embeddings import GradientEmbeddings, gradient_embeddings, k_means_plus_plus
from alkd_jax.selection.item_value import expected_use, question_values, select_items
from alkd_jax.selection.k_center import k_center
from alkd_jax.selection.pilot import PilotGame, measure_game
from alkd_jax.selection.protocol import Selection
from alkd_jax.selection.rounds import round_sizes, select_in_rounds
from alkd_jax.selection.sampling import RANDOM_BLOCK, random_policy, select
from alkd_jax.selection.uncertainty import UNCERTAINTIES, entropy, margin

__all__ = [
    "RANDOM_BLOCK",
    "UNCERTAINTIES",
    "GradientEmbeddings",
    "LogGains",
    "PilotGame",
    "Selection",
    "by_difficulty",
    "check_num",
    "class_counts",
    "difficulty",
    "difficulty_rank",
    "easiest",
    "entropy",
    "expected_use",
    "gains",
    "gradient_embeddings",
    "hardest",
    "k_center",
    "k_means_plus_plus",
    "log_fraction",
    "margin",
    "measure_game",
    "question_values",
    "random_policy",
    "randomized_acceptance",
    "round_sizes",
    "select",
    "select_in_rounds",
    "select_items",
    "session_difficulty",
]
