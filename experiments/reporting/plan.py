"""The plan of a table: which trainings of its runs are done, and how long the others are expected to take.

A training is expected to take as long as the same one took in another run: of the same dataset and backbone where there
is one, else of the same backbone, else of any. The time of a training that no run has had is not known.
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import tabulate

from alkd_jax.data.readers import registry
from alkd_jax.io import read_object

from ..pipeline.methods import METHODS, stage_of
from ..pipeline.run_folder import IDENTITY_FILE
from ..pipeline.settings import Settings
from ..pipeline.stage_records import read_records
from ..pipeline.tuning_file import read_tuning

MODELS = {"Student": "student", "Teacher": "teacher"}
"""Trained models that are no method → the stage that trains them."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What the trainings of one run took.

    Attributes:
        dataset: its name.
        backbone: its name.
        seeds: number of seeds.
        seconds: stage → seconds.
    """

    dataset: str
    backbone: str
    seeds: int
    seconds: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Cell:
    """The state of one run of a table.

    Attributes:
        settings: of the run, with all its methods.
        dataset: name of the dataset.
        done: the trained ones of Teacher, Student and the methods.
        missing: the others → expected seconds, tuning included; None where it is not known.
    """

    settings: Settings
    dataset: str
    done: tuple[str, ...]
    missing: Mapping[str, float | None]

    def methods_within(self, seconds: float) -> tuple[str, ...]:
        """Returns the methods of the run that are done, and the shortest missing ones that end within some seconds.

        A method whose time is not known is expected to take none. The result is empty where teacher and student, which
        all methods need, do not fit.
        """
        left = seconds - sum(self.missing.get(model) or 0.0 for model in MODELS)
        if left < 0:
            return ()
        methods = [name for name in self.done if name not in MODELS]
        for name in sorted((name for name in self.missing if name not in MODELS), key=lambda n: self.missing[n] or 0.0):
            left -= self.missing[name] or 0.0
            if left >= 0:
                methods.append(name)
        return tuple(name for name in self.settings.method_names if name in methods)


def known_costs(folders: Iterable[pathlib.Path]) -> list[Cost]:
    """Returns what the runs in these folders took; a folder without a run is left out."""
    costs = []
    for folder in folders:
        if not ((folder / IDENTITY_FILE).exists() and (folder / "config.json").exists()):
            continue
        identity, config = read_object(folder / IDENTITY_FILE), read_object(folder / "config.json")
        seconds = {name: float(record["seconds"]) for name, record in read_records(folder).items()}
        costs.append(Cost(str(identity["dataset"]), str(identity["backbone"]), int(config["seeds"]), seconds))
    return costs


def make_plan(all_settings: Sequence[Settings], costs: Sequence[Cost], *, trials: int) -> list[Cell]:
    """Returns the state of the runs of a table.

    Args:
        all_settings: of the runs.
        costs: what trainings took, see :func:`known_costs`.
        trials: number of option sets that are tried for every method that has options.
    """
    cells = []
    for settings in all_settings:
        records, tuned = read_records(settings.out), read_tuning(settings.out)
        stages = MODELS | {method: stage_of(method) for method in settings.method_names}
        dataset = registry.parse_source(settings.data).name
        missing = {}
        for name, stage in stages.items():
            if stage in records:
                continue
            seconds = expected_seconds(costs, dataset, settings.backbone, stage, settings.seeds)
            is_tuned = name in MODELS or name in tuned or not METHODS.find(name).grid
            # A trial trains one seed, and the run all of them.
            tuning = 0.0 if is_tuned or seconds is None else trials * seconds / settings.seeds
            missing[name] = None if seconds is None else seconds + tuning
        done = tuple(name for name, stage in stages.items() if stage in records)
        cells.append(Cell(settings, dataset, done, missing))
    return cells


def expected_seconds(costs: Sequence[Cost], dataset: str, backbone: str, stage: str, seeds: int) -> float | None:
    """Returns the mean of the most similar runs that had this stage, in proportion to the seeds; None without one."""
    similar = [
        [cost for cost in costs if (cost.dataset, cost.backbone) == (dataset, backbone)],
        [cost for cost in costs if cost.backbone == backbone],
        list(costs),
    ]
    for group in similar:
        found = [cost.seconds[stage] * seeds / cost.seeds for cost in group if stage in cost.seconds]
        if found:
            return sum(found) / len(found)
    return None


def by_gap(cells: Sequence[Cell]) -> list[Cell]:
    """Returns the runs that miss something, those that miss most first."""
    return sorted((cell for cell in cells if cell.missing), key=lambda cell: -len(cell.missing))


def plan_table(cells: Sequence[Cell]) -> str:
    """Returns a line for each run: what is done, what is missing, and the minutes that it is expected to take."""
    rows = []
    for cell in cells:
        known = [seconds for seconds in cell.missing.values() if seconds is not None]
        unknown = len(cell.missing) - len(known)
        minutes = f"{sum(known) / 60:,.0f}" if known or not unknown else ""
        total = len(cell.done) + len(cell.missing)
        rows.append([cell.dataset, cell.settings.backbone, f"{len(cell.done)} of {total}", minutes, unknown or ""])
    headings = ("dataset", "backbone", "trained", "minutes left", "of unknown time")
    return tabulate.tabulate(rows, headings, disable_numparse=True)
