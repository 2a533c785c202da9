"""Training-free rows of stored results, ranked again from the data: no model is needed, and no other row changes.

The ranks of trained models are not stored with results. A test between a trained method and a training-free one whose
ranks have changed can therefore not be repeated: its difference is that of the new means, and it has no p-values.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tabulate

from alkd_jax.baselines import Places
from alkd_jax.errors import markdown
from alkd_jax.evaluation import Protocol, metrics, significance

from ..pipeline.list_metrics import OF_LISTS
from ..pipeline.protocols import stored_protocol
from ..pipeline.rules import protocol_rules, rules_of
from . import comparisons
from .results import TIED_COUNT, format_cell, format_tied, row_of
from .tables import TIED

FORMER_TIES = "published"
"""The rule of results that were stored without a protocol: the mean rank, a half rounded down."""


def recount_results(results: Mapping[str, Any], places: Mapping[str, Places]) -> dict[str, Any]:
    """Returns the stored results of a run with training-free rows by today's rule for ties.

    Args:
        results: the content of a stored file, see :func:`experiments.record.condensed_results`.
        places: name → the places of the run's test targets, with seen items excluded and the last item as target.

    Raises:
        ValueError: the results are of another protocol, or the data do not give a stored row by the rule of its time.
    """
    protocol = Protocol(rules=protocol_rules(rules_of(results["mode"])))
    stored = results.get("protocol", stored_protocol(protocol) | {"ties": FORMER_TIES})
    if (stored["seen"], stored["targets"]) != (protocol.seen, protocol.targets):
        raise ValueError(f"protocol of the results is {stored['name']}; expected {protocol.name}, to rank them again")
    methods, changed = dict(results["methods"]), set()
    for name in [name for name in methods if name in places]:
        former, ranks = places[name].ranks(ties=stored["ties"]), places[name].ranks(ties=protocol.ties)
        kept = [metric for metric in metrics.from_ranks(former) if metric in methods[name]]
        computed = {metric: round(metrics.from_ranks(former)[metric], 6) for metric in kept}
        if computed != {metric: methods[name][metric][0] for metric in kept}:
            raise ValueError(f"{name} has {computed} on these data; expected the stored {methods[name]}")
        values = metrics.from_ranks(ranks)
        # Lists do not depend on the rule for ties.
        of_lists = {metric: column for metric, column in methods[name].items() if metric.partition("@")[0] in OF_LISTS}
        methods[name] = {metric: [round(values[metric], 6)] for metric in kept} | of_lists
        methods[name] |= {TIED_COUNT: [places[name].num_tied]}
        changed |= {(name, metric) for metric in comparisons.METRICS if _differ(former, ranks, metric)}
    tests = [recount_test(test, methods, changed) for test in results["tests"]]
    return dict(results) | {"protocol": stored_protocol(protocol), "methods": methods, "tests": tests}


def recount_test(test: Mapping[str, Any], methods: Mapping[str, Any], changed: set[tuple[str, str]]) -> dict[str, Any]:
    """Returns a test as it is, or without p-values and interval where the ranks of one of its methods have changed."""
    pair, metric = (test["method"], test["against"]), test["metric"]
    if not changed & {(name, metric) for name in pair}:
        return dict(test)
    mean, other = (float(np.mean(methods[name][metric])) for name in pair)
    untested = {"interval": [None, None], "p_randomization_holm": None, "p_seeds_holm": None}
    return dict(test) | {"difference": round(mean - other, 6)} | untested


def recount_leaderboard(page: str, places: Mapping[str, Places]) -> str:
    """Returns the page of a stored leaderboard with its training-free rows by today's rule, in the order of recall@10.

    Args:
        page: Markdown with one table, a row for each method.
        places: name → the places of the test targets.
    """
    lines = page.splitlines()
    is_row = [line.startswith("|") for line in lines]
    first, last = is_row.index(True), len(lines) - is_row[::-1].index(True)
    table = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[first:last]]
    headings, rows = table[0], table[2:]
    if TIED not in headings:
        for row in (headings, *rows):
            row.insert(headings.index("ndcg@10") + 1, TIED if row is headings else "")
    for row in rows:
        if (name := next((name for name in places if markdown(name) == row[0]), None)) is not None:
            values = row_of(places[name].ranks()[None], [places[name].num_tied], {})
            cells = {h: format_cell(values[h]) for h in headings if h in values} | {TIED: format_tied(values)}
            row[:] = [cells.get(heading, cell) for heading, cell in zip(headings, row, strict=True)]
    rows.sort(key=lambda row: -float(row[headings.index("recall@10")].split()[0]))
    text = tabulate.tabulate(rows, headings, tablefmt="github", disable_numparse=True)
    caption = f"Protocol: {Protocol().name}. The tied targets of trained models were not counted."
    notes = "\n".join(lines[last:]).replace(caption, "").strip()
    return "\n".join([*lines[:first], text, "", caption, "", notes]) + "\n"


def _differ(former: np.ndarray, ranks: np.ndarray, metric: str) -> bool:
    """Whether a metric differs for any query; only then do tests on it."""
    values = (significance.per_session(array, metric) for array in (former, ranks))
    return bool(np.not_equal(*values).any())
