"""One run of training by rows from the host's side: intervals one after the other, the best parameters, a folder."""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alkd_jax import sharding
from alkd_jax.models import Params
from alkd_jax.training.checkpoints import TrainingCheckpointer, TrainingFolder, open_checkpoints
from alkd_jax.training.fingerprint import row_identity
from alkd_jax.training.steppers import lazy_rows
from alkd_jax.training.steppers.dense import TrainingData

Tell = Callable[[int, float, float, float, bool], None]
"""``tell(step, loss, recall, examples a second, whether it goes on)``."""


@dataclasses.dataclass
class Curves:
    """What was seen after each validation, from before the first step on; the rest of where a run stands follows.

    Attributes:
        steps: taken so far.
        losses: of the interval's last batch.
        recalls: on validation.
    """

    steps: list[int]
    losses: list[float]
    recalls: list[float]

    @property
    def best(self) -> int:
        """Which validation was the best, the first of equals; 0 before any."""
        return 0 if len(self.recalls) == 1 else 1 + int(np.argmax(self.recalls[1:]))

    @property
    def stale(self) -> int:
        """Validations since the best."""
        return len(self.recalls) - 1 - self.best

    def as_lists(self) -> tuple[list[Any], ...]:
        """Copies, which do not grow."""
        return list(self.steps), list(self.losses), list(self.recalls)


class Outcome(NamedTuple):
    """What a run came to.

    Attributes:
        params: the best, or the last where no copy was to be kept, in the shapes of the state.
        curves: of the run.
        timed: examples of the intervals that were timed.
        seconds: these took.
    """

    params: Params
    curves: Curves
    timed: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class RowRun:
    """One seed's training.

    Attributes:
        program: what is compiled in.
        key: decides batches, dropout and draws.
        start: makes the first state.
        shapes: of the state.
        material: what is learned from.
        max_steps: at most so many.
        patience: validations without a better recall after which it stops.
        keep_best: keeps a copy of the parameters of the best validation.
    """

    program: lazy_rows.RowProgram
    key: jax.Array
    start: Callable[[], lazy_rows.RowState]
    shapes: lazy_rows.RowState
    material: TrainingData
    max_steps: int
    patience: int
    keep_best: bool

    @property
    def is_copy_on_devices(self) -> bool:
        """Whether the best are kept where the tables are: on a mesh, in their parts; else on the host."""
        return self.program.layout is not None or jax.default_backend() == "cpu"

    def folder(
        self, checkpoints: TrainingFolder | None, key: jax.Array, initial: Params | None, length: int
    ) -> contextlib.AbstractContextManager[TrainingCheckpointer | None]:
        """The open folder of checkpoints, where there is one.

        Args:
            checkpoints: which.
            key: the seed's.
            initial: parameters to start from, if given.
            length: L that fresh parameters are drawn for.
        """
        if checkpoints is None:
            return contextlib.nullcontext()
        # Told in the model's own shapes and for one device: the mesh is no part of what a training is.
        layout = self.program.layout

        def own(leaf: Any) -> Any:
            is_table = layout is not None and leaf.ndim > 0 and leaf.shape[0] == layout.rows_held
            shape = (layout.num_rows, *leaf.shape[1:]) if layout is not None and is_table else leaf.shape
            return jax.ShapeDtypeStruct(shape, leaf.dtype)

        shapes, program = jax.tree.map(own, self.shapes), dataclasses.replace(self.program, layout=None)
        dtype = {str(leaf.dtype) for leaf in shapes.tables.values()}
        options = {"patience": self.patience, "keep_best": self.keep_best, "table_dtype": ", ".join(sorted(dtype))}
        identity = row_identity(program, key, shapes, initial, self.material, length=length, **options)
        # The state itself is saved, and training waits: a copy would take as much memory again as the tables.
        return open_checkpoints(checkpoints, identity, self._template(), in_background=False)

    def _template(self) -> dict[str, Any]:
        """What is saved, described."""

        def placed(leaf: Any) -> Any:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self.program.place(leaf))

        def on_host(leaf: Any) -> np.ndarray:
            return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)

        state = jax.tree.map(placed, self.shapes)
        best = state.params if self.is_copy_on_devices else jax.tree.map(on_host, self.shapes.params)
        return {"state": state, "best": best if self.keep_best else {}}

    def run(self, kept: TrainingCheckpointer | None, tell: Tell) -> Outcome:
        """Runs intervals until the recall has stopped rising or the steps are spent."""
        found = None if kept is None else kept.restore()
        if found is None:
            state, best, curves = self.start(), {}, Curves([0], [np.nan], [np.nan])
        else:
            state, best, curves = found[0]["state"], found[0]["best"], Curves(*map(list, found[1]))
        del found
        program, seconds, timed, began_at = self.program, 0.0, 0, curves.steps[-1]
        for step in range(began_at, self.max_steps - program.steps + 1, program.steps):
            if curves.stale >= self.patience:
                break
            began = time.perf_counter()
            state, loss, recall = self._interval(state, step)
            if step > began_at:
                seconds, timed = seconds + time.perf_counter() - began, timed + program.steps * program.batch_size
            if not np.isfinite(loss):
                raise FloatingPointError(f"the loss is not finite at step {step + program.steps}")
            curves.steps.append(step + program.steps)
            curves.losses.append(loss)
            curves.recalls.append(recall)
            if self.keep_best and curves.stale == 0:
                # The older copy goes before the newer one is made.
                best = {}
                best = jax.tree.map(jnp.copy if self.is_copy_on_devices else _to_host, state.params)
            if kept is not None and kept.is_due(len(curves.steps) - 1):
                kept.save(curves.steps[-1], {"state": state, "best": best}, curves.as_lists())
            speed = timed / seconds if seconds else float("nan")
            tell(curves.steps[-1], loss, recall, speed, curves.stale < self.patience)
        if kept is not None:
            kept.save(curves.steps[-1], {"state": state, "best": best}, curves.as_lists())
        return Outcome(best if self.keep_best else state.params, curves, timed, seconds)

    def _interval(self, state: lazy_rows.RowState, step: int) -> tuple[lazy_rows.RowState, float, float]:
        """The steps, and what is seen after them."""
        state, loss = lazy_rows.take_steps(self.program, state, self.key, self.material, np.int32(step))
        with sharding.use_mesh(self.program.mesh):
            recall = lazy_rows.recall(self.program, state, self.material.validation)
        loss, recall = jax.device_get((loss, recall))
        return state, float(loss), float(recall)


def _to_host(leaf: jax.Array) -> np.ndarray:
    return np.array(leaf, copy=True)
