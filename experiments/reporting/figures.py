"""The figures of the paper: one setting varies over several runs, and a table and a plot show the results.

The runs share what the setting does not change: each new run starts from a copy of the first one's folder, whose stages
run again only where their inputs differ.
"""

import dataclasses
import functools
import io
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tabulate
from matplotlib.figure import Figure

from alkd_jax.data.readers import registry
from alkd_jax.errors import printable
from alkd_jax.io import to_json, write_texts
from alkd_jax.locks import LOCK, locked

from ..pipeline import dataset_checks, distributed, stage_records
from ..pipeline.command_line import parse
from ..pipeline.console import cli_errors, print_line
from ..pipeline.protocols import protocol_names
from ..pipeline.run import RunContext
from ..pipeline.settings import Settings
from ..pipeline.stages import take_part
from ..reproduce import run_pipeline
from .figure_options import (
    BudgetFigure,
    CorrectionFigure,
    FigureOptions,
    Points,
    RatioFigure,
    WidthFigure,
    shared_settings,
)
from .report_figures import METHOD_COLORS
from .results import format_cell


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What a figure varies and shows.

    Attributes:
        x_label: name of the quantity that varies.
        options: the options of its command, which give the points.
        fixed: settings of all points.
        plotted: methods that the figure shows.
        ordered: whether the points are steps of one quantity; only then lines connect them.
    """

    x_label: str
    options: Callable[..., FigureOptions]
    fixed: Mapping[str, Any]
    plotted: Sequence[str]
    ordered: bool = True


SWEEPS: Mapping[str, Sweep] = {
    "fig2_width": Sweep(
        x_label="width of the student",
        options=WidthFigure,
        fixed={"methods": "ALKDRec"},
        plotted=("Teacher", "Student", "ALKDRec"),
    ),
    "fig2_correction": Sweep(
        x_label="share of the lists without the next item that are corrected",
        options=CorrectionFigure,
        fixed={"methods": "ALKDRec,RAD-BC"},
        plotted=("Student", "RAD-BC", "ALKDRec"),
    ),
    "fig3_ratios": Sweep(
        x_label="effective : similar : incorrect",
        options=RatioFigure,
        fixed={"methods": "ALKDRec", "selection": "own"},
        plotted=("Student", "ALKDRec"),
        ordered=False,
    ),
    "fig4_budget": Sweep(
        x_label="number of sessions that the teacher ranks",
        options=BudgetFigure,
        fixed={"methods": "short", "selection": "own"},
        plotted=("Student", "Random", "ALKDRec"),
    ),
}
"""Command → its figure."""


def figure_command(name: str, description: str | None) -> None:
    """Runs the command of a figure: reads its options and makes the figure.

    Args:
        name: a key of `SWEEPS`.
        description: text of `--help`.
    """
    with cli_errors():
        options = parse(SWEEPS[name].options, name, description)
        distributed.run(options, functools.partial(make_figure, name), take_part)


def make_figure(name: str, args: FigureOptions, *, start: pathlib.Path | None = None) -> None:
    """Runs the points of a figure and writes NAME.json, NAME.md and NAME.svg into the folder of its options.

    A point that the data are too small for is left out, with a line that says why.

    Args:
        name: a key of `SWEEPS`.
        args: its options.
        start: as in :func:`run_sweep`.
    """
    sweep = SWEEPS[name]
    base = shared_settings(args, sweep.fixed)
    points = possible_points(name, base, args.points)
    base.out.mkdir(parents=True, exist_ok=True)
    with locked(base.out):
        results = run_sweep(base, points, start=start)
        write_figure(base.out, name, results, sweep)


def possible_points(name: str, base: Settings, points: Points) -> Points:
    """Returns the points that can be carried out on the data, and prints why others cannot.

    Args:
        name: of the figure.
        base: the settings that all points share.
        points: of the figure.

    Raises:
        ValueError: a setting is invalid, or no point can be carried out.
    """
    all_settings = {label: dataclasses.replace(base, **changes) for label, changes in points.items()}
    for settings in (base, *all_settings.values()):
        settings.check()
    dataset, possible = registry.read(base.data), {}
    for label, settings in all_settings.items():
        try:
            dataset_checks.check(dataset_checks.fit_to(settings, dataset), dataset)
        except ValueError as error:
            print_line(f"{name}: {label} is left out: {error}")
            continue
        possible[label] = points[label]
    if not possible:
        raise ValueError(f"{name}: none of the points {', '.join(points)} is possible on {printable(dataset.name)}")
    return possible


def run_sweep(base: Settings, points: Points, *, start: pathlib.Path | None = None) -> dict[str, dict[str, Any]]:
    """Runs the pipeline at every point.

    Args:
        base: the settings that all points share; its folder will contain a run's folder for each point.
        points: name → the settings of this point.
        start: folder of a run on the same data and backbone, whose stages are reused where the settings agree.

    Returns:
        Name → the content of that run's `metrics.json`.
    """
    results: dict[str, dict[str, Any]] = {}
    first = start
    for name, changes in points.items():
        settings = dataclasses.replace(base, out=base.out / name, **changes)
        if first is not None and not settings.out.exists():
            copy_run(first, settings)
        results[name] = run_pipeline(settings)
        first = first or settings.out
    return results


def copy_run(first: pathlib.Path, settings: Settings) -> None:
    """Copies a run's folder to that of other settings, without the records of the stages that these change."""
    partial = settings.out.with_name(f".{settings.out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(first, partial, ignore=shutil.ignore_patterns(LOCK, ".*.partial", ".*.removed"))
    run = RunContext.reopen(first, readonly=True)
    stage_records.add_inputs(partial, run.stage_inputs)
    stage_records.forget_changed(partial, dataclasses.replace(run, settings=settings).stage_inputs)
    partial.rename(settings.out)


def write_figure(
    out: pathlib.Path,
    name: str,
    results: Mapping[str, Mapping[str, Any]],
    sweep: Sweep,
    *,
    metrics: Sequence[str] = ("ndcg@10", "recall@10"),
) -> None:
    """Writes NAME.json, NAME.md and NAME.svg, all of them or none.

    Args:
        out: folder.
        name: of the figure.
        results: point → results, as :func:`run_sweep` returns them.
        sweep: the axis and the methods.
        metrics: one panel for each.
    """
    columns = [(method, metric) for method in sweep.plotted for metric in metrics]
    rows = [
        [point, *(format_cell(run["methods"][method][metric]) for method, metric in columns)]
        for point, run in results.items()
    ]
    headings = [sweep.x_label, *(f"{method} {metric}" for method, metric in columns)]
    table = tabulate.tabulate(rows, headings, tablefmt="github", disable_numparse=True)
    plot = io.StringIO()
    plot_results(results, sweep, metrics).savefig(plot, format="svg", metadata={"Date": None})
    write_texts(
        {
            out / f"{name}.json": to_json({point: dict(run) for point, run in results.items()}),
            out / f"{name}.md": f"{table}\n\nProtocol: {protocol_names(results.values())}.\n",
            out / f"{name}.svg": plot.getvalue(),
        }
    )
    print_line(f"{out}/{name}.svg, .md, .json")


def plot_results(results: Mapping[str, Mapping[str, Any]], sweep: Sweep, metrics: Sequence[str]) -> Figure:
    """Plots mean and standard deviation of every metric over the points, one panel for each metric."""
    figure = Figure(figsize=(4.5 * len(metrics), 3.4), layout="constrained")
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        for method in sweep.plotted:
            values = [run["methods"][method][metric] for run in results.values()]
            mean, std = [value["mean"] for value in values], [value["std"] for value in values]
            style = {"color": METHOD_COLORS[method], "linestyle": "-" if sweep.ordered else "none"}
            axes.errorbar(list(results), mean, yerr=std, label=method, marker="o", ms=4, capsize=2, **style)
        axes.set(xlabel=sweep.x_label, ylabel=f"test {metric}", ylim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False)
    return figure
