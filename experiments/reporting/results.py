"""The results of a run, computed from its stored ranks: `metrics.json` and the printed tables."""

import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table

from alkd_jax.checks import check_ranks
from alkd_jax.errors import printable
from alkd_jax.evaluation import beyond_accuracy, groups, metrics
from alkd_jax.io import check_finite_values, open_arrays, read_json, write_json

from ..pipeline import teachers
from ..pipeline.list_metrics import item_counts
from ..pipeline.protocols import clusters, load_queries, stored_protocol
from ..pipeline.rules import mode_of, rules_of
from ..pipeline.stage_records import checked_output
from ..pipeline.stages import Run
from . import comparisons
from .shown_names import shown_name

DEBIASED = "stratified_recall@10"
"""Recall in which hits of rare targets weigh more, see `alkd_jax.evaluation.beyond_accuracy.stratified_recall`."""

TIED_COUNT = "tied"
"""Stands beside the metrics of a method, and is none: the number of targets that share their score with other items."""

COLUMNS = ("recall@5", "ndcg@5", "recall@10", "ndcg@10", "mrr")


def collect_results(run: Run) -> dict[str, Any]:
    """Computes the metrics of every method and the tests between them.

    Returns:
        ``{"dataset", "backbone", "mode", "seeds", "budget", "selection", "protocol", "teacher", "lists", "methods":
        {NAME: {METRIC: {"mean", "std", "values"}, …, "tied"}}, "tuned": {NAME: {"chosen", "recall@10", "recall@10,
        defaults", "trials", "seeds"} or {"chosen", "from"}}, "groups", "tests"}``; ``std`` is over seeds (n − 1), and 0
        for the training-free methods, which have no seeds; "protocol" has its fields and its name, and "lists" says
        whose lists the teacher's are; "groups" is that of :func:`group_recalls`; "tied" counts the targets that share
        their score with another item; "tuned" holds validation recall; "tests" is what
        :func:`experiments.reporting.comparisons.compare_all` returns.
    """
    path = checked_output(run.folder.path, "ranks.npz")
    with open_arrays(path) as archive:
        ranks = dict(archive)
    for name, per_seed in ranks.items():
        check_ranks(f"{path}: ranks of {name}", per_seed)
    released_ndcg = read_json(checked_output(run.folder.path, "released_ndcg.json"))
    tied = read_json(checked_output(run.folder.path, "tied.json"))
    of_lists = read_json(checked_output(run.folder.path, "list_metrics.json"))
    queries, counts = load_queries(run.folder.path), item_counts(run.dataset)
    methods: dict[str, dict[str, Any]] = {}
    for name, per_seed in ranks.items():
        released = {metric: mean_and_std(values) for metric, values in released_ndcg.get(name, {}).items()}
        debiased = [
            beyond_accuracy.stratified_recall(seed_ranks, queries["target"], counts, 10) for seed_ranks in per_seed
        ]
        methods[name] = row_of(per_seed, tied[name], of_lists[name]) | {DEBIASED: mean_and_std(debiased)} | released
    settings = run.settings
    return {
        "dataset": run.dataset.name,
        "backbone": settings.backbone,
        "mode": mode_of(settings.rules),
        "seeds": settings.seeds,
        "budget": settings.resolved_budget,
        "selection": settings.resolved_selection,
        "protocol": stored_protocol(settings.protocol),
        "teacher": settings.resolved_teacher,
        "lists": teachers.title_of(settings.resolved_teacher),
        "methods": methods,
        "tuned": tuning_summary(run),
        "groups": group_recalls(run, queries, ranks),
        "tests": significance_tests(run, ranks, clusters(settings.protocol, queries["session_id"])),
    }


def tuning_summary(run: Run) -> dict[str, Any]:
    """Returns method → the chosen options and the validation recall of these and of the default options.

    Options that were chosen for another run stand with its name, "from", instead of recalls.
    """
    summary = {}
    for method, tuning in run.tuning_results().items():
        if method not in run.settings.method_names:
            continue
        if "from" in tuning:
            summary[method] = dict(tuning)
        else:
            recalls = [trial["recall@10"] for trial in tuning["trials"]]
            summary[method] = {
                "chosen": tuning["chosen"],
                "recall@10": max(recalls),
                "recall@10, defaults": recalls[0],
                "trials": len(recalls),
                "seeds": tuning["seeds"],
            }
    return summary


def tuning_lines(results: Mapping[str, Any]) -> list[str]:
    """Returns a line for every tuned method: the chosen options and their validation recall."""
    lines = []
    for method, tuning in results.get("tuned", {}).items():
        chosen = ", ".join(f"{name} {value}" for name, value in tuning["chosen"].items())
        if "from" in tuning:
            lines.append(f"{method}: {chosen}; as chosen for {tuning['from']}")
            continue
        recall = f"{tuning['recall@10']:.4f}, with the defaults {tuning['recall@10, defaults']:.4f}"
        size = f"{tuning['trials']} trials, seeds: {tuning['seeds']}"
        lines.append(f"{method}: {chosen}; validation recall@10 {recall} ({size})")
    return lines


