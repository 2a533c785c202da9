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


Compute: TypeAlias = Callable[[Evaluated], Mapping[str, float]]
"""Function that returns metrics by name; raises :class:`FileNotFoundError` where something is not at hand."""


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

    def __call__(self, data: Evaluated) -> Mapping[str, float]:
        """Returns the metrics of the test targets."""
        counts = baselines.count(data.dataset.train_sequences, data.dataset.num_items)
        scorer = baselines.method(self.name, **self.options)(counts)
        places = Ranker(counts, data.protocol, self.history).places(scorer, data.dataset.test_sequences)
        return metrics.from_ranks(places.ranks(ties=self.ties))


@dataclasses.dataclass(frozen=True)
class ReleasedStudent:
    """A student that ALKDRec's authors released, by the rules of their code.

    Attributes:
        file: name of the checkpoint.
    """

    file: str

    def __call__(self, data: Evaluated) -> Mapping[str, float]:
        """Returns the metrics of the test targets."""
        model, params = load_released_student(data.files[self.file])
        return evaluation.evaluate(model, params, data.dataset.test, protocol="released").metrics


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A model of a finished run on the same data by the same protocol, not refit: the mean over its seeds.

    Runs in the given folders come before the stored results of :mod:`experiments.pipeline.stored_runs`.

    Attributes:
        method: name of the model in the run.
        training: how it is trained, for the message where there is no such run.
    """

    method: str
    training: str

    def __call__(self, data: Evaluated) -> Mapping[str, float]:
        """Returns the metrics of the first run that is found, in the order of the paths."""
        for folder in data.runs:
            for file in sorted(folder.rglob("metrics.json")):
                results = read_json(file)
                columns = results.get("methods", {}).get(self.method)
                if columns is not None and _is_same(results, data):
                    return {name: float(np.mean(column["values"])) for name, column in columns.items() if "@" in name}
        for run in stored_runs.merged(stored_runs.read(stored_runs.STORED)):
            if run["backbone"] == self.method and _is_same(run, data):
                return {name: float(np.mean(values)) for name, values in run["test"].items() if "@" in name}
        raise FileNotFoundError(
            f"a finished run of {self.method} ({self.training}) on {printable(data.dataset.name)} by the protocol "
            f"{data.protocol.name!r}; name its folder with --runs"
        )


def _is_same(results: Mapping[str, Any], data: Evaluated) -> bool:
    """Whether results are of the same data by the same protocol, of a model that was not refit."""
    protocol = results.get("protocol", {})
    rules = protocol.get("seen"), protocol.get("targets")
    is_same = results.get("dataset") == data.dataset.name and rules == (data.protocol.seen, data.protocol.targets)
    return is_same and not results.get("refit")


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

    def compared(self, here: Mapping[str, float]) -> list[tuple[str, bool]]:
        """Returns a line for each published value beside that here, and whether they agree."""
        return [self._line(metric, published, here[metric]) for metric, published in self.values.items()]

    def _line(self, metric: str, published: float, here: float) -> tuple[str, bool]:
        difference = here - published
        # A hair more than one unit, whose difference of two decimals may be rounded up.
        within = abs(difference) <= self.tolerance * abs(published) + 1.000001 * 10**-self.digits
        share = f", {100 * difference / published:+.1f} %" if published else ""
        verdict = "pass" if within else f"fail ({difference:+.{self.digits}f}{share})"
        numbers = f"{published:.{self.digits}f} stated, {here:.{self.digits}f} here"
        return f"{self.method}, {metric}: {numbers}: {verdict}", within
