"""One setting moved while the rest stands: runs that share what the setting does not touch, a table and a picture."""

import dataclasses
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import tabulate
from matplotlib.figure import Figure

from alkd_jax.io import lock_folder, write_json

from ..pipeline.settings import Settings
from ..reproduce import run_pipeline
from .console import console
from .results import cell

COLOURS = {
    "Teacher": "#3b6fb6",
    "Student": "#8a97a4",
    "Random": "#d58a2d",
    "ALKDRec": "#b1323f",
    "RAD-BC": "#4f8f5b",
}


def sweep(
    base: Settings, points: Mapping[str, Mapping[str, Any]], *, start: pathlib.Path | None = None
) -> dict[str, dict[str, Any]]:
    """Runs the pipeline at every point.

    Args:
        base: what all points share; its folder gets a run's folder a point.
        points: name → the settings that differ there.
        start: a run on the same data and backbone, whose models are taken over where the settings agree.

    Returns:
        Name → what `metrics.json` of that run holds.
    """
    numbers: dict[str, dict[str, Any]] = {}
    first = start
    for name, changes in points.items():
        out = base.out / name
        if first is not None and not out.exists():
            # What the change does not touch is taken over; the hops' records tell which that is.
            partial = base.out / f".{name}.partial"
            base.out.mkdir(parents=True, exist_ok=True)
            lock_folder(base.out)
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(first, partial)
            partial.rename(out)
        numbers[name] = run_pipeline(dataclasses.replace(base, out=out, **changes))
        first = first or out
    return numbers


def write(
    out: pathlib.Path,
    name: str,
    numbers: Mapping[str, Mapping[str, Any]],
    *,
    along: str,
    methods: Sequence[str],
    metrics: Sequence[str] = ("ndcg@10", "recall@10"),
    ordered: bool = True,
) -> None:
    """Writes NAME.json, NAME.md and NAME.svg.

    Args:
        out: folder.
        name: of the figure.
        numbers: as :func:`sweep` gives them.
        along: what the points are, for the axis.
        methods: curves.
        metrics: panels.
        ordered: whether the points are steps of one quantity; only then lines join them.
    """
    write_json(out / f"{name}.json", {point: dict(run) for point, run in numbers.items()})
    columns = [(method, metric) for method in methods for metric in metrics]
    rows = [
        [point, *(cell(run["methods"][method][metric]) for method, metric in columns)] for point, run in numbers.items()
    ]
    headings = [along, *(f"{method} {metric}" for method, metric in columns)]
    table = tabulate.tabulate(rows, headings, tablefmt="github", disable_numparse=True)
    (out / f"{name}.md").write_text(table + "\n", encoding="utf-8")
    figure = Figure(figsize=(4.5 * len(metrics), 3.4), layout="constrained")
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        for method in methods:
            spread = [run["methods"][method][metric] for run in numbers.values()]
            mean, std = [s["mean"] for s in spread], [s["std"] for s in spread]
            style = {"color": COLOURS[method], "linestyle": "-" if ordered else "none"}
            axes.errorbar(list(numbers), mean, yerr=std, label=method, marker="o", ms=4, capsize=2, **style)
        axes.set(xlabel=along, ylabel=f"test {metric}", ylim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False)
    figure.savefig(out / f"{name}.svg", metadata={"Date": None})
    console.print(f"{out}/{name}.svg, .md, .json", highlight=False, markup=False)
