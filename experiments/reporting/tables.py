"""Tables like the paper's: our numbers beside the published ones, as Markdown, CSV and LaTeX."""

import csv
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import tabulate

from alkd_jax.io import read_json, write_json

from .. import tune
from ..pipeline.methods import CONTROLS
from ..pipeline.settings import Settings
from ..pipeline.sources import parse_source
from ..pipeline.stages import Run
from ..reproduce import run_pipeline
from .comparisons import LEVEL
from .results import cell, search_lines

PAPER_NAMES = {"fpmc": "FPMC", "stamp": "STAMP", "attmix": "AttMix"}
METRICS = ("recall@5", "ndcg@5", "recall@10", "ndcg@10")
HEADINGS = (
    "dataset",
    "backbone",
    "method",
    *METRICS,
    "recall@10 − Student [95 %]",
    "p (Holm)",
    *(f"hash-order {metric}" for metric in METRICS if "ndcg" in metric),
    *(f"published {metric}" for metric in METRICS),
)
NOTE = (
    "Mean ± standard deviation over seeds; NDCG by rank. The difference from the student has its interval from "
    "resampled sessions, and p from signs turned at random, corrected by Holm over all tests of the run. Published "
    "NDCGs are of the iteration order of a hash set: compare them with the hash-order columns (released mode). "
    "‡ the published number cannot be what it is called: its recall fits the other dataset's test size, or its NDCG "
    "falls as the list grows longer."
)


@dataclasses.dataclass(frozen=True)
class Tables:
    """What a table is made of.

    Attributes:
        data: data sets, see `experiments.pipeline.sources`; one or more.
        out: folder; every dataset and backbone gets a run's folder in it.
        backbones: of teacher and students.
        seeds: teachers and students trained, all in one program.
        mode: "clean", or "released" for the authors' code as it is.
        selection: "released" reads the authors' files, "own" solves the game for each run's teacher.
        max_steps: training steps at most, teacher, student and distillation each.
        teacher_dim: width of the teacher.
        budget: sessions asked about; default the paper's.
        mesh: devices to compute on, as data=2,model=4; by default one.
        trials: option sets tried for every method that has options, see `experiments.tune`; 0 takes the defaults.
        teacher: who ranks the chosen sessions, see `pipeline.settings`; by default the data's own, which prepared data
            do not have.
        rankings: file of recorded lists that replay reads, for a single data set.
    """

    data: tuple[str, ...]
    out: pathlib.Path
    backbones: tuple[str, ...] = ("fpmc", "stamp", "attmix")
    seeds: int = 5
    mode: str = "clean"
    selection: str = "released"
    max_steps: int = 10_000
    teacher_dim: int = 100
    budget: int | None = None
    mesh: str | None = None
    trials: int = 4
    teacher: str | None = None
    rankings: pathlib.Path | None = None

    def run_of(self, data: str, backbone: str) -> pathlib.Path:
        """The folder of one run."""
        return self.out / f"{parse_source(data).name}-{backbone}-{self.mode}"

    def settings(self, methods: str) -> list[Settings]:
        """The runs that the table needs."""
        return [self.setting(data, backbone, methods) for data in self.data for backbone in self.backbones]

    def setting(self, data: str, backbone: str, methods: str) -> Settings:
        """One of them."""
        return Settings(
            data=data,
            backbone=backbone,
            out=self.run_of(data, backbone),
            seeds=self.seeds,
            mode=self.mode,
            selection=self.selection,
            methods=methods,
            max_steps=self.max_steps,
            teacher_dim=self.teacher_dim,
            budget=self.budget,
            mesh=self.mesh,
            teacher=self.teacher,
            rankings=self.rankings,
        )


