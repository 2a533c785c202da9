"""Session-parallel batches: every row of a batch reads one session after the other, an item at each step."""

import heapq

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from alkd_jax.checks import check_count
from alkd_jax.types import PAD, Batch, Sequences


@flax.struct.dataclass
class ParallelBatch(Batch):
    """A batch of session-parallel training, with one item for each row.

    Attributes:
        starts: ``[B]`` True where the row's item is the first of its session.
    """

    starts: Bool[Array, " B"] | None = None


@flax.struct.dataclass
class ParallelSessions:
    """Examples in the order in which they are read: those of step t are the rows ``t B … (t + 1) B − 1``.

    An epoch has T steps, and the next one begins with the same examples again. At its end, where there are no sessions
    left for some rows, these have weight 0.

    Attributes:
        session: ``[T B]`` int32, row of the session in the training sequences.
        position: ``[T B]`` int32, position of the input item in the concatenated items; its successor is the target.
        weight: ``[T B]`` float32, 1, or 0 where the row has no session.
        starts: ``[T B]`` bool, True where the input item is the first of its session.
        batch_size: B.
    """

    session: Int[Array, " E"]
    position: Int[Array, " E"]
    weight: Float[Array, " E"]
    starts: Bool[Array, " E"]
    batch_size: int = flax.struct.field(pytree_node=False, default=1)

    def take(self, rows: Int[Array, " B"], train: Sequences) -> ParallelBatch:
        """Gathers a batch, whose input is one item for each row.

        Args:
            rows: the examples.
            train: the training sequences.
        """
        items, position = jnp.asarray(train.items), self.position[rows]
        is_used = self.weight[rows] > 0
        return ParallelBatch(
            items=jnp.where(is_used, items[position], PAD)[:, None],
            mask=is_used[:, None],
            session=self.session[rows],
            target=items[position + 1],
            weight=self.weight[rows],
            row=rows,
            starts=self.starts[rows],
        )

    def rows_of_steps(
        self, key: jax.Array, step: Int[Array, ""] | int, steps: int, batch_size: int
    ) -> Int[Array, "T B"]:
        """Returns the examples of steps ``step .. step + steps − 1``.

        Args:
            key: not used, since the sessions are read in their own order.
            step: steps taken so far.
            steps: T, the number of steps.
            batch_size: B, that of the examples.
        """
        per_epoch = len(self.weight) // batch_size
        number = (step + jnp.arange(steps)) % per_epoch
        return number[:, None] * batch_size + jnp.arange(batch_size)[None]


def parallel_sessions(train: Sequences, *, batch_size: int = 32) -> ParallelSessions:
    """Returns session-parallel examples of GRU4Rec: the sessions by start time, each to the row that is free first.

    Args:
        train: complete training sessions; without times they are read in the given order.
        batch_size: B, the number of sessions that are read at a time; rows without a session are left out where there
            are fewer sessions of two items or more.

    Raises:
        ValueError: no session has two items, or ``batch_size`` is below 1.

    Reference:
        Hidasi et al., Session-based recommendations with recurrent neural networks, ICLR 2016, section 3.2.1.
    """
    check_count(1, batch_size=batch_size)
    offsets, num_targets = np.asarray(train.offsets), np.diff(np.asarray(train.offsets)) - 1
    order = np.flatnonzero(num_targets > 0)
    if not len(order):
        raise ValueError("train has no session with two items; expected at least one")
    if train.time is not None:
        order = order[np.argsort(train.time[offsets[order]], kind="stable")]
    batch_size = min(batch_size, len(order))
    first_step, row = _assign(num_targets[order], batch_size)
    sizes = num_targets[order]
    within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    step = np.repeat(first_step, sizes) + within
    place = step * batch_size + np.repeat(row, sizes)
    num_places = (int(step.max()) + 1) * batch_size

    def at_places(values: np.ndarray, dtype: type) -> Array:
        array: np.ndarray = np.zeros(num_places, dtype)
        array[place] = values
        return jnp.asarray(array)

    return ParallelSessions(
        session=at_places(np.repeat(order, sizes), np.int32),
        position=at_places(np.repeat(offsets[order], sizes) + within, np.int32),
        weight=at_places(np.ones(len(place)), np.float32),
        starts=at_places(within == 0, np.bool_),
        batch_size=batch_size,
    )


def _assign(num_targets: Int[np.ndarray, " N"], batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the step at which each session begins, and its row: that which is free first, the lowest of several."""
    free = [(0, row) for row in range(batch_size)]
    first_step, rows = np.empty(len(num_targets), np.int64), np.empty(len(num_targets), np.int64)
    for number, size in enumerate(num_targets.tolist()):
        step, row = free[0]
        first_step[number], rows[number] = step, row
        heapq.heapreplace(free, (step + size, row))
    return first_step, rows
