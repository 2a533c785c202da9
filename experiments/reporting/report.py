"""The report of a run, one self-contained page: results, tests, learning curves, selected sessions, examples, times."""

import importlib.metadata
import io
import platform
from collections.abc import Mapping
from typing import Any

import markupsafe
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from alkd_jax.data.readers import registry
from alkd_jax.io import open_arrays, read_json, to_json, write_texts
from alkd_jax.paper_settings import backbone_settings_of

from ..pipeline.distill_methods import RECALL_AT
from ..pipeline.methods import CONTROLS, LLM, METHODS, NEITHER, PROFILED, TEACHER, trained_methods
from ..pipeline.stage_records import checked_output
from ..pipeline.stages import Run
from ..pipeline.training_free import TRAINING_FREE
from . import beyond_accuracy, comparisons, example_sessions, teacher_quality
from .pages import render_page
from .results import COLUMNS, format_cell, format_tied, tuning_lines

METHOD_COLORS = {
    "Teacher": "#3b6fb6",
    "Student": "#8a97a4",
    "Random": "#d58a2d",
    "ALKDRec": "#b1323f",
    "RAD-BC": "#4f8f5b",
}

PLOTTED_METHODS = ("Teacher", "Student", "Random", "ALKDRec")
"""Methods whose learning curves and selected sessions are plotted."""

METHOD_KINDS = {
    "no distillation": ("#3b6fb6", "s"),
    LLM: ("#b1323f", "o"),
    TEACHER: ("#d58a2d", "^"),
    PROFILED: ("#2f7d4f", "P"),
    NEITHER: ("#7a5195", "v"),
    "training-free": ("#1c2733", "D"),
}
"""What a method learns from → color and marker."""


def write_report(run: Run, results: Mapping[str, Any]) -> None:
    """Writes `report.html` and `teacher_quality.json` into the run's folder.

    Args:
        run: a finished run.
        results: as :func:`experiments.reporting.results.collect_results` returns them.
    """
    quality = teacher_quality.measure_quality(run)
    headings, differences = comparisons.difference_rows(results["tests"], list(results["methods"]))
    page = render_page(
        "report.html.jinja",
        title=f"ALKDRec on {results['dataset']}: {results['backbone']}; {results['lists']}",
        summary=(
            f"{len(run.dataset.train):,} training, {len(run.dataset.validation):,} validation and "
            f"{len(run.dataset.test):,} test sessions over {run.dataset.num_items:,} items; {results['seeds']} seeds; "
            f"{results['mode']} mode; {results['protocol']['name']}; {run.settings.resolved_selection} selection of "
            f"{run.settings.resolved_budget} sessions; {results['lists']}."
        ),
        warning=run.dataset.report.get("leak_warning", ""),
        columns=(*COLUMNS, "tied targets"),
        rows=[
            (name, [*(format_cell(values[c]) for c in COLUMNS), format_tied(values)])
            for name, values in results["methods"].items()
        ],
        protocol=results["protocol"]["name"],
        groups=[(group, f"{part['queries']:,}") for group, part in results["groups"].items()],
        group_rows=[
            (name, [f"{part['recall@10'][name]:.4f}" for part in results["groups"].values()])
            for name in results["methods"]
        ],
        beyond_headings=beyond_accuracy.HEADINGS,
        beyond_rows=beyond_accuracy.beyond_accuracy_rows(results["methods"]),
        beyond_note=beyond_accuracy.NOTE,
        controls=set(CONTROLS),
        training_free=set(TRAINING_FREE),
        tuned=tuning_lines(results),
        overview=markupsafe.Markup(plot_methods(results["methods"], lists=results["lists"])),
        headings=headings,
        differences=differences,
        difference_legend=comparisons.legend(results["tests"]),
        tests=comparisons.full_rows(results["tests"]),
        curves=markupsafe.Markup(plot_curves(run)),
        selection_plot=markupsafe.Markup(plot_selected_sessions(run)),
        selection_caption=selection_caption(run),
        teacher_rows=teacher_quality.quality_rows(quality),
        examples=example_sessions.example_sessions(run),
        stages=[(name, record["seconds"]) for name, record in run.folder.finished_stages.items()],
        versions=versions(),
    )
    folder = run.folder.path
    write_texts({folder / "report.html": page, folder / "teacher_quality.json": to_json(quality)})


