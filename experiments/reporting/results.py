"""The numbers of a run, from its stored ranks: `metrics.json` and the printed tables."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table

from alkd_jax.evaluation import metrics
from alkd_jax.io import read_json, write_json

from ..pipeline.stages import Run
from . import comparisons

COLUMNS = ("recall@5", "ndcg@5", "recall@10", "ndcg@10", "mrr")


def collect(run: Run) -> dict[str, Any]:
    """Computes every method's metrics.

    Returns:
        ``{"dataset", "backbone", "mode", "seeds", "budget", "selection", "methods": {NAME: {METRIC: {"mean", "std",
        "values"}}}, "tuned": {NAME: {"chosen", "recall@10", "recall@10, defaults", "trials", "seeds"}}, "tests"}``;
        ``std`` is over seeds (n − 1), 0 for the training-free methods, which have none; "tuned" holds validation
        recall; "tests" as :func:`experiments.reporting.comparisons.compare_all` gives them.
    """
    with np.load(run.folder.path / "ranks.npz") as archive:
        ranks = dict(archive)
    released = read_json(run.folder.path / "released_ndcg.json")
    methods: dict[str, dict[str, Any]] = {}
    for name, per_seed in ranks.items():
        more = {metric: spread(column) for metric, column in released.get(name, {}).items()}
        methods[name] = averaged(per_seed) | more
    settings = run.settings
    about = {"dataset": run.dataset.name, "backbone": settings.backbone, "mode": settings.mode, "seeds": settings.seeds}
    about |= {"budget": settings.num_asked, "selection": settings.selection}
    return about | {"methods": methods, "tuned": tuned(run), "tests": tested(run, ranks)}


def tuned(run: Run) -> dict[str, Any]:
    """The searches for the options of the run's methods, each in a line's worth of numbers."""
    told = {}
    for method, search in run.searches().items():
        if method in run.settings.asked_methods:
            reached = [trial["recall@10"] for trial in search["trials"]]
            told[method] = {
                "chosen": search["chosen"],
                "recall@10": max(reached),
                "recall@10, defaults": reached[0],
                "trials": len(reached),
                "seeds": search["seeds"],
            }
    return told


def search_lines(results: Mapping[str, Any]) -> list[str]:
    """A line for every search: what was chosen, and what it was worth on validation."""
    lines = []
    for method, search in results.get("tuned", {}).items():
        chosen = ", ".join(f"{name} {value}" for name, value in search["chosen"].items())
        reached = f"{search['recall@10']:.4f}, with the defaults {search['recall@10, defaults']:.4f}"
        size = f"{search['trials']} trials, seeds: {search['seeds']}"
        lines.append(f"{method}: {chosen}; validation recall@10 {reached} ({size})")
    return lines


def tested(run: Run, ranks: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """The tests of significance, made once for given ranks and kept in the run as `tests.json`."""

    def work(folder: pathlib.Path) -> None:
        write_json(folder / "tests.json", comparisons.compare_all(ranks, seed=run.settings.seed))

    inputs = {"metrics": comparisons.METRICS, "sign_patterns": comparisons.SIGN_PATTERNS}
    run.folder.stage("tests", inputs, ["tests.json"], work, after=["ranks"])
    return read_json(run.folder.path / "tests.json")


def averaged(ranks: np.ndarray) -> dict[str, dict[str, Any]]:
    """Every metric of ranks ``[S, N]``, its mean and spread over seeds."""
    values = [metrics.from_ranks(one) for one in ranks]
    return {metric: spread([row[metric] for row in values]) for metric in values[0]}


def spread(values: list[float]) -> dict[str, Any]:
    """Mean and standard deviation over seeds, and the values themselves."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(np.mean(values)), "std": std, "values": values}


def cell(numbers: Mapping[str, Any]) -> str:
    """Mean ± standard deviation; the mean alone where there was one value."""
    mean = f"{numbers['mean']:.4f}"
    return f"{mean} ± {numbers['std']:.4f}" if len(numbers["values"]) > 1 else mean


def as_table(results: Mapping[str, Any]) -> Group:
    """The results, and the differences between methods, as tables for the terminal."""
    released = [f"ndcg_released@{k}" for k in (5, 10)] if results["mode"] == "released" else []
    title = f"{results['dataset']}, {results['backbone']}, {results['mode']} protocol, {results['seeds']} seeds"
    table = Table("method", *COLUMNS, *released, title=title)
    for name, columns in results["methods"].items():
        table.add_row(name, *(cell(columns[c]) if c in columns else "" for c in (*COLUMNS, *released)))
    return Group(table, comparisons.as_table(results["tests"], list(results["methods"])))
