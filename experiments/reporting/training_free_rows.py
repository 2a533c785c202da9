"""The rows of training-free recommenders in the leaderboard, and the table that has no others."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tabulate

from alkd_jax.errors import markdown
from alkd_jax.evaluation import Protocol
from alkd_jax.io import open_arrays, read_json
from alkd_jax.types import Dataset

from ..pipeline.console import print_line
from ..pipeline.protocols import stored_protocol
from ..pipeline.run_folder import RunFolder
from ..pipeline.stage_records import checked_output
from ..pipeline.training_free import rank_training_free
from .results import TIED_COUNT, row_of
from .tables import TIED

COLUMNS = ("recall@10", "recall@20", "ndcg@10", "mrr@20", "coverage@20")


def build(dataset: Dataset, out: pathlib.Path, protocol: Protocol, *, overwrite: bool = False) -> dict[str, Any]:
    """Ranks the test targets by the training-free recommenders, unless this was done in the folder.

    Args:
        dataset: the data.
        out: folder of leaderboards; the ranks are stored in a folder of the dataset in it.
        protocol: how the test sessions are evaluated.
        overwrite: whether results of another protocol in the folder may be replaced.

    Returns:
        ``{"dataset", "fingerprint", "items", "protocol", "targets", "methods": {NAME: {METRIC: value, "tied":
        number}}}``, values rounded to six digits; "targets" counts the predicted ones.
    """
    folder = RunFolder(out / dataset.name / "training-free", print_line, overwrite=overwrite)
    folder.open({"data": dataset.fingerprint, "dataset": dataset.name, "what": "training-free recommenders"})
    rank_training_free(dataset, folder, protocol)
    rows, ranks = load(folder)
    return results_of(dataset, protocol, rows, ranks)


def results_of(
    dataset: Dataset, protocol: Protocol, rows: Mapping[str, Any], ranks: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Returns what :func:`build` does, of rows and ranks `[1, P]` of the test targets."""
    return {
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "items": dataset.num_items,
        "protocol": stored_protocol(protocol),
        "targets": next(iter(ranks.values())).shape[1],
        "methods": {name: means_of(row) for name, row in rows.items()},
    }


def load(folder: RunFolder) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns the results and the ranks `[1, P]` that the stage of training-free recommenders stored in a folder."""
    with open_arrays(checked_output(folder.path, "training_free_ranks.npz")) as archive:
        ranks = {name: archive[name][None] for name in archive}
    tied, of_lists = (
        read_json(checked_output(folder.path, f"training_free_{name}.json")) for name in ("tied", "lists")
    )
    return {name: row_of(ranks[name], tied[name], of_lists[name]) for name in ranks}, ranks


def means_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Returns the columns of a row without their seeds, of which there is one; the number of tied targets is whole."""
    return {
        name: int(column["mean"]) if name == TIED_COUNT else round(column["mean"], 6) for name, column in row.items()
    }


def table(numbers: Mapping[str, Any]) -> str:
    """Returns the Markdown table of what :func:`build` returns, in descending order of recall@10."""
    rows = [
        [markdown(name), *(f"{row[column]:.4f}" for column in COLUMNS), f"{row[TIED_COUNT]:,.0f}"]
        for name, row in sorted(numbers["methods"].items(), key=lambda entry: -entry[1]["recall@10"])
    ]
    text = tabulate.tabulate(rows, ("method", *COLUMNS, TIED), tablefmt="github", disable_numparse=True)
    return f"{text}\n\nProtocol: {numbers['protocol']['name']}; {numbers['targets']:,} targets."
