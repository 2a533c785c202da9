"""The leaderboard as a Markdown table: measured and published results together."""

from collections.abc import Mapping
from typing import Any

import tabulate

from alkd_jax.errors import markdown

from . import lineup_rows, training_free_rows
from .results import format_cell, format_tied

METRICS = ("recall@5", "ndcg@5", "recall@10", "ndcg@10")
COVERAGE = "coverage@20"
COSTS = {
    "parameters": "parameters",
    "bytes": "bytes",
    "resident_bytes": "bytes in memory",
    "us_per_session": "µs a session",
}
HEADINGS = ("method", *METRICS, COVERAGE, "tied targets", *COSTS.values(), "LLM, USD", "lists")


def table(numbers: Mapping[str, Any], *, own: str) -> str:
    """Returns the table in descending order of recall@10.

    Args:
        numbers: of :func:`experiments.leaderboard.build_leaderboard`.
        own: name of the row that is set in bold.
    """
    if "published" not in numbers:
        return (lineup_rows if "lineup" in numbers else training_free_rows).table(numbers)
    measured = [(row["recall@10"]["mean"], name, row) for name, row in numbers["methods"].items()]
    published = [(row["recall@10"], name, row) for name, row in numbers["published"].items() if "recall@10" in row]
    rows = []
    for _, name, row in sorted([*measured, *published], key=lambda entry: (-entry[0], entry[1])):
        if name in numbers["published"]:
            printed = [f"{row[m]:.4f}{' *' * ('ndcg' in m)}" if m in row else "" for m in METRICS]
            rows.append([markdown(name), *printed, *[""] * (len(HEADINGS) - 1 - len(METRICS))])
            continue
        costs = [f"{row[column]:,.0f}" if column in row else "" for column in COSTS]
        money = f"{row['llm_usd']:.2f}" if "llm_usd" in row else "unknown" if "lists" in row else "0.00"
        rows.append(
            [
                f"**{name}**" if name == own else markdown(name),
                *(format_cell(row[m]) for m in (*METRICS, COVERAGE)),
                format_tied(row),
                *costs,
                money,
                markdown(row.get("lists", "")),
            ]
        )
    rows_as_text = tabulate.tabulate(rows, HEADINGS, tablefmt="github", disable_numparse=True)
    told = " ".join(["", *lineup_rows.notes(numbers["lineup"])]) if "lineup" in numbers else ""
    text = f"{rows_as_text}\n\nProtocol: {numbers['protocol']['name']}.{told}"
    if not numbers["published"]:
        return text
    return f"{text}\n\n\\* published; its NDCG is that of the iteration order of a hash set, which is not comparable."
