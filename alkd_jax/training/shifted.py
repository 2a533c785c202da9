"""Whole sessions as training examples: every item after the first is a target of one pass over the session.

Most sessions are much shorter than the longest. So sessions of similar length are batched together, and a step reads
only as many positions as its longest session has, rounded up to one of a few lengths. Every target has the same weight
in the training as a whole, whatever the lengths of the sessions that it is batched with.
"""

import itertools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.checks import check_count
from alkd_jax.ops.permutation import permuted_index
from alkd_jax.types import PAD, Batch, Sequences

_LENGTHS = (4, 8, 16, 64)
"""The lengths, beside L itself, that batches are cut to; each costs the compilation of a step."""


def lengths_up_to(longest: int) -> tuple[int, ...]:
    """Returns the lengths that batches are cut to where the longest session has so many positions, ascending."""
    return (*(size for size in _LENGTHS if size < longest), longest)


@flax.struct.dataclass
class ShiftedSequences:
    """Examples that are whole training sessions: the input without the last item, the targets one position later.

    Attributes:
        session: ``[E]`` int32, row of the session in the training sequences, in groups of similar length.
        weight: ``[E]`` float32, non-negative weight of each target of the session, with a mean of 1 over all targets
            divided by their mean number in a session; 0 excludes a session.
        length: L, the number of most recent positions.
        lengths: lengths that batches are cut to, ascending; the last one is L.
        groups: number of examples in each group.
    """

    session: Int[Array, "*seeds E"]
    weight: Float[Array, "*seeds E"]
    length: int = flax.struct.field(pytree_node=False, default=10)
    lengths: tuple[int, ...] = flax.struct.field(pytree_node=False, default=())
    groups: tuple[int, ...] = flax.struct.field(pytree_node=False, default=())

    def take(self, rows: Int[Array, " B"], train: Sequences) -> Batch:
        """Gathers a batch.

        Args:
            rows: the examples.
            train: the training sequences.
        """
        items, offsets = jnp.asarray(train.items), jnp.asarray(train.offsets)
        session = self.session[rows]
        position, mask = recent_positions(offsets[session], offsets[session + 1] - 1, self.length)
        source = jnp.where(mask, position, 0)
        return Batch(
            items=jnp.where(mask, items[source], PAD),
            mask=mask,
            seconds=seconds_at(train, source),
            session=session,
            target=jnp.where(mask, items[jnp.where(mask, position + 1, 0)], PAD),
            weight=self.weight[rows][:, None] * mask / len(rows),
            row=rows,
        )

    def rows_of_steps(
        self, key: jax.Array, step: Int[Array, ""] | int, steps: int, batch_size: int
    ) -> Int[Array, "T B"]:
        """Returns the examples of steps ``step .. step + steps − 1``, see :func:`grouped_rows`."""
        return grouped_rows(key, step, steps, batch_size, self.groups)


def recent_positions(
    start: Int[Array, " B"], stop: Int[Array, " B"], length: int
) -> tuple[Int[Array, "B L"], Bool[Array, "B L"]]:
    """Returns the last L positions of ``start .. stop − 1``, and which of them there are.

    Args:
        start: the first position of each row.
        stop: the position after the last one of each row.
        length: L.
    """
    position = jnp.maximum(stop - length, start)[:, None] + jnp.arange(length)[None]
    return position, position < stop[:, None]


def seconds_at(train: Sequences, position: Int[Array, "B L"]) -> Int[Array, "B L"] | None:
    """Returns the times of the items at some positions, where the training sequences have them."""
    return None if train.seconds is None else jnp.asarray(train.seconds)[position]


def shifted_sequences(train: Sequences, *, length: int = 10) -> ShiftedSequences:
    """Returns every session with two items or more; each item after the first is a target of weight 1.

    Args:
        train: complete training sessions.
        length: L, the number of most recent positions that are read.

    Raises:
        ValueError: no session has two items, or length is below 1.
    """
    check_count(1, length=length)
    num_targets = np.minimum(np.diff(np.asarray(train.offsets)) - 1, length)
    session = np.flatnonzero(num_targets > 0)
    if not len(session):
        raise ValueError("train has no session with two items; expected at least one")
    longest = int(num_targets.max())
    lengths = lengths_up_to(longest)
    group = np.searchsorted(lengths, num_targets[session])
    order = np.argsort(group, kind="stable")
    groups = np.bincount(group, minlength=len(lengths))
    weight = np.full(len(session), len(session) / num_targets[session].sum(), np.float32)
    return ShiftedSequences(
        session=jnp.asarray(session[order], jnp.int32),
        weight=jnp.asarray(weight),
        length=longest,
        lengths=lengths,
        groups=tuple(groups.tolist()),
    )


def grouped_rows(
    key: jax.Array, step: Int[Array, ""] | int, steps: int, batch_size: int, groups: tuple[int, ...]
) -> Int[Array, "T B"]:
    """Returns the examples of steps ``step .. step + steps − 1``, which depend on key and step alone.

    In each epoch the examples of each group are permuted, the groups follow each other from a random place on, as on a
    circle, and are split into full batches, which come in random order. A batch never contains an example twice.

    Args:
        key: a JAX key, the same for every interval of a run.
        step: steps taken so far.
        steps: T, the number of steps.
        batch_size: B, at most the number of examples.
        groups: number of examples in each group; they lie one after the other.
    """
    num_examples = sum(groups)
    per_epoch = num_examples // batch_size
    starts = tuple(itertools.accumulate(groups, initial=0))

    def batch(step: Int[Array, ""]) -> Int[Array, " B"]:
        epoch_key = jax.random.fold_in(key, step // per_epoch)
        start_key, order_key, group_key = jax.random.split(epoch_key, 3)
        number = permuted_index(order_key, step % per_epoch, per_epoch)
        start = jax.random.randint(start_key, (), 0, num_examples)
        place = (start + number * batch_size + jnp.arange(batch_size)) % num_examples
        row = place
        for group, (first, size) in enumerate(zip(starts, groups, strict=False)):
            if size:
                inside = jnp.clip(place - first, 0, size - 1)
                permuted = first + permuted_index(jax.random.fold_in(group_key, group), inside, size)
                row = jnp.where((place >= first) & (place < first + size), permuted, row)
        return row

    return jax.vmap(batch)(step + jnp.arange(steps))


def at_batch_length(function: Callable[[Batch], Any], batch: Batch, lengths: tuple[int, ...]) -> Any:
    """Computes a function of a batch that is cut to the shortest of some lengths that its longest session fits.

    Args:
        function: a function of the batch, whose result has the same shapes whatever the length.
        batch: sessions that begin at position 0.
        lengths: ascending, the last one that of the batch; with fewer than two the function is computed as it is.
    """
    if len(lengths) < 2:
        return function(batch)
    longest = batch.mask.sum(1).max()
    branch = sum((longest > length).astype(jnp.int32) for length in lengths[:-1])
    return jax.lax.switch(branch, [lambda batch, n=n: function(_cut(batch, n)) for n in lengths], batch)


def _cut(batch: Batch, length: int) -> Batch:
    """Returns the first positions of a batch."""
    fields = {name: getattr(batch, name) for name in ("items", "mask", "target", "weight", "seconds")}
    cut = {name: array[:, :length] for name, array in fields.items() if array is not None}
    return batch.replace(**cut)  # type: ignore[attr-defined]
