"""Losses: Bayesian personalized ranking, binary cross-entropy, and softmax over the catalogue, a sample or a list."""

from alkd_jax.losses.bpr import bpr_max, fused_in_batch_bpr, in_batch_bpr, sampled_bpr
from alkd_jax.losses.lists import approx_rank_mse, listnet, plackett_luce, ranknet
from alkd_jax.losses.pointwise import binary_cross_entropy, generalized_cross_entropy
from alkd_jax.losses.reduction import weighted_mean
from alkd_jax.losses.softmax import full_softmax, listwise_softmax, sampled_softmax
from alkd_jax.ops.log_partition import log_partition, log_rest

__all__ = [
    "approx_rank_mse",
    "binary_cross_entropy",
    "bpr_max",
    "full_softmax",
    "fused_in_batch_bpr",
    "generalized_cross_entropy",
    "in_batch_bpr",
    "listnet",
    "listwise_softmax",
    "log_partition",
    "log_rest",
    "plackett_luce",
    "ranknet",
    "sampled_bpr",
    "sampled_softmax",
    "weighted_mean",
]
