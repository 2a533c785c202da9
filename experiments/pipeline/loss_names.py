"""Losses by name, bound to a backbone: what `experiments.train --loss` takes."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import alkd_jax as alkd
from alkd_jax import objectives, samplers
from alkd_jax.checks import check_one_of
from alkd_jax.errors import shown
from alkd_jax.models import Encoder

POSITION_LOSSES = ("softmax", "sampled_softmax", "bce", "gbce")
"""Losses of every position of a session, for causal backbones."""

SESSION_LOSSES = ("in_batch_bpr", "in_batch_softmax", "softmax", "sampled_softmax", "bpr", "bce")
"""Losses of one target for each example, for all backbones."""

PARALLEL_LOSSES = ("sampled_softmax", "bpr_max")
"""Losses of sessions that are read in parallel, for recurrent backbones: see :class:`objectives.SharedNegatives`."""

LOSSES = tuple(dict.fromkeys((*SESSION_LOSSES, *POSITION_LOSSES, *PARALLEL_LOSSES)))
"""The names of all losses."""

LOSSES_OF = {"positions": POSITION_LOSSES, "parallel": PARALLEL_LOSSES}
"""Targets → their losses; those of other targets are `SESSION_LOSSES`."""
PARALLEL_OPTIONS: Mapping[str, type] = {
    "exponent": float,
    "logq": float,
    "regularization": float,
    "elu": float,
    "repeats": bool,
}
"""Options of losses of sessions in parallel: α of the sampling by ``count^α``, and fields of the objective."""
_SAMPLED = {"sampled_softmax": "softmax"}


def make_loss(
    name: str,
    model: Encoder,
    dataset: alkd.Dataset,
    *,
    targets: str,
    num_negatives: int = 256,
    negatives: str = "position",
    corrected: bool = False,
    parallel: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """Binds a loss to a backbone.

    Args:
        name: one of `POSITION_LOSSES` for the targets "positions", of `PARALLEL_LOSSES` for "parallel", otherwise of
            `SESSION_LOSSES`.
        model: the backbone.
        dataset: the dataset of training; negatives are sampled uniformly from its catalogue, but for "parallel" by a
            power of the items' training counts.
        targets: what training predicts.
        num_negatives: C of losses with sampled negatives.
        negatives: what has negatives of its own, for the targets "positions".
        corrected: whether the sampled softmax of positions is corrected for the sampling rate.
        parallel: `PARALLEL_OPTIONS` by name, for the targets "parallel".

    Raises:
        ValueError: the loss is none of those for these targets, or the backbone does not go with them.
    """
    has_positions = targets == "positions"
    check_one_of(f"--loss with --targets {targets}", name, LOSSES_OF.get(targets, SESSION_LOSSES))
    if targets == "parallel":
        return _parallel_loss(name, model, dataset, num_negatives, dict(parallel or {}))
    if name == "softmax":
        return objectives.PositionSoftmax(model) if has_positions else objectives.FullSoftmax(model)
    if name == "in_batch_bpr":
        return objectives.InBatchBPR(model)
    if name == "in_batch_softmax":
        frequency = samplers.log_frequency(np.asarray(dataset.train.target), dataset.num_items)
        return objectives.InBatchSoftmax(model, frequency)
    sampler, kind = samplers.uniform(dataset.num_items), _SAMPLED.get(name, name)
    if has_positions:
        return objectives.PositionSampledLoss(model, sampler, kind, num_negatives, negatives, corrected)
    return objectives.SampledLoss(model, sampler, kind, num_negatives)


def _parallel_loss(
    name: str, model: Encoder, dataset: alkd.Dataset, num_negatives: int, options: dict[str, Any]
) -> objectives.SharedNegatives:
    """Returns the objective of sessions that are read in parallel."""
    if not hasattr(model, "initial_state"):
        raise ValueError(f"--targets parallel with {type(model).__name__}; expected a recurrent backbone, gru4rec")
    items, num_items = np.asarray(dataset.train_sequences.items), dataset.num_items
    sampler = samplers.by_popularity(items, num_items, exponent=options.pop("exponent", 0.75), prior=0.0)
    frequency = samplers.log_frequency(items, num_items)
    kind = _SAMPLED.get(name, name)
    return objectives.SharedNegatives(model, sampler, frequency, kind, num_negatives, **options)


def check_parallel_options(options: Mapping[str, Any]) -> None:
    """Refuses options of a loss of sessions in parallel that are unknown or of another type.

    Raises:
        ValueError: as said.
    """
    for name, value in options.items():
        check_one_of("a name in --loss-options", name, PARALLEL_OPTIONS)
        expected = PARALLEL_OPTIONS[name]
        if isinstance(value, bool) != (expected is bool) or not isinstance(value, int | float):
            kind = "true or false" if expected is bool else "a number"
            raise ValueError(f"{name} in --loss-options is {shown(value)}; expected {kind}")
