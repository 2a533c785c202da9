"""The tables of `experiments.information`, of one or several datasets side by side."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import tabulate

from alkd_jax.io import read_json

STORED = pathlib.Path(__file__).resolve().parents[1] / "results" / "information"
"""The folder of the stored results, which a wheel does not have."""


def read(folder: pathlib.Path = STORED) -> list[dict[str, Any]]:
    """Reads the stored results of a folder, the dataset of the paper's first table first."""
    return [read_json(file) for file in sorted(folder.glob("*.json"), reverse=True)]


def tables(found: Sequence[Mapping[str, Any]]) -> str:
    """Returns the gains beyond each set of features, and those by strata beyond all, as two Markdown tables."""
    names = [f"{each['dataset']} ({each['with_target']:,} lists)" for each in found]
    gains: dict[str, list[str]] = {}
    for column, each in enumerate(found):
        for entry in each["gains"]:
            name = "alone" if not entry["beyond"] else f"beyond {', '.join(entry['beyond'])}"
            _put(gains, name, column, len(found), _cell(entry))
        last = each["gains"][-1]
        control = {"gain": last["shuffled"], "error": last["shuffled_error"]}
        _put(gains, "shuffled ranks, beyond all of these", column, len(found), _cell(control))
    parts: dict[str, list[str]] = {}
    # The dataset with most strata decides their order.
    for column, each in sorted(enumerate(found), key=lambda pair: -len(pair[1]["strata"])):
        named = [(f"{entry['by']}: {entry['stratum']}", entry) for entry in each["strata"]]
        named += [(f"only items {entry['items']}", entry) for entry in each["comparable"]]
        for name, entry in named:
            _put(parts, name, column, len(found), f"{_cell(entry)} ({entry['lists']:,})")
    return "\n\n".join(
        tabulate.tabulate([[name, *cells] for name, cells in rows.items()], [heading, *names], tablefmt="github")
        for heading, rows in (("gain of the ranks", gains), ("beyond all, by lists", parts))
    )


def _put(rows: dict[str, list[str]], name: str, column: int, columns: int, cell: str) -> None:
    rows.setdefault(name, [""] * columns)[column] = cell


def _cell(entry: Mapping[str, Any]) -> str:
    return f"{entry['gain']:+.3f} ± {entry['error']:.3f}"
