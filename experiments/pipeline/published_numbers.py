"""Published metrics and how each is computed here: by a counting method, a released student or a finished run."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

import alkd_jax as alkd
from alkd_jax import baselines, evaluation
from alkd_jax.data.readers.released_student import load_released_student
from alkd_jax.errors import printable
from alkd_jax.evaluation import Protocol, metrics
from alkd_jax.io import read_json

from . import stored_runs
from .lineups import Ranker


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """What published metrics are computed from.

    Attributes:
        dataset: the data.
        protocol: how the test sessions are evaluated.
        files: name → file of the entry.
        runs: folders in which finished runs are looked for, at any depth.
    """

    dataset: alkd.Dataset
    protocol: Protocol
    files: Mapping[str, pathlib.Path]
    runs: Sequence[pathlib.Path] = ()


@dataclasses.dataclass(frozen=True)
class Computed:
    """Metrics that were computed here.

    Attributes:
        values: metric → value.
        run: the run that they are of, in words; empty where they were computed from the data.
    """

    values: Mapping[str, float]
    run: str = ""


Compute: TypeAlias = Callable[[Evaluated], Computed]
"""Function that computes metrics; raises :class:`FileNotFoundError` where something is not at hand."""


@dataclasses.dataclass(frozen=True)
class CountingMethod:
    """A method of :mod:`alkd_jax.baselines`, fitted on the training sessions.

    Attributes:
        name: of the method.
        options: of the method.
        ties: rule for ties, one of :data:`alkd_jax.baselines.TIES`.
        history: number of most recent known items that it reads, 0 for all.
    """

    name: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    ties: str = "average"
    history: int = 0

    def __call__(self, data: Evaluated) -> Computed:
        """Returns the metrics of the test targets."""
        counts = baselines.count(data.dataset.train_sequences, data.dataset.num_items)
        scorer = baselines.method(self.name, **self.options)(counts)
        places = Ranker(counts, data.protocol, self.history).places(scorer, data.dataset.test_sequences)
        return Computed(metrics.from_ranks(places.ranks(ties=self.ties)))


@dataclasses.dataclass(frozen=True)
class ReleasedStudent:
    """A student that ALKDRec's authors released, by the rules of their code.

    Attributes:
        file: name of the checkpoint.
    """

    file: str

    def __call__(self, data: Evaluated) -> Computed:
        """Returns the metrics of the test targets."""
        model, params = load_released_student(data.files[self.file])
        return Computed(evaluation.evaluate(model, params, data.dataset.test, protocol="released").metrics)


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A model of a finished run on the same data by the same protocol, not refit: the mean over its seeds.

    Of several runs, the one with the best mean recall on validation counts, at the cut-off by which training stopped.
    Runs in the given folders come before the stored results of :mod:`experiments.pipeline.stored_runs`.

    Attributes:
        method: name of the model in the run.
        training: how it is trained, for the message where there is no such run.
        options: options of the training, or of the backbone, that a run must have.
    """

    method: str
    training: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __call__(self, data: Evaluated) -> Computed:
        """Returns the metrics of the best run."""
        files = [file for folder in data.runs for file in sorted(folder.rglob("metrics.json"))]
        finished = [(str(file), read_json(file)) for file in files]
        stored = [("a stored run", run) for run in stored_runs.merged(stored_runs.read(stored_runs.STORED))]
        for runs, columns_of in ((finished, self._finished), (stored, self._stored)):
            found = [
                (name, run, columns) for name, run in runs if (columns := columns_of(run)) and self._fits(run, data)
            ]
            if found:
                name, run, columns = max(found, key=lambda each: _validation_recall(each[1]))
                values = {metric: float(np.mean(values)) for metric, values in columns.items() if "@" in metric}
                return Computed(values, f"{name}, {_shape(run)}")
        raise FileNotFoundError(
            f"a finished run of {self.method} ({self.training}) on {printable(data.dataset.name)} by the protocol "
            f"{data.protocol.name!r}; name its folder with --runs"
        )

    def _finished(self, run: Mapping[str, Any]) -> dict[str, Sequence[float]]:
        """Returns metric → values over seeds of the method in a run's folder, none without the method."""
        columns = run.get("methods", {}).get(self.method, {})
        return {metric: column["values"] for metric, column in columns.items()}

    def _stored(self, run: Mapping[str, Any]) -> Mapping[str, Sequence[float]]:
        return run["test"] if run["backbone"] == self.method else {}

    def _fits(self, run: Mapping[str, Any], data: Evaluated) -> bool:
        """Whether a run is on the same data by the same protocol, was trained as it must be, and was not refit."""
        protocol, training = run.get("protocol", {}), run.get("training", {})
        rules = protocol.get("seen"), protocol.get("targets")
        is_same = run.get("dataset") == data.dataset.name and rules == (data.protocol.seen, data.protocol.targets)
        known = {**training, **training.get("options", {})}
        return is_same and not run.get("refit") and all(known.get(key) == value for key, value in self.options.items())


def _validation_recall(run: Mapping[str, Any]) -> float:
    """Returns the mean recall on validation by which training stopped, 0 where the run does not say it."""
    column = run.get("validation", {}).get(f"recall@{run.get('training', {}).get('recall_at')}", 0.0)
    values = column["values"] if isinstance(column, Mapping) else column
    return float(np.mean(values))


def _shape(run: Mapping[str, Any]) -> str:
    seeds = run.get("seeds", 1)
    return f"width {run.get('training', {}).get('dim', 'unknown')}, {seeds} seed{'s' * (seeds != 1)}"


@dataclasses.dataclass(frozen=True)
class Published:
    """Published metrics of a method.

    Attributes:
        method: the method in words.
        values: metric → published value.
        compute: how they are computed here.
        source: publication and table.
        tolerance: largest difference from a published value, as a share of it, beside one unit of its last digit.
        digits: number of printed decimals.
    """

    method: str
    values: Mapping[str, float]
    compute: Compute
    source: str
    tolerance: float = 0.0
    digits: int = 4

    def compared(self, here: Computed) -> list[tuple[str, bool]]:
        """Returns a line for each published value beside that here, and whether they agree."""
        lines = [self._line(metric, published, here.values[metric]) for metric, published in self.values.items()]
        return [(f"{line} ({here.run})" if here.run else line, within) for line, within in lines]

    def _line(self, metric: str, published: float, here: float) -> tuple[str, bool]:
        difference = here - published
        # A hair more than one unit, whose difference of two decimals may be rounded up.
        within = abs(difference) <= self.tolerance * abs(published) + 1.000001 * 10**-self.digits
        share = f", {100 * difference / published:+.1f} %" if published else ""
        verdict = "pass" if within else f"fail ({difference:+.{self.digits}f}{share})"
        numbers = f"{published:.{self.digits}f} stated, {here:.{self.digits}f} here"
        return f"{self.method}, {metric}: {numbers}: {verdict}", within
