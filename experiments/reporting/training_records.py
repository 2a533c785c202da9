"""The stored results of runs of `experiments.train`, and their tables beside the published numbers."""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tabulate

from alkd_jax.data.readers import registry
from alkd_jax.errors import markdown
from alkd_jax.io import read_json

from ..pipeline import stored_runs
from ..pipeline.published_numbers import TrainedRun
from ..pipeline.stage_records import checked_output, read_records
from ..pipeline.verify_entries import ENTRIES
from .results import format_cell, mean_and_std
from .run_facts import versions
from .tables import backbone_title

NOTE = (
    "Each model was trained alone by `experiments.train` with the options shown. A cell is the mean ± standard "
    "deviation over seeds; the difference is that of the mean from the published number. A model that is refit was "
    "trained again on training and validation items, for as many steps as validation had chosen; published numbers are "
    "compared without it. Minutes are those of one seed on two shared processor cores, with compilation and evaluation."
)
COUNTED = ("Sequential rules", "SR", "V-SKNN")
"""Methods of the stored line-ups that stand beside the models."""
_SHOWN = ("dim", "loss", "targets", "num_negatives", "batch_size", "learning_rate")


def condensed(run: pathlib.Path) -> dict[str, Any]:
    """Reads the results of a run, rounded to six digits; of the source only the names of its files are kept.

    Raises:
        ValueError: the run is not finished.
    """
    if not (run / "metrics.json").exists():
        raise ValueError(f"{run} has no metrics.json; expected the folder of a finished run")
    results = read_json(checked_output(run, "metrics.json"))

    def values(columns: Mapping[str, Any]) -> dict[str, list[float]]:
        return {metric: [round(value, 6) for value in column["values"]] for metric, column in columns.items()}

    source = registry.parse_source(results["training"]["source"])
    names = [pathlib.PurePath(argument).name for argument in source.arguments]
    found = {name: results[name] for name in ("dataset", "backbone", "seeds", "protocol", "refit", "counts")}
    return found | {
        "training": results["training"] | {"source": ":".join((source.text.partition(":")[0], *names))},
        "reference": results["reference"],
        "note": results["note"],
        "test": values(results["methods"][results["backbone"]]),
        "validation": values(results["validation"]),
        "epochs": results["epochs"],
        "examples_per_second": results["examples_per_second"] and round(results["examples_per_second"], 1),
        "seconds": {name: round(stage["seconds"], 1) for name, stage in read_records(run).items()},
        "versions": versions(),
    }


def published(dataset: str, run: Mapping[str, Any]) -> Mapping[str, float]:
    """Returns the published metrics of a stored run's backbone on its data; none for a run that is refit."""
    for entry in ENTRIES.values():
        for row in entry.metrics:
            is_same = pathlib.PurePath(entry.files[0]).stem == dataset and not run["refit"]
            if is_same and isinstance(row.compute, TrainedRun) and row.compute.method == run["backbone"]:
                return row.values
    return {}


def tables(stored: Sequence[Mapping[str, Any]], lineups: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Yields the name of each dataset, and the Markdown table of its stored runs.

    Args:
        stored: the stored runs.
        lineups: folder of the stored line-ups of counting methods.
    """
    runs = stored_runs.merged(stored)
    for dataset in dict.fromkeys(run["dataset"] for run in runs):
        own = [run for run in runs if run["dataset"] == dataset]
        metrics = ("recall@20", "mrr@20") if own[0]["protocol"]["targets"] == "all" else ("recall@10", "ndcg@10")
        rows = [_row(run, metrics) for run in own] + list(_counted_rows(own[0], metrics, lineups))
        headings = ["model", "training", "seeds", "best epoch"]
        for metric in metrics:
            headings += [metric, "published", "difference"]
        headings += [f"validation {metrics[0]}", "minutes"]
        align = ["left", "left"] + ["right"] * (len(headings) - 2)
        yield dataset, tabulate.tabulate(rows, headings, tablefmt="pipe", disable_numparse=True, colalign=align)


def _row(run: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
    numbers, cells = published(run["dataset"], run), []
    for metric in metrics:
        here, known = mean_and_std(run["test"][metric]), numbers.get(metric)
        cells += [format_cell(here)]
        cells += ["", ""] if known is None else [f"{known:.4f}", f"{100 * (here['mean'] / known - 1):+.1f} %"]
    validation = run["validation"].get(metrics[0])
    epochs = [f"{epoch:g}" for epoch in run["epochs"]]
    return [
        markdown(backbone_title(run["backbone"])),
        markdown(_training(run)),
        str(run["seeds"]),
        ", ".join(epochs),
        *cells,
        "" if validation is None else format_cell(mean_and_std(validation)),
        f"{run['minutes']:.0f}",
    ]


def _training(run: Mapping[str, Any]) -> str:
    """Returns how a model was trained, in words."""
    training = run["training"]
    width, loss, targets, negatives, batch, rate = (training[name] for name in _SHOWN)
    sampled = "" if loss == "softmax" or loss.startswith("in_batch") else f" with {negatives} negatives"
    loss = f"corrected {loss}" if training.get("corrected") else loss
    options = {**training["options"], **training.get("loss_options", {})}
    words = [f"width {width}", f"{loss.replace('_', ' ')}{sampled} of {targets}", f"batch {batch}, rate {rate:g}"]
    words += [f"{name.replace('_', ' ')} {value}" for name, value in options.items()]
    return "; ".join([*words, "refit" if run["refit"] else "not refit"])


def _counted_rows(run: Mapping[str, Any], metrics: Sequence[str], lineups: pathlib.Path) -> Iterator[list[str]]:
    """Yields rows of counting methods on the same data by the same protocol."""
    for lineup in map(read_json, sorted(lineups.glob("*.json"))):
        rules = [[each["protocol"][name] for name in ("seen", "targets")] for each in (lineup, run)]
        # The name of a dataset depends on the file that it was read from.
        sizes = [lineup[name] == run["counts"][name] for name in ("items", "targets")]
        if all(sizes) and rules[0] == rules[1]:
            for name in (name for name in COUNTED if name in lineup["methods"]):
                values = [[f"{lineup['methods'][name][metric]:.4f}", "", ""] for metric in metrics]
                yield [name, "counts, options chosen on validation", "", "", *values[0], *values[1], "", ""]


def page_parts(folder: pathlib.Path, lineups: pathlib.Path) -> list[str]:
    """Returns the parts of a Markdown page that show the stored runs; none where there are none."""
    stored = stored_runs.read(folder)
    if not stored:
        return []
    parts = ["# Backbones trained alone", NOTE]
    for dataset, table in tables(stored, lineups):
        run = next(run for run in stored if run["dataset"] == dataset)
        counts = ", ".join(f"{name} {number:,}" for name, number in run["counts"].items() if name != "parameters")
        parts += [f"## {markdown(dataset)}", table, f"Protocol: {run['protocol']['name']}; {counts}."]
    return parts
