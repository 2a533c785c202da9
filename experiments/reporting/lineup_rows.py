"""The rows of a line-up of counting and linear methods in tables, with the options that were chosen on validation."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tabulate

from alkd_jax.errors import markdown
from alkd_jax.evaluation import Protocol
from alkd_jax.types import Dataset

from ..pipeline.console import print_line
from ..pipeline.lineups import LINEUPS, SAMPLE, load_lineup, members_of, rank_lineup
from ..pipeline.run_folder import RunFolder
from .results import TIED_COUNT, row_of
from .tables import TIED
from .training_free_rows import COLUMNS, results_of


def build(
    dataset: Dataset, out: pathlib.Path, protocol: Protocol, lineup: str, history: int, *, overwrite: bool = False
) -> dict[str, Any]:
    """Ranks the test targets by the methods of a line-up, those excepted for which this was done in the folder.

    Args:
        dataset: the data.
        out: folder of leaderboards; the ranks are stored in a folder of the dataset in it.
        protocol: how the sessions are evaluated.
        lineup: a key of :data:`experiments.pipeline.lineups.LINEUPS`.
        history: number of most recent known items that are read, 0 for all.
        overwrite: whether results of another protocol in the folder may be replaced.

    Returns:
        What :func:`experiments.reporting.training_free_rows.build` returns, and what :func:`about` does.
    """
    folder = RunFolder(out / dataset.name / "lineup", print_line, overwrite=overwrite)
    folder.open({"data": dataset.fingerprint, "dataset": dataset.name, "what": "line-up"})
    rank_lineup(dataset, folder, protocol, lineup, history)
    rows, ranks = load(dataset, folder, lineup)
    return results_of(dataset, protocol, rows, ranks) | {"lineup": about(dataset, folder, lineup, history)}


def load(dataset: Dataset, folder: RunFolder, lineup: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns the results and the ranks `[1, P]` of a line-up."""
    ranks, stored = load_lineup(dataset, folder, lineup)
    return {name: row_of(ranks[name], stored[name]["tied"], stored[name]["lists"]) for name in ranks}, ranks


def about(dataset: Dataset, folder: RunFolder, lineup: str, history: int) -> dict[str, Any]:
    """Returns what to say about a line-up in the folder where it is stored.

    Returns:
        ``{"name", "history", "validation", "tuned": {NAME: {"options", "recall@10", "trials"}}, "left_out": {NAME:
        reason}}``; "validation" is the number of validation sessions on which options were chosen.
    """
    members, left_out = members_of(lineup, dataset)
    stored, has_times = load_lineup(dataset, folder, lineup)[1], dataset.train_sequences.time is not None
    tuned = {
        name: {key: stored[name][key] for key in ("options", "recall@10")} | {"trials": len(member.points(has_times))}
        for name, member in members.items()
    }
    num_sessions = min(SAMPLE, len(dataset.validation_sequences))
    return {"name": lineup, "history": history, "validation": num_sessions, "tuned": tuned, "left_out": left_out}


def table(numbers: Mapping[str, Any], lineup: str | None = None) -> str:
    """Returns the Markdown table of what :func:`build` returns, in descending order of recall@10, and its notes.

    Args:
        numbers: the results.
        lineup: a line-up whose methods are shown; by default all that there are.
    """
    told, methods = numbers["lineup"], numbers["methods"]
    shown = [name for name in methods if lineup is None or name in LINEUPS[lineup]]
    rows = [
        [
            markdown(name),
            *(f"{methods[name][column]:.4f}" for column in COLUMNS),
            f"{methods[name][TIED_COUNT]:,.0f}",
            options_text(told["tuned"][name]),
        ]
        for name in sorted(shown, key=lambda name: -methods[name]["recall@10"])
    ]
    text = tabulate.tabulate(rows, (*("method", *COLUMNS), TIED, "options"), tablefmt="github", disable_numparse=True)
    protocol = f"Protocol: {numbers['protocol']['name']}; {numbers['targets']:,} targets."
    return "\n\n".join([text, " ".join([protocol, *notes(told, lineup)])])


def options_text(tuned: Mapping[str, Any]) -> str:
    """Returns the chosen options of a method in words; empty where there was no choice."""
    values = (f"{name} {'none' if value is None else value}" for name, value in tuned["options"].items())
    return markdown(", ".join(values))


def notes(told: Mapping[str, Any], lineup: str | None = None) -> list[str]:
    """Returns the sentences below a table: what methods read, how options were chosen, and what was left out."""
    read = f"the {told['history']} most recent items" if told["history"] else "all items"
    sentences = [
        f"Methods read {read} of a session. The options of a method are the best of a fixed grid by recall@10 on "
        f"{told['validation']:,} validation sessions; all else is by default."
    ]
    missing = {name: why for name, why in told["left_out"].items() if lineup is None or name in LINEUPS[lineup]}
    for why in dict.fromkeys(missing.values()):
        names = ", ".join(name for name, reason in missing.items() if reason == why)
        sentences.append(f"Left out: {markdown(names)}, since {why}.")
    return sentences


def summary(stored: Mapping[str, Mapping[str, Any]], metric: str, lineup: str) -> str:
    """Returns a Markdown table of one metric, a row for each method of a line-up and a column for each dataset.

    The best of a column is bold; a method that was left out has a dash.

    Args:
        stored: title of a dataset → what :func:`build` returns.
        metric: name of the metric.
        lineup: a key of :data:`experiments.pipeline.lineups.LINEUPS`.
    """
    columns = [
        {name: row[metric] for name, row in numbers["methods"].items() if name in LINEUPS[lineup]}
        for numbers in stored.values()
    ]
    rows = [[markdown(name), *(_cell(column, name) for column in columns)] for name in LINEUPS[lineup]]
    return tabulate.tabulate(rows, [metric, *map(markdown, stored)], tablefmt="github", disable_numparse=True)


def _cell(column: Mapping[str, float], name: str) -> str:
    if name not in column:
        return "–"
    return f"**{column[name]:.4f}**" if column[name] == max(column.values()) else f"{column[name]:.4f}"
