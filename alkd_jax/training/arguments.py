"""Checks of the arguments of ``fit`` and ``fit_large``, and the choice of the training examples."""

from typing import Any

import jax
import numpy as np

from alkd_jax import sharding
from alkd_jax.checks import check_at_least, check_one_of, check_span
from alkd_jax.models import Encoder
from alkd_jax.training.examples import (
    AnyExamples,
    Examples,
    Positions,
    cloze_examples,
    last_item_examples,
    prefix_examples,
    sequences_of,
)
from alkd_jax.types import Sequences, Sessions


def select_examples(
    train: Sessions, targets: str, sequences: Sequences | None, examples: AnyExamples | None
) -> tuple[AnyExamples, Sessions | Sequences]:
    """Returns the training examples, and the sessions or sequences that they refer to.

    Args:
        train: the training sessions.
        targets: "last", "all" or "cloze", see :func:`alkd_jax.training.fit`.
        sequences: complete training sessions, if given.
        examples: the examples, if given.

    Raises:
        ValueError: ``targets`` is unknown, or there is nothing to predict.
    """
    check_one_of("targets", targets, ("last", "all", "cloze"))
    if isinstance(examples, Examples) or (examples is None and targets == "last"):
        return last_item_examples(train) if examples is None else examples, train
    sequences = sequences_of(train) if sequences is None else sequences
    if examples is None:
        length = train.items.shape[1]
        examples = (prefix_examples if targets == "all" else cloze_examples)(sequences, length=length)
    return examples, sequences


def check_arguments(model: Encoder, train: Sessions, validation: Sessions, sizes: dict[str, int]) -> None:
    """Refuses what training would fail on, or would silently train with wrong results.

    Args:
        model: a backbone.
        train: the training sessions.
        validation: the validation sessions.
        sizes: batch sizes, numbers of steps and the like, by name.

    Raises:
        ValueError: a size is below 1, a split is empty, an id is out of range, or a session has no item.
    """
    check_at_least(1, **sizes)
    for name, split in (("train", train), ("validation", validation)):
        if len(split) == 0:
            raise ValueError(f"{name} is empty; expected at least one session")
        check_span(f"{name} items", split.items, 0, model.num_items)
        check_span(f"{name} targets", split.target, 1, model.num_items)
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
    check_span("example sessions", examples.session, 0, len(source) - 1)
    if isinstance(examples, Positions):
        check_span("example positions", examples.position, 0, len(source.items) - 1)
        target = source.items
    else:
        target = examples.target
    check_span("example targets", target, 1, model.num_items)


def device_put(tree: Any, layout: sharding.Layout | None) -> Any:
    """Puts arrays on the device, or on every device of the layout's mesh."""
    return jax.device_put(tree) if layout is None else sharding.device_put_global(tree, layout.replicated)
