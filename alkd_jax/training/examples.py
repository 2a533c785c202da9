"""What a model learns from: (session, item to rank high) pairs by index, and how they are batched.

Nothing is materialised: an example is a few integers, and a batch gathers its items from the one copy of the sessions.
"""

from typing import TypeAlias

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from alkd_jax.ops.permutation import permuted_index
from alkd_jax.types import PAD, Batch, Sequences, Sessions


@flax.struct.dataclass
class Examples:
    """Rows of the training sessions, each with an item to rank high.

    Attributes:
        session: ``[E]`` int32, row in the training sessions.
        target: ``[E]`` int32, item in ``1..num_items``.
        weight: ``[E]`` float32, non-negative; 0 makes an example a filler that counts for nothing.

    With a leading seed axis, ``[S, E]``, every seed has examples of its own.
    """

    session: Int[Array, "*seeds E"]
    target: Int[Array, "*seeds E"]
    weight: Float[Array, "*seeds E"]

    def take(self, rows: Int[Array, " B"], train: Sessions) -> Batch:
        """Gathers a batch: these examples with their sessions."""
        session = self.session[rows]
        return Batch(
            items=jnp.asarray(train.items)[session],
            mask=jnp.asarray(train.mask)[session],
            session=session,
            target=self.target[rows],
            weight=self.weight[rows],
            row=rows,
        )


@flax.struct.dataclass
class Positions:
    """Items of whole training sessions to be ranked high, given the items around or before them.

    Attributes:
        session: ``[E]`` int32, row in the training sequences.
        position: ``[E]`` int32, place of the target among all items of all sequences.
        weight: ``[E]`` float32, non-negative; 0 makes an example a filler.
        length: L, most recent items taken as input.
        around: False: the input is what came before the target. True: the whole session without it ("cloze").
    """

    session: Int[Array, "*seeds E"]
    position: Int[Array, "*seeds E"]
    weight: Float[Array, "*seeds E"]
    length: int = flax.struct.field(pytree_node=False, default=10)
    bidirectional: bool = flax.struct.field(pytree_node=False, default=False)

    def take(self, rows: Int[Array, " B"], train: Sequences) -> Batch:
        """Gathers a batch: the targets at these positions with their inputs."""
        items, offsets = jnp.asarray(train.items), jnp.asarray(train.offsets)
        session, hole = self.session[rows], self.position[rows]
        start = offsets[session]
        stop = offsets[session + 1] - 1 if self.bidirectional else hole
        first = jnp.maximum(stop - self.length, start)
        place = first[:, None] + jnp.arange(self.length)[None]
        mask = place < stop[:, None]
        # Inputs are numbered as if the target were not there.
        place = jnp.where(place >= hole[:, None], place + 1, place)
        return Batch(
            items=jnp.where(mask, items[jnp.where(mask, place, 0)], PAD),
            mask=mask,
            session=session,
            target=items[hole],
            weight=self.weight[rows],
            row=rows,
        )


AnyExamples: TypeAlias = Examples | Positions


def last_item_examples(train: Sessions) -> Examples:
    """The paper's examples: the held-out item of every training session, weight 1."""
    rows = jnp.arange(len(train), dtype=jnp.int32)
    return Examples(session=rows, target=jnp.asarray(train.target), weight=jnp.ones(len(train)))


def prefix_examples(train: Sequences, *, length: int = 10) -> Positions:
    """Every item but the first of every session, given what came before it.

    Args:
        train: whole training sessions.
        length: L, most recent items taken as input.

    Raises:
        ValueError: no session has two items, or length is below 1.
    """
    return _positions(train, length, around=False)


def cloze_examples(train: Sequences, *, length: int = 10) -> Positions:
    """Every item of every session of at least two, given the others in their order ("cloze").

    Args:
        train: whole training sessions.
        length: L, most recent items taken as input.

    Raises:
        ValueError: no session has two items, or length is below 1.
    """
    return _positions(train, length, around=True)


def _positions(train: Sequences, length: int, *, around: bool) -> Positions:
    if length < 1:
        raise ValueError(f"length is {length}; expected at least 1")
    offsets = np.asarray(train.offsets)
    lengths = np.diff(offsets)
    session = np.repeat(np.arange(len(train), dtype=np.int32), lengths)
    position = np.arange(offsets[0], offsets[-1], dtype=np.int32)
    usable = lengths[session] > 1 if around else position > offsets[session]
    if not usable.any():
        raise ValueError("no training session has two items; there is nothing to predict")
    weight = jnp.ones(int(usable.sum()))
    return Positions(
        jnp.asarray(session[usable]), jnp.asarray(position[usable]), weight, length=length, bidirectional=around
    )


def sequences_of(train: Sessions) -> Sequences:
    """The sessions back to back, each with its target at the end; only the inputs that the sessions hold.

    Args:
        train: sessions; use a dataset's ``train_sequences`` where there are, which were never cut.
    """
    items, mask = np.asarray(train.items), np.asarray(train.mask)
    rows = np.concatenate([items, np.asarray(train.target)[:, None]], axis=1)
    kept = np.concatenate([mask, np.ones((len(train), 1), bool)], axis=1)
    offsets = np.concatenate([[0], np.cumsum(kept.sum(1))]).astype(np.int32)
    return Sequences(items=rows[kept].astype(np.int32), offsets=offsets)


def batch_rows(
    key: jax.Array, step: Int[Array, ""] | int, steps: int, batch_size: int, num_examples: int
) -> Int[Array, "T B"]:
    """Rows of the examples for steps ``step .. step + steps − 1``: a function of key and step alone.

    Each epoch is a fresh permutation cut into whole batches, so a batch never holds an example twice.

    Args:
        key: the run's, the same for every interval.
        step: steps taken so far.
        steps: T, how many to plan.
        batch_size: B, at most ``num_examples``.
        num_examples: E.
    """
    per_epoch = num_examples // batch_size

    def batch(step: Int[Array, ""]) -> Int[Array, " B"]:
        place = step % per_epoch * batch_size + jnp.arange(batch_size)
        return permuted_index(jax.random.fold_in(key, step // per_epoch), place, num_examples)

    return jax.vmap(batch)(step + jnp.arange(steps))
