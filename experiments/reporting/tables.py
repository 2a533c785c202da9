"""The tables of the paper: our results beside the published ones, as Markdown, CSV, LaTeX and JSON."""

import csv
import dataclasses
import io
import pathlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tabulate

from alkd_jax.checks import check_at_least
from alkd_jax.data.readers import registry
from alkd_jax.errors import markdown
from alkd_jax.io import to_json, write_texts
from alkd_jax.locks import locked
from alkd_jax.registry import is_outside, path_safe

from .. import tune
from ..pipeline import dataset_checks, distributed, options
from ..pipeline.command_line import parse
from ..pipeline.console import cli_errors, print_line, print_lines
from ..pipeline.methods import CONTROLS, METHODS
from ..pipeline.protocols import protocol_names
from ..pipeline.rules import mode_of, rules_of
from ..pipeline.settings import Settings, Teacher
from ..pipeline.stages import Run, take_part
from ..reproduce import run_pipeline
from . import beyond_accuracy, cells, plan
from .comparisons import LEVEL
from .published import format_published, published_results
from .results import format_cell, format_tied, tuning_lines

_BACKBONE_TITLES = {
    "fpmc": "FPMC",
    "stamp": "STAMP",
    "attmix": "AttMix",
    "gru4rec": "GRU4Rec",
    "narm": "NARM",
    "srgnn": "SR-GNN",
    "core": "CORE",
    "sasrec": "SASRec",
    "gsasrec": "gSASRec",
    "esasrec": "eSASRec",
    "hstu": "HSTU",
}
METRICS = ("recall@5", "ndcg@5", "recall@10", "ndcg@10")
TIED = "tied targets"
PROTOCOL = "protocol"
HEADINGS = (
    "dataset",
    "backbone",
    "method",
    "lists",
    *METRICS,
    TIED,
    "recall@10 − Student [95 %]",
    "p (Holm)",
    *(f"hash-order {metric}" for metric in METRICS if "ndcg" in metric),
    *(f"published {metric}" for metric in METRICS),
)
"""Columns of the table; a csv file has the protocol in one more, because it has no caption."""
NOTE = (
    "Mean ± standard deviation over seeds; NDCG by rank. Lists: who ranked the selected sessions, for the methods that "
    "learn from these lists. The interval of the difference from the student comes from "
    "resampled sessions, its p-value from a randomization test with Holm's correction over all tests of the run. "
    "Published NDCGs follow the iteration order of a hash set: compare them with the hash-order columns (released "
    "mode). ‡ marks a published number that is implausible: its recall fits the other dataset's test size, or its NDCG "
    "falls as the list grows longer."
)
METHODS_OF_TABLE = {"table1": "table1", "table2": "table2,controls"}
"""Command → the methods that it compares, as in the option `--methods`."""


def backbone_title(backbone: str) -> str:
    """Returns the name of a backbone as the paper spells it; the name itself for one that the paper does not use."""
    return _BACKBONE_TITLES.get(backbone, backbone)


@dataclasses.dataclass(frozen=True)
class TableArgs:
    """The options of the commands that make tables; those of other commands are described in `pipeline.options`.

    Attributes:
        out: folder; every dataset and backbone has a run's folder in it. A plan is shown first: what is trained
            already, and how long the rest takes by the times of the runs in this folder.
        hours: train only what is expected to end within so many hours, in the runs that miss most first; the same
            command then goes on with the rest. By default everything is trained.
    """

    data: options.AllData
    out: pathlib.Path
    backbones: options.Backbones = ("fpmc", "stamp", "attmix")
    seeds: options.Seeds = 5
    mode: options.Mode = "clean"
    seen: options.Seen = "exclude"
    targets: options.Targets = "last"
    selection: options.Selection = None
    max_steps: options.MaxSteps = 10_000
    teacher_dim: options.TeacherDim = 100
    teacher_backbone: options.TeacherBackbone = None
    budget: options.Budget = None
    mesh: options.Mesh = None
    distributed: options.Distributed = None
    trials: options.Trials = 4
    teacher: Teacher = None
    rankings: options.RankingsFile = None
    precision: options.Precision = "float32"
    overwrite: options.Overwrite = False
    hours: float | None = None

    def run_folder(self, data: str, backbone: str) -> pathlib.Path:
        """Returns the folder of one run."""
        return self.out / f"{self.data_name(data)}-{path_safe(backbone)}-{mode_of(rules_of(self.mode))}"

    def data_name(self, data: str) -> str:
        """Returns the name of one of the datasets in names of folders; two of one name have their sources in it."""
        name = registry.parse_source(data).name
        sharing = {other for other in self.data if registry.parse_source(other).name == name}
        return name if len(sharing) == 1 else re.sub(r"[^\w.-]+", "_", data)

    def all_settings(self, methods: str) -> list[Settings]:
        """Returns the settings of all runs of a table."""
        return [self.run_settings(data, backbone, methods) for data in self.data for backbone in self.backbones]

    def run_settings(self, data: str, backbone: str, methods: str) -> Settings:
        """Returns the settings of one run."""
        return Settings(
            data=data,
            backbone=backbone,
            out=self.run_folder(data, backbone),
            seeds=self.seeds,
            mode=self.mode,
            seen=self.seen,
            targets=self.targets,
            selection=self.selection,
            methods=methods,
            max_steps=self.max_steps,
            teacher_dim=self.teacher_dim,
            teacher_backbone=self.teacher_backbone,
            budget=self.budget,
            mesh=self.mesh,
            teacher=self.teacher,
            rankings=self.rankings,
            precision=self.precision,
            overwrite=self.overwrite,
        )


