"""Training-free recommenders: counts of the training sessions, and scores, ranks and lists based on them."""

from alkd_jax.baselines.counts import Counts, count, held_out_folds
from alkd_jax.baselines.knn import item_knn, session_knn
from alkd_jax.baselines.lists import held_out_lists, top_k, top_k_lists
from alkd_jax.baselines.places import TIES, Places, rank_targets, target_places
from alkd_jax.baselines.popularity import popularity
from alkd_jax.baselines.queries import Scorer
from alkd_jax.baselines.rules import co_occurrence, markov, sequential_rules

__all__ = [
    "TIES",
    "Counts",
    "Places",
    "Scorer",
    "co_occurrence",
    "count",
    "held_out_folds",
    "held_out_lists",
    "item_knn",
    "markov",
    "popularity",
    "rank_targets",
    "sequential_rules",
    "session_knn",
    "target_places",
    "top_k",
    "top_k_lists",
]
