"""Training-free recommenders: counted once from whole training sessions, then asked."""

from alkd_jax.baselines.counts import Counts, count
from alkd_jax.baselines.methods import (
    Scorer,
    co_occurrence,
    item_knn,
    markov,
    popularity,
    sequential_rules,
    session_knn,
)
from alkd_jax.baselines.ranking import held_out_lists, mean_ranks, rank_targets, top_k, top_k_lists

__all__ = [
    "Counts",
    "Scorer",
    "co_occurrence",
    "count",
    "held_out_lists",
    "item_knn",
    "markov",
    "mean_ranks",
    "popularity",
    "rank_targets",
    "sequential_rules",
    "session_knn",
    "top_k",
    "top_k_lists",
]
