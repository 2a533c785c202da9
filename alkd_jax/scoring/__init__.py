"""Scoring of the full catalogue: the exact rank of the target and the exact top k, without seen items and padding."""

from alkd_jax.ops.products import candidate_scores, logsumexp_pool, scores
from alkd_jax.scoring.ranks import TIES, full_catalogue_counts, full_catalogue_rank, rank_of_counts, target_rank
from alkd_jax.scoring.top_k import top_k

__all__ = [
    "TIES",
    "candidate_scores",
    "full_catalogue_counts",
    "full_catalogue_rank",
    "logsumexp_pool",
    "rank_of_counts",
    "scores",
    "target_rank",
    "top_k",
]