def table_command(name: str, description: str | None) -> None:
    """Runs the command of a table: reads its options, makes the table and prints it.

    Args:
        name: "table1" or "table2".
        description: text of `--help`.
    """

    def show(args: TableArgs) -> None:
        print_lines(as_text(make_table(args, name, METHODS_OF_TABLE[name])))
        print_line(f"{args.out}/{name}.md, .csv, .tex, .json")

    with cli_errors():
        distributed.run(parse(TableArgs, name, description), show, take_part)


def make_table(args: TableArgs, name: str, methods: str) -> list[list[str]]:
    """Runs what is missing, tuning first, and writes NAME.md, NAME.csv, NAME.tex and NAME.json.

    Args:
        args: datasets, backbones and the other options.
        name: "table1" or "table2"; also the table of the published results.
        methods: methods to compare, as in `Settings.methods`.

    Returns:
        The rows, the headings first.
    """
    if args.hours is not None:
        check_at_least(0, **{"--hours": args.hours})
    all_settings = args.all_settings(methods)
    dataset_checks.check_all(all_settings)
    args.out.mkdir(parents=True, exist_ok=True)
    with locked(args.out):
        planned = plan.make_plan(all_settings, plan.known_costs(args.out.iterdir()), trials=args.trials)
        print_lines(plan.plan_table(planned))
        chosen = all_settings if args.hours is None else run_what_fits(args, all_settings)
        runs = []
        for settings in chosen:
            tune_methods(settings, args.trials)
            runs.append(run_pipeline(settings))
        return write_table(args.out, name, runs)


def run_what_fits(args: TableArgs, all_settings: Sequence[Settings]) -> list[Settings]:
    """Trains what is expected to end within `--hours`, in the runs that miss most first.

    After each run the rest is planned again, with the time that is left and the times that this run took.

    Returns:
        The settings of the runs that have results, with the methods that are trained.
    """
    end = time.monotonic() + 3600 * (args.hours or 0.0)
    visited: set[pathlib.Path] = set()
    while True:
        planned = plan.make_plan(all_settings, plan.known_costs(args.out.iterdir()), trials=args.trials)
        cell = next((cell for cell in plan.by_gap(planned) if cell.settings.out not in visited), None)
        if cell is None:
            break
        visited.add(cell.settings.out)
        fits = cell.methods_within(end - time.monotonic())
        if set(fits) - set(cell.done):
            settings = dataclasses.replace(cell.settings, methods=",".join(fits))
            tune_methods(settings, args.trials)
            run_pipeline(settings)
    for cell in planned:
        if cell.missing:
            print_line(f"left for the next time: {cell.dataset}, {cell.settings.backbone}: {', '.join(cell.missing)}")
    trained = [(cell, [name for name in cell.done if name not in plan.MODELS]) for cell in planned]
    return [dataclasses.replace(cell.settings, methods=",".join(names)) for cell, names in trained if names]


