"""Which methods are tested against which, and how that is told: every pair once, corrected over the whole family."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from alkd_jax.evaluation import significance

METRICS = ("recall@10", "ndcg@10")
LEVEL = 0.05
SIGN_PATTERNS = 10_000

_OWN, _YARDSTICKS = "ALKDRec", ("Student", "Random")


def pairs(methods: Sequence[str]) -> list[tuple[str, str]]:
    """Every method against Student and against Random, and ALKDRec against the others; each pair once."""
    found: list[tuple[str, str]] = []
    for against in _YARDSTICKS:
        if against in methods:
            found += [(method, against) for method in methods if method != against and (against, method) not in found]
    if _OWN in methods:
        found += [(_OWN, other) for other in methods if other not in (_OWN, *_YARDSTICKS)]
    return found


def compare_all(
    ranks: Mapping[str, np.ndarray], *, seed: int, sign_patterns: int = SIGN_PATTERNS
) -> list[dict[str, Any]]:
    """:func:`compare_pairs` of all :func:`pairs`."""
    return compare_pairs(ranks, pairs(list(ranks)), seed=seed, sign_patterns=sign_patterns)


def compare_pairs(
    ranks: Mapping[str, np.ndarray],
    compared: Sequence[tuple[str, str]],
    *,
    seed: int,
    sign_patterns: int = SIGN_PATTERNS,
) -> list[dict[str, Any]]:
    """Tests pairs of methods on every metric.

    Args:
        ranks: method → ``[S, N]``; a training-free method has one row, and is compared over sessions only.
        compared: which method against which.
        seed: of the resampling, the same sessions in every test.
        sign_patterns: drawn for the randomisation; many, since the correction multiplies the least p.

    Returns:
        A dictionary a test: "method", "against", the fields of `significance.Comparison`, and both
        p-values after Holm's correction over all tests here as "p_randomisation_holm" and "p_seeds_holm"; null where
        a number could not be had.
    """
    found = []
    for method, against in compared:
        for metric in METRICS:
            rng, sides = np.random.default_rng(seed), (ranks[method], ranks[against])
            outcome = significance.compare(rng, *sides, metric=metric, sign_patterns=sign_patterns)
            found.append({"method": method, "against": against} | dataclasses.asdict(outcome))
    for name in ("p_randomisation", "p_seeds"):
        for test, adjusted in zip(found, significance.holm([test[name] for test in found]).tolist(), strict=True):
            test[f"{name}_holm"] = adjusted
    return [{name: without_nan(value) for name, value in test.items()} for test in found]


def without_nan(value: Any) -> Any:
    """The value as JSON can hold it: null for NaN, lists for tuples."""
    if isinstance(value, tuple):
        return [without_nan(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def marked(test: Mapping[str, Any] | None) -> str:
    """The difference, with * where sessions and † where seeds tell the methods apart after the correction."""
    if test is None:
        return ""
    marks = "".join(
        mark
        for mark, name in (("*", "p_randomisation_holm"), ("†", "p_seeds_holm"))
        if test[name] is not None and test[name] < LEVEL
    )
    return f"{test['difference']:+.4f} {marks:2}"


def as_rows(found: Sequence[Mapping[str, Any]], methods: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Headings, and for every method its differences from the yardsticks and ALKDRec's from it."""
    by_pair = {(test["method"], test["against"], test["metric"]): test for test in found}
    headings = [f"{metric} − {against}" for against in _YARDSTICKS for metric in METRICS]
    headings += [f"{_OWN} − it, {metric}" for metric in METRICS]
    rows = []
    for method in methods:
        cells = [by_pair.get((method, against, metric)) for against in _YARDSTICKS for metric in METRICS]
        cells += [by_pair.get((_OWN, method, metric)) for metric in METRICS]
        rows.append([method, *map(marked, cells)])
    return headings, rows


def note(found: Sequence[Mapping[str, Any]]) -> str:
    """What the marks mean."""
    return (
        f"* p < {LEVEL} over sessions (signs turned at random), † over seeds (paired t); "
        f"both after Holm's correction over {len(found)} tests"
    )


def as_table(found: Sequence[Mapping[str, Any]], methods: Sequence[str]) -> Table:
    """The differences as a table for the terminal."""
    headings, rows = as_rows(found, methods)
    table = Table("method", *headings, title="differences", caption=note(found))
    for row in rows:
        table.add_row(*row)
    return table


def in_full(found: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Every test with all its numbers, for the report."""

    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    def p(value: float | None) -> str:
        return "<.001" if value is not None and value < 0.001 else number(value, ".3f")

    def between(interval: Sequence[float | None]) -> str:
        low, high = interval
        return "" if low is None or high is None else f"{low:+.4f} … {high:+.4f}"

    return [
        [
            f"{test['method']} − {test['against']}",
            test["metric"],
            f"{test['difference']:+.4f}",
            between(test["interval"]),
            p(test["p_randomisation"]),
            p(test["p_randomisation_holm"]),
            number(test["effect"], "+.2f"),
            between(test["interval_seeds"]),
            p(test["p_seeds"]),
            p(test["p_seeds_holm"]),
            number(test["effect_seeds"], "+.2f"),
        ]
        for test in found
    ]
