"""Losses: Bayesian personalized ranking, binary cross-entropy, and softmax over the catalogue, a sample or a list."""

from alkd_jax.losses.bpr import fused_in_batch_bpr, in_batch_bpr, sampled_bpr
from alkd_jax.losses.pointwise import binary_cross_entropy
from alkd_jax.losses.reduction import weighted_mean
from alkd_jax.losses.softmax import full_softmax, listwise_softmax, sampled_softmax
from alkd_jax.ops.log_partition import log_partition

__all__ = [
    "binary_cross_entropy",
    "full_softmax",
    "fused_in_batch_bpr",
    "in_batch_bpr",
    "listwise_softmax",
    "log_partition",
    "sampled_bpr",
    "sampled_softmax",
    "weighted_mean",
]
