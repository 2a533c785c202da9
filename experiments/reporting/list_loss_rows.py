"""The tables of `experiments.list_losses`: losses beside selections on validation, and the contrasts on test."""

import pathlib
from collections.abc import Mapping
from typing import Any

import tabulate

from alkd_jax.errors import markdown

STORED = pathlib.Path(__file__).resolve().parents[1] / "results" / "list_losses"
"""The folder of the stored results, which a wheel does not have."""


def tables(found: Mapping[str, Any]) -> str:
    """Returns the table on validation and, where a pair was found there, that of the test, as Markdown."""
    losses = list(dict.fromkeys(pair["loss"] for pair in found["pairs"]))
    methods = list(dict.fromkeys(pair["method"] for pair in found["pairs"]))
    cells = {(pair["loss"], pair["method"]): _cell(pair, found["false_discovery"]) for pair in found["pairs"]}
    rows = [[markdown(method), *(cells.get((loss, method), "") for loss in losses)] for method in methods]
    heading = f"validation {found['metric']}"
    parts = [tabulate.tabulate(rows, [heading, *losses], tablefmt="github", disable_numparse=True)]
    if found["contrasts"]:
        rows = [
            [
                f"{pair['loss']}, {markdown(pair['method'])}",
                f"{pair['difference']:+.4f}",
                "{:+.4f} to {:+.4f}".format(*pair["interval"]),
                f"{pair['p']:.3f}",
                f"{pair['holm']:.3f}",
            ]
            for pair in found["contrasts"]
        ]
        base = found["base"]
        headings = [f"on test, against {base['loss']}, {base['method']}", found["metric"], "95 %", "p", "Holm"]
        parts.append(tabulate.tabulate(rows, headings, tablefmt="github", disable_numparse=True))
    return "\n\n".join(parts)


def _cell(pair: Mapping[str, Any], false_discovery: float) -> str:
    mark = " *" if pair.get("q") is not None and pair["q"] <= false_discovery else ""
    return f"{pair['mean']:.4f} ± {pair['sd']:.4f}{mark}"
