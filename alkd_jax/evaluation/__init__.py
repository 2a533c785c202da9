"""Evaluation: ranks of the held-out items, metrics of these ranks, and statistical tests."""

from alkd_jax.evaluation import metrics, significance
from alkd_jax.evaluation.protocol import Evaluation, evaluate, evaluate_seeds, hash_order_ndcg, released_view

__all__ = [
    "Evaluation",
    "evaluate",
    "evaluate_seeds",
    "hash_order_ndcg",
    "metrics",
    "released_view",
    "significance",
]
