"""Evaluation: ranks of the held-out items, metrics of these ranks and of top-k lists, and statistical tests."""

from alkd_jax.evaluation import beyond_accuracy, conditional_logit, groups, metrics, seeds_and_sessions, significance
from alkd_jax.evaluation.evaluation import Evaluation, evaluate, evaluate_seeds
from alkd_jax.evaluation.protocol import Protocol
from alkd_jax.evaluation.queries import Queries, make_queries
from alkd_jax.evaluation.released import hash_order_ndcg, released_view

__all__ = [
    "Evaluation",
    "Protocol",
    "Queries",
    "beyond_accuracy",
    "conditional_logit",
    "evaluate",
    "evaluate_seeds",
    "groups",
    "hash_order_ndcg",
    "make_queries",
    "metrics",
    "released_view",
    "seeds_and_sessions",
    "significance",
]
