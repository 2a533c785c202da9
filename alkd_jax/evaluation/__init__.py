"""Evaluation: ranks of the held-out items, metrics of these ranks, and statistical tests."""

from alkd_jax.evaluation import metrics, significance
from alkd_jax.evaluation.protocol import Evaluation, evaluate, evaluate_seeds, hash_order_ndcg, released_view
from alkd_jax.evaluation.queries import Queries, make_queries

__all__ = [
    "Evaluation",
    "Queries",
    "evaluate",
    "evaluate_seeds",
    "hash_order_ndcg",
    "make_queries",
    "metrics",
    "released_view",
    "significance",
]
