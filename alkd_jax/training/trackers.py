"""Trackers, which keep the numbers of a training run: JSON lines, TensorBoard, Weights & Biases, MLflow."""

import json
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

from alkd_jax.checks import check_one_of
from alkd_jax.errors import import_extra
from alkd_jax.io import finite_or_none, write_text
from alkd_jax.training.results import Progress

Metrics: TypeAlias = Mapping[str, float | Sequence[float]]
"""Name → a number, or one for each seed; NaN where there is none."""

CURVES_FILE = "curves.jsonl"


@runtime_checkable
class Tracker(Protocol):
    """What keeps the numbers of a training run."""

    def log(self, step: int, metrics: Metrics) -> None:
        """Keeps the numbers of a validation.

        Args:
            step: steps taken so far.
            metrics: "loss" and "recall" of each seed, and "sessions_per_second".
        """

    def finish(self) -> None:
        """Ends the run, also where training ended by an error."""


def metrics_of(now: Progress) -> Metrics:
    """Returns what a tracker is given of the progress of training."""
    return {"loss": now.losses.tolist(), "recall": now.recalls.tolist(), "sessions_per_second": now.speed}


def scalars(metrics: Metrics) -> dict[str, float]:
    """Returns the numbers under a name each, without those that are NaN.

    Example:
        >>> scalars({"loss": [0.5, math.nan], "sessions_per_second": 100.0})
        {'loss/seed 0': 0.5, 'sessions_per_second': 100.0}
    """
    named: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, int | float):
            named[name] = value
        else:
            named |= {f"{name}/seed {seed}": number for seed, number in enumerate(value)}
    return {name: float(number) for name, number in named.items() if not math.isnan(number)}


class JsonLines:
    """Appends a line for each validation to ``FOLDER/curves.jsonl``; NaN becomes null.

    A run that continues from a checkpoint repeats some steps; the earlier lines of these are removed.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self._is_first = folder / CURVES_FILE, True

    def log(self, step: int, metrics: Metrics) -> None:
        """Writes the line of a validation."""
        if self._is_first and self.path.exists():
            _drop_lines_from(self.path, step)
        self._is_first = False
        with self.path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(finite_or_none({"step": step, **metrics}), allow_nan=False) + "\n")

    def finish(self) -> None:
        """Does nothing: every line is written when it is logged."""


class TensorBoard:
    """Writes the event files of TensorBoard to ``FOLDER/tensorboard``, with tensorboardX."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._writer = import_extra("tensorboardX").SummaryWriter(str(folder / "tensorboard"))

    def log(self, step: int, metrics: Metrics) -> None:
        """Adds the numbers of a validation."""
        for name, value in scalars(metrics).items():
            self._writer.add_scalar(name, value, step)

    def finish(self) -> None:
        """Closes the files."""
        self._writer.close()


class WandB:
    """Logs to a run of Weights & Biases, whose own settings and environment variables choose account and mode.

    Args:
        name: of the run.
        folder: for its local files.
        project: of the run.
        config: options of the run, plain values.
    """

    def __init__(
        self, name: str, *, folder: pathlib.Path, project: str = "alkd_jax", config: Mapping[str, Any] | None = None
    ) -> None:
        options = {"project": project, "name": name, "dir": str(folder), "config": dict(config or {})}
        self._run = import_extra("wandb").init(**options, reinit="create_new")

    def log(self, step: int, metrics: Metrics) -> None:
        """Logs the numbers of a validation."""
        self._run.log(scalars(metrics), step=step)

    def finish(self) -> None:
        """Ends the run."""
        self._run.finish()


class MLflow:
    """Logs to a run of MLflow, whose own settings and environment variables choose the server.

    Args:
        name: of the run.
        experiment: of the run.
        config: options of the run, plain values.
    """

    def __init__(self, name: str, *, experiment: str = "alkd_jax", config: Mapping[str, Any] | None = None) -> None:
        # The functions of the module act on the one run that is active in a process; a client names its run.
        self._client = import_extra("mlflow").MlflowClient()
        found = self._client.get_experiment_by_name(experiment)
        number = self._client.create_experiment(experiment) if found is None else found.experiment_id
        self._run = self._client.create_run(number, run_name=name).info.run_id
        for option, value in (config or {}).items():
            self._client.log_param(self._run, option, value)

    def log(self, step: int, metrics: Metrics) -> None:
        """Logs the numbers of a validation."""
        for name, value in scalars(metrics).items():
            self._client.log_metric(self._run, name, value, step=step)

    def finish(self) -> None:
        """Ends the run."""
        self._client.set_terminated(self._run)


TRACKERS: Mapping[str, Callable[[str, pathlib.Path, Mapping[str, Any]], Tracker]] = {
    "wandb": lambda name, folder, config: WandB(name, folder=folder, config=config),
    "mlflow": lambda name, folder, config: MLflow(name, config=config),
    "tensorboard": lambda name, folder, config: TensorBoard(folder),
}
"""Name → function of the run's name, a folder and options that makes a tracker."""


def make_tracker(kind: str, name: str, folder: pathlib.Path, config: Mapping[str, Any]) -> Tracker:
    """Makes a tracker by its name.

    Args:
        kind: "wandb", "mlflow" or "tensorboard".
        name: of the run.
        folder: for local files.
        config: options of the run, plain values.

    Raises:
        ValueError: there is no such tracker.
        ModuleNotFoundError: its package is not installed; the error names the extra that installs it.
    """
    check_one_of("tracker", kind, TRACKERS)
    folder.mkdir(parents=True, exist_ok=True)
    return TRACKERS[kind](name, folder, config)


def _drop_lines_from(path: pathlib.Path, step: int) -> None:
    """Removes lines of this step or later ones, and a last line that was not written completely."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    complete = [line for line in lines if line.endswith("\n")]
    write_text(path, "".join(line for line in complete if json.loads(line)["step"] < step))
