"""Training objectives: a loss bound to a backbone, together with the arrays that it reads.

It is a pytree: its arrays (a sampler, frequencies, lists) are leaves, the backbone and the options are
static. So training again with other arrays of the same shapes compiles nothing. ``fit`` also takes any function of
``(params, batch)`` or ``(params, batch, key)``; one that reads arrays is best written as a subclass of
:class:`Objective`, of :class:`BoundLoss` where it scores all items, or as ``jax.tree_util.Partial(function, *arrays)``.
"""

from alkd_jax.objectives.base import PER_ITEM, BoundLoss, FunctionLoss, Loss, Objective, as_loss, encode
from alkd_jax.objectives.in_batch import InBatchBPR, InBatchSoftmax
from alkd_jax.objectives.lists import LIST_LOSSES, ListLoss, PartialPlackettLuce
from alkd_jax.objectives.positions import PositionSampledLoss, PositionSoftmax
from alkd_jax.objectives.sampled import SampledLoss
from alkd_jax.objectives.shared_negatives import SharedNegatives
from alkd_jax.objectives.softmax import DistilledSoftmax, FullSoftmax, ListwiseSoftmax, SelfNormalizedSoftmax

__all__ = [
    "LIST_LOSSES",
    "PER_ITEM",
    "BoundLoss",
    "DistilledSoftmax",
    "FullSoftmax",
    "FunctionLoss",
    "InBatchBPR",
    "InBatchSoftmax",
    "ListLoss",
    "ListwiseSoftmax",
    "Loss",
    "Objective",
    "PartialPlackettLuce",
    "PositionSampledLoss",
    "PositionSoftmax",
    "SampledLoss",
    "SelfNormalizedSoftmax",
    "SharedNegatives",
    "as_loss",
    "encode",
]
