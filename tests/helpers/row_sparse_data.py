"""The synthetic dataset that row-sparse training is tested on."""

from alkd_jax import objectives, samplers
from tests.helpers.cyclic_sessions import cyclic_sessions

NUM_ITEMS = 60
TRAIN = cyclic_sessions(200, 0, 0, num_items=NUM_ITEMS)
VALIDATION = cyclic_sessions(50, 0, 1, num_items=NUM_ITEMS)
SAMPLER = samplers.by_popularity(TRAIN.target, NUM_ITEMS)


def sampled_softmax(model):
    """The softmax over items sampled by popularity."""
    sampler = samplers.by_popularity(TRAIN.target, model.num_items)
    return objectives.SampledLoss(model, sampler, "softmax", num_negatives=3)
