"""The host loop of training: intervals, validations, early stopping, the best parameters, checkpoints and curves."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from alkd_jax import sharding
from alkd_jax.models import Params
from alkd_jax.training import interval as programs
from alkd_jax.training.arrays import TrainingData
from alkd_jax.training.checkpoints import TrainingCheckpointer, TrainingFolder, open_checkpoints
from alkd_jax.training.interval import Interval, IntervalMetrics
from alkd_jax.training.results import History, Progress


@dataclasses.dataclass
class LearningCurves:
    """The values recorded at each validation; the first entries are those before any step.

    Attributes:
        steps: steps taken so far.
        losses: ``[S]`` each, the training loss of the interval's last batch; NaN for a seed that has stopped.
        recalls: ``[S]`` each, the validation recall; NaN for a seed that has stopped.
    """

    steps: list[int]
    losses: list[np.ndarray]
    recalls: list[np.ndarray]

    @classmethod
    def from_lists(cls, steps: list[int], losses: list[list[float]], recalls: list[list[float]]) -> "LearningCurves":
        """Returns the curves of :meth:`as_lists`."""
        return cls(list(steps), [np.asarray(row) for row in losses], [np.asarray(row) for row in recalls])

    def as_lists(self) -> tuple[list[Any], ...]:
        """Returns plain numbers, as copies that do not change when the curves get longer."""
        return list(self.steps), [row.tolist() for row in self.losses], [row.tolist() for row in self.recalls]

    @property
    def best(self) -> Int[np.ndarray, " S"]:
        """Index of the validation with each seed's highest recall, the first of equal ones."""
        return np.nanargmax(np.stack(self.recalls), axis=0)

    @property
    def patience_count(self) -> Int[np.ndarray, " S"]:
        """Validations of each seed since its best one."""
        return (~np.isnan(np.stack(self.recalls))).sum(0) - 1 - self.best

    def best_values(self) -> tuple[Int[np.ndarray, " S"], Float[np.ndarray, " S"]]:
        """Returns each seed's steps before its best validation, and the recall of that."""
        return np.asarray(self.steps)[self.best], np.nanmax(np.stack(self.recalls), axis=0)

    def last_values(self) -> tuple[Int[np.ndarray, " S"], Float[np.ndarray, " S"]]:
        """Returns the steps taken, and each seed's highest recall."""
        best_step, best_metric = self.best_values()
        return np.full_like(best_step, self.steps[-1]), best_metric

    def values(self, *, best: bool) -> tuple[Int[np.ndarray, " S"], Float[np.ndarray, " S"]]:
        """Returns :meth:`best_values` or :meth:`last_values`."""
        return self.best_values() if best else self.last_values()

    def history(self) -> History:
        """Returns the curves as arrays."""
        return History(np.asarray(self.steps), np.stack(self.losses, 1), np.stack(self.recalls, 1))


@dataclasses.dataclass
class Stopwatch:
    """The time of the intervals, without the first one, which includes compilation."""

    seconds: float = 0.0
    num_examples: int = 0

    @property
    def speed(self) -> float:
        """Training examples per second; NaN until it is known."""
        return self.num_examples / self.seconds if self.seconds else float("nan")