def write_table(out: pathlib.Path, name: str, runs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Writes NAME.md, NAME.csv, NAME.tex and NAME.json, all of them or none; see :func:`make_table`."""
    published = published_results(name)

    def rows(escape: Callable[[str], str]) -> list[list[str]]:
        return [row for run in runs for row in result_rows(run, published, escape)]

    protocol = f"Protocol: {protocol_names(runs)}."
    tuned = [
        markdown(f"{run['dataset']} {backbone_title(run['backbone'])} {line}")
        for run in runs
        for line in tuning_lines(run)
    ]
    page = [_as_github(HEADINGS, rows(markdown)), "", protocol, "", NOTE, "", *(f"- {line}" for line in tuned)]
    out.mkdir(parents=True, exist_ok=True)
    write_texts(
        {
            out / f"{name}.json": to_json(runs),
            out / f"{name}.md": "\n".join([*page, *beyond_accuracy_part(runs)]) + "\n",
            out / f"{name}.tex": as_latex(rows(cells.plain), protocol),
            out / f"{name}.csv": as_csv(runs, published),
        }
    )
    return [list(HEADINGS), *rows(cells.plain)]


def as_latex(rows: Sequence[Sequence[str]], caption: str) -> str:
    """Returns a LaTeX table with a caption, for the packages booktabs and graphicx."""
    tabular = tabulate.tabulate(rows, HEADINGS, tablefmt="latex_booktabs", disable_numparse=True)
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{caption}}}", r"\resizebox{\linewidth}{!}{%", tabular, "}"]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def as_csv(runs: Sequence[Mapping[str, Any]], published: Mapping[str, Any]) -> str:
    """Returns csv lines, the headings first and the protocol last in every row."""
    lines = io.StringIO(newline="")
    body = [[*row, run["protocol"]["name"]] for run in runs for row in result_rows(run, published, cells.spreadsheet)]
    csv.writer(lines).writerows([[*HEADINGS, PROTOCOL], *body])
    return lines.getvalue()


def beyond_accuracy_part(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the lines of a page's table beyond accuracy; none where no run has these metrics."""
    rows = [
        [markdown(run["dataset"]), markdown(backbone_title(run["backbone"])), markdown(name), *values]
        for run in runs
        for name, *values in beyond_accuracy.beyond_accuracy_rows(run["methods"])
    ]
    table = _as_github(("dataset", "backbone", *beyond_accuracy.HEADINGS), rows)
    return ["", "## Beyond accuracy", "", table, "", beyond_accuracy.NOTE] if rows else []


def _as_github(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return tabulate.tabulate(rows, headings, tablefmt="github", disable_numparse=True)


def tune_methods(settings: Settings, trials: int) -> None:
    """Tunes the options of a run's methods, as `experiments.tune` does, and stores them in the run's folder."""
    if trials and any(METHODS.find(name).grid for name in settings.method_names):
        run = Run.open(settings)
        run.stages_to_candidates()
        run.rankings_stage()
        args = tune.Tuning(run=settings.out, methods=settings.methods, trials=trials)
        tune.tune(dataclasses.replace(args, max_steps=min(args.max_steps, settings.max_steps)))


def result_rows(
    run: Mapping[str, Any], published: Mapping[str, Any], escape: Callable[[str], str] = cells.plain
) -> list[list[str]]:
    """Returns a run's rows: the paper's methods, then the controls and the training-free methods.

    Args:
        run: the content of `metrics.json`.
        published: as :func:`experiments.reporting.published.published_results` returns them.
        escape: a function of :mod:`experiments.reporting.cells`, for the names.
    """
    backbone = backbone_title(run["backbone"])
    published_of = published.get(run["dataset"], {}).get(backbone, {})
    implausible = published["implausible"].get(run["dataset"], {}).get(backbone, [])
    tests = {(test["method"], test["metric"]): test for test in run["tests"] if test["against"] == "Student"}
    return [
        [escape(run["dataset"]), escape(backbone), f"*{escape(name)}*" if name in CONTROLS else escape(name)]
        + [escape(run.get("lists", "")) if learns_from_lists(name) else ""]
        + [format_cell(columns[metric]) for metric in METRICS]
        + [format_tied(columns)]
        + student_difference(tests.get((name, "recall@10")))
        + [format_cell(columns[f"ndcg_released@{k}"]) if f"ndcg_released@{k}" in columns else "" for k in (5, 10)]
        + [format_published(published_of.get(name, {}), metric, implausible=name in implausible) for metric in METRICS]
        for name, columns in run["methods"].items()
    ]


def learns_from_lists(method: str) -> bool:
    """Returns whether a method may learn from the teacher's lists of the selected sessions."""
    return is_outside(method) or (method in METHODS and METHODS[method].is_paid)


def student_difference(test: Mapping[str, Any] | None) -> list[str]:
    """Returns the difference from the student with its interval, and the corrected p-value, bold where significant."""
    if test is None:
        return ["", ""]
    difference = f"{test['difference']:+.4f}"
    if None not in test["interval"]:
        difference += " [{:+.4f}, {:+.4f}]".format(*test["interval"])
    p = test["p_randomization_holm"]
    p_text = "" if p is None else f"{p:.3f}" if p >= 0.001 else "<.001"
    return [difference, f"**{p_text}**" if p_text and p < LEVEL else p_text]


def as_text(rows: Sequence[Sequence[str]], columns: int = 11) -> str:
    """Returns the first columns as text for the terminal."""
    return tabulate.tabulate([row[:columns] for row in rows[1:]], rows[0][:columns], disable_numparse=True)
