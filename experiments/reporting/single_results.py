"""The results of a run of `experiments.train`, from its stored evaluation: `metrics.json` and the printed table."""

import hashlib
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from rich.table import Table

from alkd_jax.errors import printable
from alkd_jax.io import finite_or_none, open_arrays, read_json, write_json
from alkd_jax.models import init_params

from ..pipeline.protocols import stored_protocol
from ..pipeline.single_run import SingleRun
from ..pipeline.stage_records import checked_output
from .results import TIED_COUNT, format_cell, mean_and_std

COLUMNS = ("recall@5", "ndcg@5", "recall@10", "ndcg@10", "recall@20", "ndcg@20", "mrr")


def collect(run: SingleRun) -> dict[str, Any]:
    """Collects what a run found.

    Returns:
        ``{"dataset", "backbone", "mode", "seeds", "protocol", "refit", "counts", "training", "reference", "note",
        "methods": {NAME: {METRIC: {"mean", "std", "values"}, …, "tied"}}, "validation": {METRIC: …}, "epochs",
        "examples_per_second", "tests"}``; "counts" are those of the data and of the backbone's parameters, "epochs"
        those after which each seed had its best validation, "training" all options, and the speed is None where
        training was too short to measure it.
    """
    found = read_json(checked_output(run.folder.path, "evaluation.json"))
    args, published = run.args, run.args.published

    def over_seeds(per_seed: list[dict[str, float]]) -> dict[str, Any]:
        return {name: mean_and_std([each[name] for each in per_seed]) for name in per_seed[0]}

    epochs = run.history("fitted", "best_step") / run.training.steps_per_epoch
    return {
        "dataset": run.dataset.name,
        "backbone": args.backbone,
        "mode": "clean",
        "seeds": args.seeds,
        "protocol": stored_protocol(args.protocol),
        "refit": args.refit,
        "counts": counts(run),
        "training": run.options,
        "reference": published.reference,
        "note": published.note,
        "methods": {args.backbone: over_seeds(found["test"]) | {TIED_COUNT: mean_and_std(found["tied"])}},
        "validation": over_seeds(found["validation"]),
        "epochs": [round(float(epoch), 2) for epoch in epochs],
        "examples_per_second": finite_or_none(float(run.history("fitted", "sessions_per_second"))),
        "tests": [],
    }


def counts(run: SingleRun) -> dict[str, int]:
    """Returns the numbers of items, of the sessions of each part, of ranked test targets, and of parameters."""
    dataset = run.dataset
    sizes = {"train": len(dataset.train_sequences), "validation": len(dataset.validation), "test": len(dataset.test)}
    shapes = jax.eval_shape(lambda: init_params(jax.random.key(0), run.model))
    num_parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    with open_arrays(checked_output(run.folder.path, "ranks.npz")) as archive:
        num_targets = archive[run.args.backbone].shape[1]
    return {"items": dataset.num_items, **sizes, "targets": num_targets, "parameters": num_parameters}


def store(run: SingleRun, results: Mapping[str, Any]) -> None:
    """Writes `metrics.json`, by a stage that runs again for other results."""
    content = hashlib.sha256(json.dumps(results, sort_keys=True).encode()).hexdigest()

    def write_outputs(folder: pathlib.Path) -> None:
        write_json(folder / "metrics.json", results)

    run.folder.run_stage("metrics", {"content": content}, ["metrics.json"], write_outputs, after=["ranks"])


def table(results: Mapping[str, Any]) -> Table:
    """Returns test and validation metrics as a table for the terminal."""
    refit = ", trained again with validation" if results["refit"] else ""
    title = f"{printable(results['dataset'])}, {printable(results['backbone'])}, {results['seeds']} seeds{refit}"
    found = Table("sessions", *COLUMNS, title=title, caption=results["protocol"]["name"])
    rows = {"test": results["methods"][results["backbone"]], "validation": results["validation"]}
    for name, columns in rows.items():
        found.add_row(name, *(format_cell(columns[c]) if c in columns else "" for c in COLUMNS))
    return found
