"""The figures of a run's report, each in the page and as files of the run's folder."""

import io
import pathlib
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from alkd_jax.data.readers import registry
from alkd_jax.io import open_arrays, read_json, replacing_all
from alkd_jax.paper_settings import backbone_settings_of

from ..pipeline.distill_methods import RECALL_AT
from ..pipeline.methods import LLM, METHODS, NEITHER, PROFILED, TEACHER, trained_methods
from ..pipeline.stage_records import checked_output
from ..pipeline.stages import Run
from ..pipeline.training_free import TRAINING_FREE
from .shown_names import shown_name

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

FOLDER = "figures"
_WIDTH = 5.0
"""Inches: of a figure that can be read on a phone, too."""


def plot_methods(methods: Mapping[str, Mapping[str, Any]], *, lists: str, metric: str = "recall@10") -> Figure:
    """Plots a metric of every method: a light marker for each seed, a dark one for their mean.

    Args:
        methods: method → metric → its numbers.
        lists: whose lists the methods that learn from lists have.
        metric: the metric.
    """
    names = sorted(methods, key=lambda name: methods[name][metric]["mean"])
    figure = Figure(figsize=(_WIDTH, 1.8 + 0.24 * len(names)), layout="constrained")
    axes = figure.subplots()
    for y, name in enumerate(names):
        kind = kind_of(name)
        color, marker = METHOD_KINDS[kind]
        values = methods[name][metric]["values"]
        axes.plot(values, [y] * len(values), marker, color=color, ms=5, alpha=0.25, mew=0)
        axes.plot(methods[name][metric]["mean"], y, marker, color=color, ms=7, label=kind)
    axes.set_yticks(range(len(names)), [shown_name(name) for name in names])
    axes.set(xlabel=f"test {metric}", xlim=(0, None))
    axes.grid(axis="y", color="#e6ebef")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    kinds = [kind for kind in METHOD_KINDS if kind in handles]
    controls = "control, or DSL" if "DSL" in methods else "control"
    labels = [{LLM: lists, NEITHER: controls}.get(kind, kind) for kind in kinds]
    marks = [handles[kind] for kind in kinds]
    figure.legend(
        marks, labels, title="learned from", loc="outside upper center", ncols=2, fontsize="small", frameon=False
    )
    return figure


def kind_of(method: str) -> str:
    """Returns what a method learns from, a key of :data:`METHOD_KINDS`."""
    if method in TRAINING_FREE:
        return "training-free"
    return "no distillation" if method in ("Student", "Teacher") else METHODS.find(method).learns_from


def plot_curves(run: Run) -> Figure:
    """Plots validation recall over steps, one line for each seed."""
    trained = trained_methods(run.settings.method_names)
    figure = Figure(figsize=(_WIDTH, 5.4), layout="constrained")
    panels = figure.subplots(2, 1)
    for name in PLOTTED_METHODS:
        if name not in trained:
            continue
        axes = panels[int(trained[name].startswith("distilled"))]
        with open_arrays(checked_output(run.folder.path, f"{trained[name]}.history.npz")) as history:
            for seed, curve in enumerate(history["recall"]):
                label = shown_name(name) if seed == 0 else None
                axes.plot(history["step"], curve, color=METHOD_COLORS[name], lw=1, alpha=0.8, label=label)
            axes.plot(history["best_step"], history["best_metric"], "o", color=METHOD_COLORS[name], ms=4)
    recall_at = run.recall_at(backbone_settings_of(run.settings.backbone).distillation_recall_at)
    titles = (
        f"recommender teacher and student (recall@{run.recall_at(RECALL_AT)})",
        f"distillation (recall@{recall_at})",
    )
    for axes, title in zip(panels, titles, strict=True):
        axes.set(title=title, xlabel="step", ylabel="validation recall")
        if axes.lines:
            axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_selected_sessions(run: Run) -> Figure:
    """Plots the difficulty of the selected sessions and the number expected under the policy."""
    rank, log_policy = run.load_array("difficulty.npz", "rank"), run.load_array("policy.npz", "log_policy")
    relative_rank = rank / len(rank)
    figure = Figure(figsize=(_WIDTH, 3.2), layout="constrained")
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
    return figure


def selection_caption(run: Run, counts: str) -> str:
    """Returns the caption of the plot of the selected sessions.

    Args:
        run: the run.
        counts: a sentence of how many sessions were selected and asked about.
    """
    support = int(run.load_array("policy.npz", "support_size"))
    share = support / len(run.dataset.train)
    kind = "closed-form" if "policy" in run.settings.rules else "exact max-min"
    caption = (
        f"The {kind} policy has its support on the {support:,} hardest of {len(run.dataset.train):,} sessions "
        f"({share:.1%}) and gives the easiest of these the highest probability. {counts}"
    )
    if run.settings.resolved_selection == "released":
        return f"{caption} The sessions are the authors' selection, the difficulty is this run's."
    recorded = registry.parse_source(run.settings.data).kind == "released"
    return f"{caption} They are sampled from those with a recorded list." if recorded else caption


def save_figures(folder: pathlib.Path, figures: Mapping[str, Figure]) -> dict[str, str]:
    """Writes every figure as SVG and as PNG into a folder of the run's, and returns it as an SVG element.

    Args:
        folder: of the run.
        figures: name → figure.
    """
    (folder / FOLDER).mkdir(exist_ok=True)
    svg = {name: figure_to_svg(figure) for name, figure in figures.items()}
    paths = [folder / FOLDER / f"{name}.{form}" for name in figures for form in ("svg", "png")]
    with replacing_all(paths) as partials:
        for path, partial in zip(paths, partials, strict=True):
            if path.suffix == ".svg":
                partial.write_text(svg[path.stem], encoding="utf-8")
            else:
                figures[path.stem].savefig(partial, format="png", dpi=200, metadata={"Software": None})
    return svg


def figure_to_svg(figure: Figure) -> str:
    """Returns the figure as an SVG element without external references."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "alkd_jax", "font.family": "DejaVu Sans"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
