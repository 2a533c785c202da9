"""Checks of the arguments of ``fit`` and ``fit_large``, and the choice of the training examples and of the loss."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from alkd_jax.checks import check_one_of, check_sessions, check_span
from alkd_jax.models import CausalEncoder, Encoder
from alkd_jax.models.encoder import reads_times
from alkd_jax.objectives import BoundLoss, InBatchBPR, Loss, Objective, PositionSoftmax, as_loss
from alkd_jax.training.examples import (
    AnyExamples,
    Examples,
    Positions,
    cloze_examples,
    last_item_examples,
    prefix_examples,
    sequences_of,
)
from alkd_jax.training.list_examples import ListExamples
from alkd_jax.training.parallel_sessions import ParallelSessions
from alkd_jax.training.shifted import ShiftedSequences, shifted_sequences
from alkd_jax.types import Sequences, Sessions

_EXAMPLES: dict[str, Callable[..., AnyExamples]] = {
    "last": last_item_examples,
    "all": prefix_examples,
    "cloze": cloze_examples,
    "positions": shifted_sequences,
}
"""Name of what is predicted → the examples that predict it."""

TARGETS = tuple(_EXAMPLES)

_Split = TypeVar("_Split", bound=Sessions | Sequences)


def select_inputs(
    model: Encoder,
    train: Sessions,
    validation: Sessions,
    targets: str,
    sequences: Sequences | None,
    examples: AnyExamples | None,
) -> tuple[AnyExamples, Sessions | Sequences, Sessions]:
    """Checks the sessions, and returns what training reads of them.

    Args:
        model: a backbone.
        train: the training sessions.
        validation: the validation sessions.
        targets: as of :func:`select_examples`.
        sequences: as of :func:`select_examples`.
        examples: as of :func:`select_examples`.

    Returns:
        The examples, what they refer to, and the validation sessions; the sessions have times if the backbone reads
        them, and none otherwise.

    Raises:
        ValueError: as of :func:`check_splits` and of :func:`select_examples`, or there are no times that are read.
    """
    check_splits(model, train, validation)
    examples, source = select_examples(model, train, targets, sequences, examples)
    return examples, source, with_times_for(model, "validation", validation)


def select_examples(
    model: Encoder, train: Sessions, targets: str, sequences: Sequences | None, examples: AnyExamples | None
) -> tuple[AnyExamples, Sessions | Sequences]:
    """Returns the training examples, and the sessions or sequences that they refer to.

    Args:
        model: a backbone.
        train: the training sessions.
        targets: "last", "all", "cloze" or "positions", see :func:`alkd_jax.training.fit`.
        sequences: complete training sessions, if given.
        examples: the examples, if given.

    Raises:
        ValueError: ``targets`` is unknown, there is nothing to predict, or an example refers to what does not exist.
    """
    check_one_of("targets", targets, TARGETS)
    source: Sessions | Sequences = train
    if isinstance(examples, Positions | ShiftedSequences | ParallelSessions) or (
        examples is None and targets != "last"
    ):
        complete = sequences_of(train) if sequences is None else sequences
        complete = complete.with_seconds() if reads_times(model) else complete
        source = complete.replace(time=None)  # type: ignore[attr-defined]
    source = with_times_for(model, "train", source)
    if examples is None and isinstance(source, Sequences):
        examples = _EXAMPLES[targets](source, length=train.items.shape[1])
    examples = last_item_examples(train) if examples is None else examples
    if isinstance(examples, ShiftedSequences) and not isinstance(model, CausalEncoder):
        raise ValueError(
            f"model is {type(model).__name__}, which has no encode_positions; expected a causal backbone for targets "
            '"positions"'
        )
    check_examples(model, source, examples)
    return examples, source


def with_times_for(model: Encoder, name: str, split: _Split) -> _Split:
    """Returns sessions without the times that a backbone does not read, which a device would hold.

    Args:
        model: a backbone.
        name: of the sessions, for the error.
        split: sessions or sequences.

    Raises:
        ValueError: the backbone reads times, and there are none.
    """
    if not reads_times(model):
        return split.replace(seconds=None)  # type: ignore[union-attr]
    if split.seconds is None:
        raise ValueError(f"{name} has no times; expected them, since {type(model).__name__} reads times")
    return split


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
        has_item = split.mask.any(1)
        if not bool(has_item.all()):
            row = int(has_item.argmin())
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
    if examples.weight.shape[-1] == 0 or not bool((examples.weight != 0).any(-1).all()):
        raise ValueError("examples are empty; expected at least one example of positive weight")
    names = [field.name for field in dataclasses.fields(examples) if field.metadata.get("pytree_node", True)]
    # A list is one row for each example.
    shapes = {name: np.shape(getattr(examples, name))[: examples.weight.ndim] for name in names}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"examples have arrays of shapes {shapes}; expected equal ones")
    # Neither a NaN nor an infinity is in this span. Arrays on devices are compared there, as they may be large.
    if not bool(((examples.weight >= 0) & (examples.weight < np.inf)).all()):
        raise ValueError("examples have a weight that is negative or not finite; expected weights of at least 0")
    check_span("example sessions", examples.session, 0, len(source) - 1)
    if isinstance(examples, Positions | ParallelSessions):
        check_span("example positions", examples.position, 0, len(source.items) - 1)
    target = examples.target if isinstance(examples, Examples) else source.items
    check_span("example targets", target, 1, model.num_items)
    if isinstance(examples, ListExamples):
        check_span("example lists", examples.listed, 0, model.num_items)


def select_loss(loss: Callable[..., Any] | None, model: Encoder) -> Loss:
    """Returns the loss as a pytree; None is in-batch BPR."""
    return InBatchBPR(model) if loss is None else as_loss(loss)


def select_loss_of(examples: AnyExamples, loss: Callable[..., Any] | None, model: Encoder) -> Loss:
    """Returns the loss of some examples as a pytree; None is in-batch BPR, or the full softmax of every position.

    Raises:
        ValueError: the loss has a target for each position, and the examples have one for each session, or the other
            way round; or the examples read sessions in parallel.
    """
    check_parallel(examples, model, loss, can_train=False)
    if loss is None and isinstance(examples, ShiftedSequences):
        loss = PositionSoftmax(model)
    loss = select_loss(loss, model)
    check_positions(loss, examples)
    return loss


def check_positions(loss: Any, examples: AnyExamples) -> None:
    """Refuses an objective that does not read the targets that the examples have.

    Raises:
        ValueError: as of :func:`select_loss_of`.
    """
    has_positions = isinstance(examples, ShiftedSequences)
    if isinstance(loss, BoundLoss) and loss.reads_positions != has_positions:
        what = "every position" if has_positions else "every session"
        raise ValueError(f"loss is {type(loss).__name__}; expected an objective with a target for {what}")


def select_row_loss(loss: Callable[..., Any] | None, model: Encoder, examples: AnyExamples) -> Objective:
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
    check_positions(loss, examples)
    return loss


def check_parallel(examples: AnyExamples, model: Encoder, loss: Any, *, can_train: bool = True) -> None:
    """Refuses session-parallel examples where the backbone, the loss or the training does not go with them.

    Args:
        examples: the examples; any other kind is accepted.
        model: a backbone.
        loss: the loss.
        can_train: whether the training carries states from step to step.

    Raises:
        ValueError: as said.
    """
    if not isinstance(examples, ParallelSessions):
        return
    if not can_train:
        raise ValueError("examples are ParallelSessions; expected fit_large without a mesh, which carries their states")
    if not hasattr(model, "initial_state"):
        raise ValueError(f"model is {type(model).__name__}, which has no initial_state; expected a recurrent backbone")
    if not hasattr(loss, "loss_of_vectors"):
        raise ValueError(f"loss is {type(loss).__name__}; expected objectives.SharedNegatives for ParallelSessions")
