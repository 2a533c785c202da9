"""Checks of the arguments of ``fit`` and ``fit_large``, and the choice of the training examples and of the loss."""

from collections.abc import Callable
from typing import Any

import numpy as np

from alkd_jax.checks import check_one_of, check_sessions, check_span
from alkd_jax.models import Encoder
from alkd_jax.objectives import BoundLoss, InBatchBPR, Loss, Objective, as_loss
from alkd_jax.training.examples import (
    AnyExamples,
    Positions,
    cloze_examples,
    last_item_examples,
    prefix_examples,
    sequences_of,
)
from alkd_jax.types import Sequences, Sessions


def select_examples(
    model: Encoder, train: Sessions, targets: str, sequences: Sequences | None, examples: AnyExamples | None
) -> tuple[AnyExamples, Sessions | Sequences]:
    """Returns the training examples, and the sessions or sequences that they refer to.

    Args:
        model: a backbone.
        train: the training sessions.
        targets: "last", "all" or "cloze", see :func:`alkd_jax.training.fit`.
        sequences: complete training sessions, if given.
        examples: the examples, if given.

    Raises:
        ValueError: ``targets`` is unknown, there is nothing to predict, or an example refers to what does not exist.
    """
    check_one_of("targets", targets, ("last", "all", "cloze"))
    source: Sessions | Sequences = train
    if isinstance(examples, Positions) or (examples is None and targets != "last"):
        source = sequences_of(train) if sequences is None else sequences
    if examples is None and isinstance(source, Sequences):
        length = train.items.shape[1]
        examples = (prefix_examples if targets == "all" else cloze_examples)(source, length=length)
    examples = last_item_examples(train) if examples is None else examples
    check_examples(model, source, examples)
    return examples, source


def check_splits(model: Encoder, train: Sessions, validation: Sessions) -> None:
    """Refuses what training would fail on, or would silently train with wrong results.

    Args:
        model: a backbone.
        train: the training sessions.
        validation: the validation sessions.

    Raises:
        ValueError: as of :func:`alkd_jax.checks.check_sessions`; or a session has no item.
    """
    for name, split in (("train", train), ("validation", validation)):
        check_sessions(name, split, model.num_items)
        if not np.asarray(split.mask).any(1).all():
            row = int(np.argmin(np.asarray(split.mask).any(1)))
            raise ValueError(f"{name} session {row} is empty; expected at least one item in every session")


def check_examples(model: Encoder, source: Sessions | Sequences, examples: AnyExamples) -> None:
    """Refuses examples that refer to sessions, positions or items that do not exist.

    Args:
        model: a backbone.
        source: the sessions or sequences that the examples refer to.
        examples: the examples.

    Raises:
        ValueError: there are no examples, or an index is out of range.
    """
    if examples.weight.shape[-1] == 0 or not np.asarray(examples.weight).any(-1).all():
        raise ValueError("examples are empty; expected at least one example of positive weight")
    names = "session", "position" if isinstance(examples, Positions) else "target", "weight"
    shapes = {name: np.shape(getattr(examples, name)) for name in names}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"examples have arrays of shapes {shapes}; expected equal ones")
    if not bool((np.isfinite(examples.weight) & (np.asarray(examples.weight) >= 0)).all()):
        raise ValueError("examples have a weight that is negative or not finite; expected weights of at least 0")
    check_span("example sessions", examples.session, 0, len(source) - 1)
    if isinstance(examples, Positions):
        check_span("example positions", examples.position, 0, len(source.items) - 1)
        target = source.items
    else:
        target = examples.target
    check_span("example targets", target, 1, model.num_items)


def select_loss(loss: Callable[..., Any] | None, model: Encoder) -> Loss:
    """Returns the loss as a pytree; None is in-batch BPR."""
    return InBatchBPR(model) if loss is None else as_loss(loss)


def select_row_loss(loss: Callable[..., Any] | None, model: Encoder) -> Objective:
    """Returns the loss of ``fit_large``; None is in-batch BPR.

    Raises:
        ValueError: the loss is no objective, or scores the whole catalogue, or does not fit the backbone.
    """
    loss = InBatchBPR(model) if loss is None else loss
    if isinstance(loss, BoundLoss) and not isinstance(loss, Objective):
        raise ValueError(
            f"loss is {type(loss).__name__}, which scores the whole catalogue; expected an in-batch or a sampled loss"
        )
    if not isinstance(loss, Objective):
        raise ValueError(f"loss is {loss}; expected an objective of alkd_jax.objectives, which fit_large binds to rows")
    for name, array in loss.per_item().items():
        if len(array) != model.num_items + 1:
            raise ValueError(f"loss has {len(array)} rows in {name}; expected {model.num_items + 1}")
    return loss
