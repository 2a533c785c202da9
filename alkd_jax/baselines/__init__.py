"""Training-free recommenders: counts of the training sessions, and scores, ranks and lists based on them."""

from alkd_jax.baselines.counts import Counts, count, held_out_folds
from alkd_jax.baselines.knn import item_knn, session_knn
from alkd_jax.baselines.left_out import PairCounts, pair_counts_without
from alkd_jax.baselines.lists import best_items, held_out_lists, top_k, top_k_lists
from alkd_jax.baselines.packed import packed_scorer
from alkd_jax.baselines.pair_features import PairFeatures, pair_features
from alkd_jax.baselines.places import TIES, Places, rank_targets, target_places
from alkd_jax.baselines.popularity import popularity
from alkd_jax.baselines.queries import Histories, Method, Scorer, break_ties, query_matrix, steps_to_end
from alkd_jax.baselines.re_ranker import (
    CandidateRanker,
    Candidates,
    ReRanker,
    find_candidates,
    fit_re_ranker,
    re_ranker_scorer,
    training_choices,
)
from alkd_jax.baselines.re_ranker_trees import TreeReRanker, fit_trees
from alkd_jax.baselines.registry import METHODS, fit, method
from alkd_jax.baselines.rules import co_occurrence, markov, sequential_rules
from alkd_jax.baselines.sparse_places import rule_scores, sparse_places

__all__ = [
    "METHODS",
    "TIES",
    "CandidateRanker",
    "Candidates",
    "Counts",
    "Histories",
    "Method",
    "PairCounts",
    "PairFeatures",
    "Places",
    "ReRanker",
    "Scorer",
    "TreeReRanker",
    "best_items",
    "break_ties",
    "co_occurrence",
    "count",
    "find_candidates",
    "fit",
    "fit_re_ranker",
    "fit_trees",
    "held_out_folds",
    "held_out_lists",
    "item_knn",
    "markov",
    "method",
    "packed_scorer",
    "pair_counts_without",
    "pair_features",
    "popularity",
    "query_matrix",
    "rank_targets",
    "re_ranker_scorer",
    "rule_scores",
    "sequential_rules",
    "session_knn",
    "sparse_places",
    "steps_to_end",
    "target_places",
    "top_k",
    "top_k_lists",
    "training_choices",
]
