"""The host loop of training with row-sparse updates, for one seed: intervals, the best parameters, checkpoints."""

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
from alkd_jax.training.fingerprint import row_fingerprint
from alkd_jax.training.steppers import lazy_rows
from alkd_jax.training.steppers.dense import TrainingData

Report = Callable[[int, float, float, float, bool], None]
"""``report(step, loss, recall, examples_per_second, is_active)`` is called after each validation."""


@dataclasses.dataclass
class LearningCurves:
    """The values recorded at each validation; the first entries are those before any step.

    Attributes:
        steps: steps taken so far.
        losses: training loss of the interval's last batch.
        recalls: validation recall.
    """

    steps: list[int]
    losses: list[float]
    recalls: list[float]

    @property
    def best(self) -> int:
        """Index of the validation with the highest recall, the first of equal ones; 0 before the first validation."""
        return 0 if len(self.recalls) == 1 else 1 + int(np.argmax(self.recalls[1:]))

    @property
    def patience_count(self) -> int:
        """Validations since the best one."""
        return len(self.recalls) - 1 - self.best

    def as_lists(self) -> tuple[list[Any], ...]:
        """Returns copies that do not change when the curves get longer."""
        return list(self.steps), list(self.losses), list(self.recalls)


class SeedResult(NamedTuple):
    """The result of one seed.

    Attributes:
        params: the best parameters, or the last ones where no copy of the best was kept; with padded rows.
        curves: the learning curves.
        timed_examples: training examples of the intervals that were timed.
        seconds: duration of these intervals.
    """

    params: Params
    curves: LearningCurves
    timed_examples: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class RowTrainingLoop:
    """The training of one seed.

    Attributes:
        train_step: the static arguments.
        key: the seed's JAX key for batches, dropout and sampled negatives.
        init: returns the initial state.
        shapes: the shapes of the state.
        data: what training reads.
        max_steps: the largest number of steps.
        patience: validations without a higher recall after which training stops.
        keep_best: whether to keep a copy of the parameters of the best validation.
    """

    train_step: lazy_rows.RowTrainStep
    key: jax.Array
    init: Callable[[], lazy_rows.RowTrainState]
    shapes: lazy_rows.RowTrainState
    data: TrainingData
    max_steps: int
    patience: int
    keep_best: bool

    @property
    def best_on_devices(self) -> bool:
        """Whether the best parameters are kept on the devices: on a mesh and on a CPU; otherwise on the host."""
        return self.train_step.layout is not None or jax.default_backend() == "cpu"

    def open_checkpoints(
        self, checkpoints: TrainingFolder | None, key: jax.Array, initial: Params | None, length: int
    ) -> contextlib.AbstractContextManager[TrainingCheckpointer | None]:
        """Opens the folder for checkpoints, where there is one.

        Args:
            checkpoints: the folder.
            key: the seed's key from which all others are derived.
            initial: the initial parameters, if given.
            length: L, the number of positions that random parameters are drawn for.
        """
        if checkpoints is None:
            return contextlib.nullcontext()
        # The fingerprint has the model's own shapes and one device: the mesh may change when training continues.
        layout = self.train_step.layout

        def unpadded(leaf: Any) -> Any:
            is_table = layout is not None and leaf.ndim > 0 and leaf.shape[0] == layout.num_padded_rows
            shape = (layout.num_rows, *leaf.shape[1:]) if layout is not None and is_table else leaf.shape
            return jax.ShapeDtypeStruct(shape, leaf.dtype)

        shapes, train_step = jax.tree.map(unpadded, self.shapes), dataclasses.replace(self.train_step, layout=None)
        dtypes = {str(leaf.dtype) for leaf in shapes.tables.values()}
        options = {"patience": self.patience, "keep_best": self.keep_best, "table_dtype": ", ".join(sorted(dtypes))}
        run_fingerprint = row_fingerprint(train_step, key, shapes, initial, self.data, length=length, **options)
        # Training waits while the state itself is saved: a copy would take the memory of the tables again.
        return open_checkpoints(checkpoints, run_fingerprint, self._template(), in_background=False)

    def _template(self) -> dict[str, Any]:
        """Returns shapes, types and shardings of what is saved."""

        def on_device(leaf: Any) -> Any:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self.train_step.sharding_of(leaf))

        def on_host(leaf: Any) -> np.ndarray:
            return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)

        state = jax.tree.map(on_device, self.shapes)
        best = state.params if self.best_on_devices else jax.tree.map(on_host, self.shapes.params)
        return {"state": state, "best": best if self.keep_best else {}}

    def run(self, checkpointer: TrainingCheckpointer | None, report: Report) -> SeedResult:
        """Runs intervals until the recall has stopped rising or there are no steps left.

        Args:
            checkpointer: restores and saves states, if given.
            report: called after each validation.
        """
        restored = None if checkpointer is None else checkpointer.restore()
        if restored is None:
            state, best, curves = self.init(), {}, LearningCurves([0], [np.nan], [np.nan])
        else:
            state, best = restored[0]["state"], restored[0]["best"]
            curves = LearningCurves(*map(list, restored[1]))
        del restored
        train_step, seconds, timed_examples, first_step = self.train_step, 0.0, 0, curves.steps[-1]
        for step in range(first_step, self.max_steps - train_step.steps + 1, train_step.steps):
            if curves.patience_count >= self.patience:
                break
            began = time.perf_counter()
            state, loss, recall = self._run_interval(state, step)
            if step > first_step:
                seconds += time.perf_counter() - began
                timed_examples += train_step.steps * train_step.batch_size
            if not np.isfinite(loss):
                raise FloatingPointError(f"the loss is not finite at step {step + train_step.steps}")
            curves.steps.append(step + train_step.steps)
            curves.losses.append(loss)
            curves.recalls.append(recall)
            if self.keep_best and curves.patience_count == 0:
                # The former copy is freed before the new one is made.
                best = {}
                best = jax.tree.map(jnp.copy if self.best_on_devices else _copy_to_host, state.params)
            if checkpointer is not None and checkpointer.is_due(len(curves.steps) - 1):
                checkpointer.save(curves.steps[-1], {"state": state, "best": best}, curves.as_lists())
            speed = timed_examples / seconds if seconds else float("nan")
            report(curves.steps[-1], loss, recall, speed, curves.patience_count < self.patience)
        if checkpointer is not None:
            checkpointer.save(curves.steps[-1], {"state": state, "best": best}, curves.as_lists())
        return SeedResult(best if self.keep_best else state.params, curves, timed_examples, seconds)

    def _run_interval(self, state: lazy_rows.RowTrainState, step: int) -> tuple[lazy_rows.RowTrainState, float, float]:
        """Runs one interval; returns the new state, the training loss and the validation recall."""
        state, loss = lazy_rows.take_steps(self.train_step, state, self.key, self.data, np.int32(step))
        with sharding.use_mesh(self.train_step.mesh):
            recall = lazy_rows.recall(self.train_step, state, self.data.validation)
        loss, recall = jax.device_get((loss, recall))
        return state, float(loss), float(recall)


def _copy_to_host(leaf: jax.Array) -> np.ndarray:
    return np.array(leaf, copy=True)
