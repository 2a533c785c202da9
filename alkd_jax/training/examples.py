"""Training examples, (session, target item) pairs, and how they are batched.

An example is a few integers that refer to the sessions; a batch gathers its inputs from the one copy of the sessions.
"""

from typing import TypeAlias

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from alkd_jax.checks import check_count
from alkd_jax.ops.permutation import permuted_index
from alkd_jax.training.parallel_sessions import ParallelSessions
from alkd_jax.training.shifted import ShiftedSequences, recent_positions, seconds_at
from alkd_jax.types import PAD, Batch, Sequences, Sessions


def batch_rows(
    key: jax.Array, step: Int[Array, ""] | int, steps: int, batch_size: int, num_examples: int
) -> Int[Array, "T B"]:
    """Returns the examples of steps ``step .. step + steps − 1``, which depend on key and step alone.

    Each epoch is a new permutation that is split into full batches, so a batch never contains an example twice.

    Args:
        key: a JAX key, the same for every interval of a run.
        step: steps taken so far.
        steps: T, the number of steps.
        batch_size: B, at most ``num_examples``.
        num_examples: E.
    """
    per_epoch = num_examples // batch_size

    def batch(step: Int[Array, ""]) -> Int[Array, " B"]:
        index = step % per_epoch * batch_size + jnp.arange(batch_size)
        return permuted_index(jax.random.fold_in(key, step // per_epoch), index, num_examples)

    return jax.vmap(batch)(step + jnp.arange(steps))


class InRandomOrder:
    """Examples that come in another random order in each epoch."""

    weight: Float[Array, "*seeds E"]

    def rows_of_steps(
        self, key: jax.Array, step: Int[Array, ""] | int, steps: int, batch_size: int
    ) -> Int[Array, "T B"]:
        """Returns the examples of steps ``step .. step + steps − 1``, see :func:`batch_rows`."""
        return batch_rows(key, step, steps, batch_size, self.weight.shape[-1])


@flax.struct.dataclass
class Examples(InRandomOrder):
    """Examples whose inputs are training sessions.

    Attributes:
        session: ``[E]`` int32, row of the session in the training sessions.
        target: ``[E]`` int32, the item to rank high, in ``1..num_items``.
        weight: ``[E]`` float32, non-negative; an example of weight 0 does not count in the loss.

    With a leading seed axis, ``[S, E]``, every seed has its own examples.
    """

    session: Int[Array, "*seeds E"]
    target: Int[Array, "*seeds E"]
    weight: Float[Array, "*seeds E"]

    def take(self, rows: Int[Array, " B"], train: Sessions) -> Batch:
        """Gathers a batch.

        Args:
            rows: the examples.
            train: the training sessions.
        """
        session = self.session[rows]
        return Batch(
            items=jnp.asarray(train.items)[session],
            mask=jnp.asarray(train.mask)[session],
            seconds=None if train.seconds is None else jnp.asarray(train.seconds)[session],
            session=session,
            target=self.target[rows],
            weight=self.weight[rows],
            row=rows,
        )


@flax.struct.dataclass
class Positions(InRandomOrder):
    """Examples whose targets are items of complete training sessions, and whose inputs are the other items.

    Attributes:
        session: ``[E]`` int32, row of the session in the training sequences.
        position: ``[E]`` int32, position of the target in the concatenated items of all sequences.
        weight: ``[E]`` float32, non-negative; an example of weight 0 does not count in the loss.
        length: L, the number of most recent items in the input.
        bidirectional: False takes the items before the target as input; True takes all other items ("cloze").
    """

    session: Int[Array, "*seeds E"]
    position: Int[Array, "*seeds E"]
    weight: Float[Array, "*seeds E"]
    length: int = flax.struct.field(pytree_node=False, default=10)
    bidirectional: bool = flax.struct.field(pytree_node=False, default=False)

    def take(self, rows: Int[Array, " B"], train: Sequences) -> Batch:
        """Gathers a batch.

        Args:
            rows: the examples.
            train: the training sequences.
        """
        items, offsets = jnp.asarray(train.items), jnp.asarray(train.offsets)
        session, target_position = self.session[rows], self.position[rows]
        start = offsets[session]
        stop = offsets[session + 1] - 1 if self.bidirectional else target_position
        position, mask = recent_positions(start, stop, self.length)
        # Positions up to here are those of a session without the target; later items are one position further.
        position = jnp.where(position >= target_position[:, None], position + 1, position)
        source = jnp.where(mask, position, 0)
        return Batch(
            items=jnp.where(mask, items[source], PAD),
            mask=mask,
            seconds=seconds_at(train, source),
            session=session,
            target=items[target_position],
            weight=self.weight[rows],
            row=rows,
        )


AnyExamples: TypeAlias = Examples | Positions | ShiftedSequences | ParallelSessions


def last_item_examples(train: Sessions) -> Examples:
    """Returns the paper's examples: the target of every training session, with weight 1."""
    rows = jnp.arange(len(train), dtype=jnp.int32)
    return Examples(session=rows, target=jnp.asarray(train.target), weight=jnp.ones(len(train)))


def prefix_examples(train: Sequences, *, length: int = 10) -> Positions:
    """Returns every item of every session except the first as a target, with the items before it as input.

    Args:
        train: complete training sessions.
        length: L, the number of most recent items in the input.

    Raises:
        ValueError: no session has two items, or length is below 1.
    """
    return _positions(train, length, bidirectional=False)


def cloze_examples(train: Sequences, *, length: int = 10) -> Positions:
    """Returns every item of every session with two items or more as a target, with the other items as input ("cloze").

    Args:
        train: complete training sessions.
        length: L, the number of most recent items in the input.

    Raises:
        ValueError: no session has two items, or length is below 1.
    """
    return _positions(train, length, bidirectional=True)


def _positions(train: Sequences, length: int, *, bidirectional: bool) -> Positions:
    check_count(1, length=length)
    offsets = np.asarray(train.offsets)
    lengths = np.diff(offsets)
    session = np.repeat(np.arange(len(train), dtype=np.int32), lengths)
    position = np.arange(offsets[0], offsets[-1], dtype=np.int32)
    usable = lengths[session] > 1 if bidirectional else position > offsets[session]
    if not usable.any():
        raise ValueError("train has no session with two items; expected at least one")
    weight = jnp.ones(int(usable.sum()))
    targets = jnp.asarray(session[usable]), jnp.asarray(position[usable])
    return Positions(*targets, weight, length=length, bidirectional=bidirectional)


def sequences_of(train: Sessions) -> Sequences:
    """Concatenates sessions, each followed by its target. Sessions hold only the last L inputs of each session.

    Args:
        train: sessions. A dataset's ``train_sequences`` holds the complete ones.
    """
    items, mask = np.asarray(train.items), np.asarray(train.mask)
    rows = np.concatenate([items, np.asarray(train.target)[:, None]], axis=1)
    is_item = np.concatenate([mask, np.ones((len(train), 1), bool)], axis=1)
    offsets = np.concatenate([[0], np.cumsum(is_item.sum(1))]).astype(np.int32)
    return Sequences(items=rows[is_item].astype(np.int32), offsets=offsets)