@dataclasses.dataclass(frozen=True)
class TrainingLoop:
    """One training run: what does not change while it runs. Seeds are in groups, see :mod:`alkd_jax.training.seeds`.

    Attributes:
        interval: the static arguments of the compiled programs.
        keys: the key of each group, or its keys with a seed axis.
        data: what each group reads.
        init: returns the initial state of each group.
        split: divides a state of all seeds among the groups.
        join: makes a state of all seeds from those of the groups.
        max_steps: the largest number of steps.
        patience: validations without a higher recall after which a seed stops.
        keep_best: whether to keep a copy of the parameters of the best validation.
        best_on_host: whether that copy is on the host.
        state_on_host: whether the arrays of a saved state are on the host, so that `split` moves them to the device and
            `join` fetches them.
        first_seed: place of the first seed among all seeds, for error messages.
    """

    interval: Interval
    keys: list[jax.Array]
    data: list[TrainingData]
    init: Callable[[], list[Any]]
    split: Callable[[Any], list[Any]]
    join: Callable[[list[Any]], Any]
    max_steps: int
    patience: int
    keep_best: bool = True
    best_on_host: bool = False
    state_on_host: bool = False
    first_seed: int = 0

    def run(
        self,
        folder: TrainingFolder | None,
        describe: Callable[[], dict[str, Any]],
        shapes: Any,
        progress: Callable[[Progress], None] | None,
        *,
        in_background: bool = True,
    ) -> tuple[Params, LearningCurves, float]:
        """Runs intervals until every seed has stopped or there are no steps left.

        Args:
            folder: a folder for checkpoints, from which training continues.
            describe: returns the fingerprint of the training run.
            shapes: the shapes of a state of all seeds.
            progress: called after each validation.
            in_background: whether training continues while a state is saved.

        Returns:
            The best parameters of all seeds, or the last ones where no best ones are kept; the curves; and the training
            examples per second.
        """
        if folder is None:
            return self._run(None, progress)
        with open_checkpoints(folder, describe(), self._template(shapes), in_background=in_background) as checkpointer:
            return self._run(checkpointer, progress)

    def _template(self, shapes: Any) -> dict[str, Any]:
        """Returns shapes, types and shardings of what a checkpoint holds."""

        def on_device(leaf: Any) -> Any:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=self.interval.sharding_of(leaf))

        def on_host(leaf: Any) -> np.ndarray:
            return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)

        def of_state(leaf: Any) -> Any:
            return on_host(leaf) if self.state_on_host and leaf.ndim > 0 else on_device(leaf)

        best = jax.tree.map(on_host if self.best_on_host else on_device, self._params(shapes)) if self.keep_best else {}
        return {"state": jax.tree.map(of_state, shapes), "best": best}

    def _run(
        self, checkpointer: TrainingCheckpointer | None, progress: Callable[[Progress], None] | None
    ) -> tuple[Params, LearningCurves, float]:
        steps, watch = self.interval.steps, Stopwatch()
        states, best, curves = self._start(None if checkpointer is None else checkpointer.restore())
        first_step = curves.steps[-1]
        for step in range(first_step, self.max_steps - steps + 1, steps):
            active = curves.patience_count < self.patience
            if not active.any():
                break
            began = time.perf_counter()
            states, metrics, recall = self._run_interval(states, active, step)
            if step > first_step:
                watch.seconds += time.perf_counter() - began
                watch.num_examples += steps * self.interval.batch_size * len(active)
            self._check_finite(metrics, active, step)
            curves.steps.append(step + steps)
            curves.losses.append(np.where(active, metrics.loss, np.nan))
            curves.recalls.append(np.where(active, recall, np.nan))
            if self.keep_best:
                best = self._keep_better(best, states, curves.best == len(curves.steps) - 1)
            if checkpointer is not None and checkpointer.is_due(len(curves.steps) - 1):
                self._save(checkpointer, states, best, curves)
            if progress is not None:
                num_active = int((curves.patience_count < self.patience).sum())
                losses, recalls = curves.losses[-1], curves.recalls[-1]
                numbers = losses, recalls, watch.speed, num_active, self.interval.recall_at
                progress(Progress(curves.steps[-1], self.max_steps, *numbers))
            if checkpointer is not None and checkpointer.is_interrupted():
                self._save(checkpointer, states, best, curves)
                raise KeyboardInterrupt
        if checkpointer is not None:
            self._save(checkpointer, states, best, curves)
        with self._on_mesh():
            return self.join(best if self.keep_best else [self._params(state) for state in states]), curves, watch.speed

    def _start(self, restored: tuple[Any, Any] | None) -> tuple[list[Any], list[Params], LearningCurves]:
        """Returns the states, the best parameters and the curves to begin with."""
        with self._on_mesh():
            if restored is not None:
                state, best = (self.split(restored[0][part]) if restored[0][part] else [] for part in ("state", "best"))
                return state, best, LearningCurves.from_lists(*restored[1])
            states = self.init()
            recall = self._concatenate([self._validate(*pair) for pair in zip(states, self.data, strict=True)])
            best = [self._copy_params(state) for state in states] if self.keep_best else []
        return states, best, LearningCurves([0], [np.full(len(recall), np.nan)], [recall])

    def _run_interval(
        self, states: list[Any], active: Bool[np.ndarray, " S"], step: int
    ) -> tuple[list[Any], IntervalMetrics, np.ndarray]:
        """Runs one interval and a validation of every group that has an active seed; other results have no meaning."""
        size = len(active) // len(states)
        shape = (size,) if self.interval.has_seed_axis else ()
        unused: tuple[Any, Any] = (
            IntervalMetrics(np.zeros(shape), np.ones((*shape, self.interval.steps), bool)),
            np.zeros(shape),
        )
        new_states, results = list(states), [unused] * len(states)
        for number in np.unique(np.flatnonzero(active) // size):
            key, data = self.keys[number], self.data[number]
            with sharding.use_mesh(self.interval.stepper.step_mesh):
                state, metrics = programs.take_steps(self.interval, states[number], key, data, np.int32(step))
            with self._on_mesh():
                new_states[number], results[number] = state, (metrics, self._validate(state, data))
        return new_states, *self._concatenate(results)

    def _keep_better(self, best: list[Params], states: list[Any], is_better: Bool[np.ndarray, " S"]) -> list[Params]:
        """Returns the best parameters of every group, given the seeds whose last validation is their best one."""
        kept, groups = list(best), is_better.reshape(len(states), -1)
        for number in np.flatnonzero(groups.any(1)):
            if self.best_on_host:
                # The former copy is freed before the new one is made.
                best[number] = kept[number] = None
                kept[number] = self._copy_params(states[number])
            else:
                seeds = groups[number] if self.interval.has_seed_axis else groups[number, 0]
                with self._on_mesh():
                    kept[number] = programs.keep_better(self.interval, kept[number], states[number], seeds)
        return kept

    def _copy_params(self, state: Any) -> Params:
        if self.best_on_host:
            return jax.tree.map(lambda leaf: np.array(leaf, copy=True), self._params(state))
        return programs.copy_params(self.interval, state)

    def _params(self, state: Any) -> Params:
        return self.interval.stepper.model_params(state)

    def _validate(self, state: Any, data: TrainingData) -> jax.Array:
        return programs.validate(self.interval, state, data.validation)

    def _save(
        self, checkpointer: TrainingCheckpointer, states: list[Any], best: list[Params], curves: LearningCurves
    ) -> None:
        with self._on_mesh():
            saved = {"state": self.join(states), "best": self.join(best) if self.keep_best else {}}
            checkpointer.save(curves.steps[-1], saved, curves.as_lists())

    def _check_finite(self, metrics: IntervalMetrics, active: np.ndarray, step: int) -> None:
        """Raises where an active seed's loss, or its numbers after any step of the interval, are not finite."""
        for seed in np.flatnonzero(active):
            bad_steps = np.flatnonzero(~metrics.is_finite[seed])
            if len(bad_steps) or not np.isfinite(metrics.loss[seed]):
                steps = f"in the steps {step + 1}..{step + self.interval.steps}"
                when = f"at step {step + int(bad_steps[0]) + 1}" if len(bad_steps) else steps
                raise FloatingPointError(f"the loss of seed {self.first_seed + seed} is not finite {when}")

    def _on_mesh(self) -> Any:
        return sharding.use_mesh(self.interval.mesh)

    def _concatenate(self, results: list[Any]) -> Any:
        """Fetches the groups' results to the host, with one seed axis."""
        combine = np.concatenate if self.interval.has_seed_axis else np.stack
        return jax.tree.map(lambda *parts: combine(parts), *jax.device_get(results))