def make(tables: Tables, name: str, methods: str) -> list[list[str]]:
    """Searches and runs what is missing, and writes NAME.md, NAME.csv, NAME.tex and NAME.json.

    Args:
        tables: data, backbones and the like.
        name: "table1" or "table2", also of the published numbers.
        methods: as in `experiments.pipeline.settings`.

    Returns:
        The rows, the headings first.
    """
    every = tables.settings(methods)
    for settings in every:
        settings.check()
    numbers = [run_pipeline(searched(settings, tables.trials)) for settings in every]
    rows = [row for run in numbers for row in rows_of(run, published(name))]
    tables.out.mkdir(parents=True, exist_ok=True)
    write_json(tables.out / f"{name}.json", numbers)
    markdown = tabulate.tabulate(rows, HEADINGS, tablefmt="github", disable_numparse=True)
    searches = [
        f"- {run['dataset']} {PAPER_NAMES[run['backbone']]} {line}" for run in numbers for line in search_lines(run)
    ]
    told = "\n".join([markdown, "", NOTE, "", *searches])
    (tables.out / f"{name}.md").write_text(told + "\n", encoding="utf-8")
    latex = tabulate.tabulate(rows, HEADINGS, tablefmt="latex_booktabs", disable_numparse=True)
    (tables.out / f"{name}.tex").write_text(latex + "\n", encoding="utf-8")
    with (tables.out / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([HEADINGS, *rows])
    return [list(HEADINGS), *rows]


def searched(settings: Settings, trials: int) -> Settings:
    """The same settings, after the search for options of which their run's folder is to hold the outcome."""
    if trials and set(settings.asked_methods) & set(tune.GRIDS):
        run = Run.open(settings)
        run.hops_to_candidates()
        run.hop_rankings()
        asked = tune.Tuning(run=settings.out, methods=settings.methods, trials=trials)
        tune.tune(dataclasses.replace(asked, max_steps=min(asked.max_steps, settings.max_steps)))
    return settings


def published(table: str) -> Mapping[str, Any]:
    """The published numbers of a table, {dataset: {backbone: {method: {metric: value}}}}, and under "unfitting" those
    that cannot be what they are called.
    """
    held = read_json(pathlib.Path(__file__).with_name("published.json"))
    return held[table] | {"unfitting": held["unfitting"]}


def rows_of(run: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[list[str]]:
    """A run's rows: the paper's methods, then the controls and the training-free ones."""
    backbone = PAPER_NAMES[run["backbone"]]
    known = theirs.get(run["dataset"], {}).get(backbone, {})
    unfitting = theirs["unfitting"].get(run["dataset"], {}).get(backbone, [])
    tests = {(test["method"], test["metric"]): test for test in run["tests"] if test["against"] == "Student"}
    return [
        [run["dataset"], backbone, f"*{name}*" if name in CONTROLS else name]
        + [cell(columns[metric]) for metric in METRICS]
        + against_student(tests.get((name, "recall@10")))
        + [cell(columns[f"ndcg_released@{k}"]) if f"ndcg_released@{k}" in columns else "" for k in (5, 10)]
        + [printed(known.get(name, {}), metric, unfits=name in unfitting) for metric in METRICS]
        for name, columns in run["methods"].items()
    ]


def against_student(test: Mapping[str, Any] | None) -> list[str]:
    """The difference with its interval, and the corrected p, bold below the level."""
    if test is None:
        return ["", ""]
    low, high = test["interval"]
    p = test["p_randomisation_holm"]
    told = "" if p is None else f"{p:.3f}" if p >= 0.001 else "<.001"
    return [f"{test['difference']:+.4f} [{low:+.4f}, {high:+.4f}]", f"**{told}**" if told and p < LEVEL else told]


def printed(numbers: Mapping[str, float], metric: str, *, unfits: bool) -> str:
    """A published number, marked where it cannot be what it is called."""
    if metric not in numbers:
        return ""
    falls = metric.startswith("ndcg") and numbers["ndcg@10"] < numbers.get("ndcg@5", 0.0)
    return f"{numbers[metric]:.5f}{' ‡' if falls or unfits else ''}"


def shown(rows: Sequence[Sequence[str]], columns: int = 9) -> str:
    """The first columns as text for the terminal."""
    return tabulate.tabulate([row[:columns] for row in rows[1:]], rows[0][:columns], disable_numparse=True)