def group_recalls(
    run: Run, queries: Mapping[str, np.ndarray], ranks: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """Returns recall@10, averaged over seeds, by popularity of the target, session length, and position.

    Positions are groups only where a session has several targets, because its last position is its length otherwise.

    Returns:
        Group → ``{"queries": number, "recall@10": {NAME: mean}}``; groups without queries are left out.
    """
    table: dict[str, dict[str, Any]] = {}
    by_popularity = groups.by_popularity(queries["target"], item_counts(run.dataset))
    partitions = [by_popularity, groups.by_session_length(queries["session_length"])]
    if run.settings.protocol.targets == "all":
        partitions.append(groups.by_position(queries["position"]))
    for partition in partitions:
        for number, group in enumerate(partition.names):
            own = partition.number == number
            if own.any():
                recalls = {name: float(np.mean(per_seed[:, own] <= 10)) for name, per_seed in ranks.items()}
                table[group] = {"queries": int(own.sum()), "recall@10": recalls}
    return table


def significance_tests(
    run: Run, ranks: Mapping[str, np.ndarray], session_id: np.ndarray | None
) -> list[dict[str, Any]]:
    """Returns the tests of significance; a stage that stores them in `tests.json` and runs again for new ranks."""

    def write_outputs(folder: pathlib.Path) -> None:
        write_json(folder / "tests.json", comparisons.compare_all(ranks, seed=run.settings.seed, session_id=session_id))

    inputs = {"metrics": comparisons.METRICS, "sign_patterns": comparisons.SIGN_PATTERNS}
    run.folder.run_stage("tests", inputs, ["tests.json"], write_outputs, after=["ranks"])
    return read_json(checked_output(run.folder.path, "tests.json"))


def store_results(run: Run, results: Mapping[str, Any]) -> None:
    """Writes `metrics.json`, by a stage that runs again for other results."""
    content = hashlib.sha256(json.dumps(results).encode()).hexdigest()

    def write_outputs(folder: pathlib.Path) -> None:
        write_json(folder / "metrics.json", results)

    run.folder.run_stage("metrics", {"content": content}, ["metrics.json"], write_outputs, after=["ranks", "tests"])


def metrics_over_seeds(ranks: np.ndarray) -> dict[str, dict[str, Any]]:
    """Returns every metric of ranks ``[S, N]`` with its mean and standard deviation over seeds."""
    per_seed = [metrics.from_ranks(ranks_of_seed) for ranks_of_seed in ranks]
    return {metric: mean_and_std([values[metric] for values in per_seed]) for metric in per_seed[0]}


def row_of(ranks: np.ndarray, tied: list[int], of_lists: Mapping[str, list[float]]) -> dict[str, Any]:
    """Returns the metrics of ranks `[S, P]` and of lists, and the number of tied targets of each seed as "tied"."""
    of_lists_over_seeds = {metric: mean_and_std(values) for metric, values in of_lists.items()}
    return metrics_over_seeds(ranks) | of_lists_over_seeds | {TIED_COUNT: mean_and_std(tied)}


def mean_and_std(values: Sequence[float]) -> dict[str, Any]:
    """Returns mean and standard deviation (n − 1) over seeds, and the values themselves.

    Raises:
        ValueError: there are no values, or one is not finite.
    """
    if not values:
        raise ValueError("number of values is 0; expected one for each seed")
    check_finite_values("values", values)
    std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(np.mean(values)), "std": std, "values": list(values)}


def format_cell(numbers: Mapping[str, Any], *, decimals: int = 4) -> str:
    """Formats mean ± standard deviation, or the mean alone where there is one value."""
    mean = f"{numbers['mean']:.{decimals}f}"
    return f"{mean} ± {numbers['std']:.{decimals}f}" if len(numbers["values"]) > 1 else mean


def format_tied(columns: Mapping[str, Any]) -> str:
    """Formats the number of tied targets, a mean over seeds; empty where it was not counted."""
    return f"{columns[TIED_COUNT]['mean']:,.1f}".removesuffix(".0") if TIED_COUNT in columns else ""


def results_table(results: Mapping[str, Any]) -> Group:
    """Returns the results and the differences between methods as tables for the terminal."""
    released = [f"ndcg_released@{k}" for k in (5, 10)] if "padding" in rules_of(results["mode"]) else []
    data, backbone = printable(results["dataset"]), printable(results["backbone"])
    title = f"{data}, {backbone}, {results['mode']} mode, {results['seeds']} seeds; {printable(results['lists'])}"
    table = Table("method", *COLUMNS, *released, "tied", title=title, caption=results["protocol"]["name"])
    for name, columns in results["methods"].items():
        cells = [format_cell(columns[c]) if c in columns else "" for c in (*COLUMNS, *released)]
        table.add_row(shown_name(name), *cells, format_tied(columns))
    return Group(table, comparisons.difference_table(results["tests"], list(results["methods"])))