def plot_methods(methods: Mapping[str, Mapping[str, Any]], *, lists: str, metric: str = "recall@10") -> str:
    """Plots a metric of every method: a light marker for each seed, a dark one for their mean.

    Args:
        methods: method → metric → its numbers.
        lists: whose lists the methods that learn from lists have.
        metric: the metric.

    Returns:
        SVG.
    """
    names = sorted(methods, key=lambda name: methods[name][metric]["mean"])
    figure = Figure(figsize=(9, 1.1 + 0.23 * len(names)), layout="constrained")
    axes = figure.subplots()
    for y, name in enumerate(names):
        kind = kind_of(name)
        color, marker = METHOD_KINDS[kind]
        values = methods[name][metric]["values"]
        axes.plot(values, [y] * len(values), marker, color=color, ms=5, alpha=0.25, mew=0)
        axes.plot(methods[name][metric]["mean"], y, marker, color=color, ms=7, label=kind)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel=f"test {metric}", xlim=(0, None))
    axes.grid(axis="y", color="#e6ebef")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    kinds = [kind for kind in METHOD_KINDS if kind in handles]
    labels = [lists if kind == LLM else kind for kind in kinds]
    axes.legend([handles[kind] for kind in kinds], labels, frameon=False, loc="lower right", title="learned from")
    return figure_to_svg(figure)


def kind_of(method: str) -> str:
    """Returns what a method learns from, a key of :data:`METHOD_KINDS`."""
    if method in TRAINING_FREE:
        return "training-free"
    return "no distillation" if method in ("Student", "Teacher") else METHODS.find(method).learns_from


def plot_curves(run: Run) -> str:
    """Plots validation recall over steps, one line for each seed. Returns SVG."""
    trained = trained_methods(run.settings.method_names)
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    panels = figure.subplots(1, 2)
    for name in PLOTTED_METHODS:
        if name not in trained:
            continue
        axes = panels[int(trained[name].startswith("distilled"))]
        with open_arrays(checked_output(run.folder.path, f"{trained[name]}.history.npz")) as history:
            for seed, curve in enumerate(history["recall"]):
                label = name if seed == 0 else None
                axes.plot(history["step"], curve, color=METHOD_COLORS[name], lw=1, alpha=0.8, label=label)
            axes.plot(history["best_step"], history["best_metric"], "o", color=METHOD_COLORS[name], ms=4)
    recall_at = run.recall_at(backbone_settings_of(run.settings.backbone).distillation_recall_at)
    titles = f"teacher and student (recall@{run.recall_at(RECALL_AT)})", f"distillation (recall@{recall_at})"
    for axes, title in zip(panels, titles, strict=True):
        axes.set(title=title, xlabel="step", ylabel="validation recall")
        if axes.lines:
            axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    return figure_to_svg(figure)


def plot_selected_sessions(run: Run) -> str:
    """Plots the difficulty of the selected sessions and the number expected under the policy. Returns SVG."""
    rank, log_policy = run.load_array("difficulty.npz", "rank"), run.load_array("policy.npz", "log_policy")
    relative_rank = rank / len(rank)
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    axes = figure.subplots()
    bins = np.linspace(0, 1, 51).tolist()
    selections = read_json(checked_output(run.folder.path, "selection.json"))
    for method in sorted(set(PLOTTED_METHODS) & selections.keys(), reverse=True):
        ranks = relative_rank[run.dataset.train.rows_of(np.asarray(selections[method], np.int32))]
        axes.hist(ranks, bins, alpha=0.6, color=METHOD_COLORS[method], label=f"{method}: {len(ranks)} selected")
    expected = np.histogram(relative_rank, bins, weights=np.exp(log_policy))[0] * run.settings.resolved_budget
    axes.stairs(expected, bins, color="black", lw=1, label="policy × budget")
    axes.set(xlabel="difficulty rank (0 hardest, 1 easiest)", ylabel="sessions", xlim=(0, 1))
    axes.legend(frameon=False, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure_to_svg(figure)


def selection_caption(run: Run) -> str:
    """Returns the caption of the plot of the selected sessions."""
    support = int(run.load_array("policy.npz", "support_size"))
    share = support / len(run.dataset.train)
    kind = "closed-form" if run.released else "exact max-min"
    report = read_json(checked_output(run.folder.path, "rankings.report.json"))
    caption = (
        f"The {kind} policy has its support on the {support:,} hardest of {len(run.dataset.train):,} sessions "
        f"({share:.1%}) and gives the easiest of these the highest probability. "
        f"{report['asked']:,} sessions were ranked"
    )
    if run.settings.resolved_selection == "released":
        return f"{caption}; the sessions are the authors' selection, the difficulty is this run's."
    recorded = registry.parse_source(run.settings.data).kind == "released"
    return f"{caption}, sampled from those with a recorded list." if recorded else f"{caption}."


def figure_to_svg(figure: Figure) -> str:
    """Returns the figure as an SVG element without external references."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "alkd_jax", "font.family": "DejaVu Sans"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def versions() -> str:
    """Returns the versions of the packages and of Python in one line."""
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("alkd_jax", "jax", "flax", "optax"))
    return f"{packages}; Python {platform.python_version()}."
