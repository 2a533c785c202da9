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

from experiments import cases, comparisons, teaching
from experiments.methods import trained_methods
from experiments.pipeline import Run
from experiments.results import COLUMNS, cell
from experiments.run_folder import read_json, write_json
from experiments.sources import parse_source

COLOURS = {"Teacher": "#3b6fb6", "Student": "#8a97a4", "Random": "#d58a2d", "ALKDRec": "#b1323f"}


def write_report(run: Run, results: Mapping[str, Any]) -> None:
    """Writes `report.html` into the run's folder."""
    environment = jinja2.Environment(loader=jinja2.PackageLoader("experiments"), autoescape=True)
    kept = run.folder.hops
    account = teaching.teacher_account(run)
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
        headings=headings,
        differences=differences,
        difference_note=comparisons.note(results["tests"]),
        tests=comparisons.in_full(results["tests"]),
        curves=markupsafe.Markup(draw_curves(run)),
        band=markupsafe.Markup(draw_band(run)),
        band_note=band_note(run),
        account=teaching.account_rows(account),
        cases=cases.cases(run),
        hops=[(name, record["seconds"]) for name, record in kept.items()],
        versions=versions(),
    )
    partial = run.folder.path / ".report.html.partial"
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, run.folder.path / "report.html")


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
    for axes, title in zip(panels, ("teacher and student (recall@25)", "distillation"), strict=True):
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
