"""Full-catalogue scores: the exact rank of the target and the exact top k, with seen items and padding left out."""

from alkd_jax.ops.products import listed_scores, pooled, scores
from alkd_jax.scoring.ranks import TIES, catalogue_rank, target_rank
from alkd_jax.scoring.top_k import top_k

__all__ = ["TIES", "catalogue_rank", "listed_scores", "pooled", "scores", "target_rank", "top_k"]
