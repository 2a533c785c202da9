"""A run as one self-contained page: results, learning curves, the band of sessions asked about, cases, times."""

import importlib.metadata
import io
import os
import platform
from collections.abc import Mapping
from typing import Any

import jinja2
import markupsafe
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from alkd_jax.distillation.alkdrec import RECALL_AT
from alkd_jax.io import read_json, write_json

from ..pipeline.methods import BASELINES, CONTROLS, SELECTIONS, TUNED, trained_methods
from ..pipeline.sources import parse_source
from ..pipeline.stages import NEIGHBORS, Run
from . import comparisons, example_sessions, teacher_quality
from .results import COLUMNS, cell, search_lines

COLOURS = {"Teacher": "#3b6fb6", "Student": "#8a97a4", "Random": "#d58a2d", "ALKDRec": "#b1323f"}

KINDS = {
    "no distillation": ("#3b6fb6", "s", ("Student", "Teacher")),
    "an LLM's lists": ("#b1323f", "o", (*SELECTIONS, TUNED, "DLLM2Rec")),
    "the teacher": ("#d58a2d", "^", ("TR", *(name for name in BASELINES if name not in ("DLLM2Rec", "DSL")))),
    "something else in the lists' place": ("#7a5195", "v", (*CONTROLS, "DSL")),
}
"""What a student learned from → colour, marker, methods; all others are training-free."""


def write_report(run: Run, results: Mapping[str, Any]) -> None:
    """Writes `report.html` into the run's folder."""
    environment = jinja2.Environment(loader=jinja2.PackageLoader(__package__), autoescape=True)
    kept = run.folder.stages
    account = teacher_quality.teacher_account(run)
    headings, differences = comparisons.as_rows(results["tests"], list(results["methods"]))
    write_json(run.folder.path / "teaching.json", account)
    page = environment.get_template("report.html.jinja").render(
        title=f"ALKDRec on {results['dataset']}: {results['backbone']}",
        about=(
            f"{len(run.dataset.train):,} training, {len(run.dataset.validation):,} validation and "
            f"{len(run.dataset.test):,} test sessions over {run.dataset.num_items:,} items; {results['seeds']} seeds; "
            f"{results['mode']} protocol; {run.settings.selection} selection of {run.settings.num_asked} sessions."
        ),
        columns=COLUMNS,
        rows=[(name, [cell(values[c]) for c in COLUMNS]) for name, values in results["methods"].items()],
        controls=set(CONTROLS),
        free=set(NEIGHBORS),
        tuned=search_lines(results),
        overview=markupsafe.Markup(draw_methods(results["methods"])),
        headings=headings,
        differences=differences,
        difference_note=comparisons.note(results["tests"]),
        tests=comparisons.in_full(results["tests"]),
        curves=markupsafe.Markup(draw_curves(run)),
        band=markupsafe.Markup(draw_band(run)),
        band_note=band_note(run),
        account=teacher_quality.account_rows(account),
        cases=example_sessions.cases(run),
        hops=[(name, record["seconds"]) for name, record in kept.items()],
        versions=versions(),
    )
    partial = run.folder.path / ".report.html.partial"
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, run.folder.path / "report.html")


def draw_methods(methods: Mapping[str, Mapping[str, Any]], *, metric: str = "recall@10") -> str:
    """Every method's metric, a faint mark a seed and a strong one their mean, as SVG."""
    names = sorted(methods, key=lambda name: methods[name][metric]["mean"])
    kind_of = {name: kind for kind, (*_, members) in KINDS.items() for name in members}
    figure = Figure(figsize=(9, 1.1 + 0.23 * len(names)), layout="constrained")
    axes = figure.subplots()
    for place, name in enumerate(names):
        kind = kind_of.get(name, "training-free")
        colour, marker = KINDS[kind][:2] if kind in KINDS else ("#1c2733", "D")
        values = methods[name][metric]["values"]
        axes.plot(values, [place] * len(values), marker, color=colour, ms=5, alpha=0.25, mew=0)
        axes.plot(methods[name][metric]["mean"], place, marker, color=colour, ms=7, label=kind)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel=f"test {metric}", xlim=(0, None))
    axes.grid(axis="y", color="#e6ebef")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    once = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    kinds = [kind for kind in (*KINDS, "training-free") if kind in once]
    axes.legend([once[kind] for kind in kinds], kinds, frameon=False, loc="lower right", title="learned from")
    return svg(figure)


def draw_curves(run: Run) -> str:
    """Validation recall over steps for every training run, as SVG."""
    everything = trained_methods(run.settings.asked_methods)
    names = {name: everything[name] for name in COLOURS if name in everything}
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    panels = figure.subplots(1, 2)
    for name, place in names.items():
        axes = panels[int(place.startswith("distilled"))]
        with np.load(run.folder.path / f"{place}.history.npz") as history:
            for seed, curve in enumerate(history["recall"]):
                label = name if seed == 0 else None
                axes.plot(history["step"], curve, color=COLOURS[name], lw=1, alpha=0.8, label=label)
            axes.plot(history["best_step"], history["best_metric"], "o", color=COLOURS[name], ms=4)
    distilled_at = RECALL_AT[run.settings.backbone]
    titles = "teacher and student (recall@25)", f"distillation (recall@{distilled_at})"
    for axes, title in zip(panels, titles, strict=True):
        axes.set(title=title, xlabel="step", ylabel="validation recall")
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    return svg(figure)


def draw_band(run: Run) -> str:
    """Where the chosen sessions lie between the hardest and the easiest, and what the policy wanted, as SVG."""
    rank, log_policy = run.array("difficulty.npz", "rank"), run.array("policy.npz", "log_policy")
    place = dict(zip(np.asarray(run.dataset.train.session_id).tolist(), rank / len(rank), strict=True))
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    axes = figure.subplots()
    bins = np.linspace(0, 1, 51).tolist()
    chosen = read_json(run.folder.path / "selection.json")
    for method in sorted(COLOURS.keys() & chosen.keys(), reverse=True):
        ids = chosen[method]
        axes.hist([place[i] for i in ids], bins, alpha=0.6, color=COLOURS[method], label=f"{method}: {len(ids)} chosen")
    wanted = np.histogram(rank / len(rank), bins, weights=np.exp(log_policy))[0] * run.settings.num_asked
    axes.stairs(wanted, bins, color="black", lw=1, label="policy × budget")
    axes.set(xlabel="difficulty rank (0 hardest, 1 easiest)", ylabel="sessions", xlim=(0, 1))
    axes.legend(frameon=False, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    return svg(figure)


def band_note(run: Run) -> str:
    """What the figure of the chosen sessions shows, in words."""
    support = int(run.array("policy.npz", "support_size"))
    share = support / len(run.dataset.train)
    kind = "closed-form" if run.released else "exact max-min"
    report = read_json(run.folder.path / "rankings.report.json")
    note = (
        f"The {kind} policy puts its mass on the {support:,} hardest of {len(run.dataset.train):,} sessions "
        f"({share:.1%}) and prefers the easy end of those. {report['asked']:,} sessions were ranked"
    )
    if run.settings.selection == "released":
        return f"{note}; the sessions are the authors' own choice, the difficulty is this run's."
    recorded = parse_source(run.settings.data).kind == "released"
    return f"{note}, drawn among those with a recorded list." if recorded else f"{note}."


def svg(figure: Figure) -> str:
    """The figure as an SVG element that stands alone."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "alkd_jax", "font.family": "DejaVu Sans"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def versions() -> str:
    """What ran it."""
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("alkd_jax", "jax", "flax", "optax"))
    return f"{packages}; Python {platform.python_version()}."
