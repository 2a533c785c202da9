"""Tests of significance between methods, and the tables that show them.

Every pair of methods is tested once; the p-values are corrected over all tests of the run (Holm).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from alkd_jax.evaluation import significance
from alkd_jax.io import finite_or_none

from .shown_names import shown_name

METRICS = ("recall@10", "ndcg@10")
LEVEL = 0.05
"""A difference with a lower corrected p-value is marked as significant."""

SIGN_PATTERNS = 10_000

FULL_HEADINGS = (
    *("difference", "metric", "mean", "95 % over sessions", "p over sessions", "Holm over sessions"),
    *("d_z over sessions", "95 % over seeds", "p over seeds", "Holm over seeds", "d_z over seeds"),
)
"""Headings of :func:`full_rows`."""

_OWN, _REFERENCES = "ALKDRec", ("Student", "Random")


def method_pairs(methods: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs every method with Student and with Random, and ALKDRec with all others; each pair occurs once."""
    pairs: list[tuple[str, str]] = []
    for against in _REFERENCES:
        if against in methods:
            pairs += [(method, against) for method in methods if method != against and (against, method) not in pairs]
    if _OWN in methods:
        pairs += [(_OWN, other) for other in methods if other not in (_OWN, *_REFERENCES)]
    return pairs


def compare_all(
    ranks: Mapping[str, np.ndarray],
    *,
    seed: int,
    session_id: np.ndarray | None = None,
    sign_patterns: int = SIGN_PATTERNS,
) -> list[dict[str, Any]]:
    """Applies :func:`compare_pairs` to all :func:`method_pairs`."""
    pairs = method_pairs(list(ranks))
    return compare_pairs(ranks, pairs, seed=seed, session_id=session_id, sign_patterns=sign_patterns)


def compare_pairs(
    ranks: Mapping[str, np.ndarray],
    pairs: Sequence[tuple[str, str]],
    *,
    seed: int,
    session_id: np.ndarray | None = None,
    sign_patterns: int = SIGN_PATTERNS,
) -> list[dict[str, Any]]:
    """Tests pairs of methods on every metric.

    Args:
        ranks: method → ranks ``[S, P]``; a training-free method has one row, and is compared over sessions only.
        pairs: the methods to compare, "method" and "against".
        seed: of the resampling, which takes the same sessions in every test.
        session_id: ``[P]`` session of each query, so that sessions are drawn with all their queries; None where each
            query is of a session of its own.
        sign_patterns: number of random sign patterns of the randomization test; it bounds the smallest p-value, which
            the correction multiplies by the number of tests.

    Returns:
        A dictionary for each test: "method", "against", the fields of `significance.Comparison`, and both p-values
        after Holm's correction over all these tests as "p_randomization_holm" and "p_seeds_holm"; None where a number
        is not defined.
    """
    tests = []
    for method, against in pairs:
        for metric in METRICS:
            rng = np.random.default_rng(seed)
            comparison = significance.compare(
                rng,
                ranks[method],
                ranks[against],
                session_id=session_id,
                metric=metric,
                sign_patterns=sign_patterns,
            )
            tests.append({"method": method, "against": against} | dataclasses.asdict(comparison))
    for name in ("p_randomization", "p_seeds"):
        for test, corrected in zip(tests, significance.holm([test[name] for test in tests]).tolist(), strict=True):
            test[f"{name}_holm"] = corrected
    return finite_or_none(tests)


def format_difference(test: Mapping[str, Any] | None) -> str:
    """Formats a difference, with * where it is significant over sessions, † over seeds, § where it is untested."""
    if test is None:
        return ""
    if test["p_randomization_holm"] is None:
        return f"{test['difference']:+.4f} § "
    marks = "".join(
        mark
        for mark, name in (("*", "p_randomization_holm"), ("†", "p_seeds_holm"))
        if test[name] is not None and test[name] < LEVEL
    )
    return f"{test['difference']:+.4f} {marks:2}"


def difference_rows(tests: Sequence[Mapping[str, Any]], methods: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Returns headings, and a row for every method: its differences from Student and Random, and ALKDRec's from it."""
    by_pair = {(test["method"], test["against"], test["metric"]): test for test in tests}
    headings = [f"{metric} − {against}" for against in _REFERENCES for metric in METRICS]
    headings += [f"{_OWN} − method, {metric}" for metric in METRICS]
    rows = []
    for method in methods:
        cells = [by_pair.get((method, against, metric)) for against in _REFERENCES for metric in METRICS]
        cells += [by_pair.get((_OWN, method, metric)) for metric in METRICS]
        rows.append([method, *map(format_difference, cells)])
    return headings, rows


def legend(tests: Sequence[Mapping[str, Any]]) -> str:
    """Explains the marks of :func:`format_difference`."""
    return (
        f"* p < {LEVEL} over sessions (randomization test), † p < {LEVEL} over seeds (paired t-test); "
        f"both after Holm's correction over {len(tests)} tests"
    )


def difference_table(tests: Sequence[Mapping[str, Any]], methods: Sequence[str]) -> Table:
    """Returns the differences as a table for the terminal."""
    headings, rows = difference_rows(tests, methods)
    table = Table("method", *headings, title="differences", caption=legend(tests))
    for name, *row in rows:
        table.add_row(shown_name(name), *row)
    return table


def difference_with_interval(test: Mapping[str, Any]) -> str:
    """Returns a difference and its 95 % interval, with * where it is significant over sessions (Holm)."""
    low, high = test["interval"]
    mark = " *" if test["p_randomization_holm"] < 0.05 else ""
    return f"{test['difference']:+.4f} ({low:+.4f} to {high:+.4f}){mark}"


def full_rows(tests: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Returns a row for every test with all its numbers, for the report."""

    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    def p_value(value: float | None) -> str:
        return "<.001" if value is not None and value < 0.001 else number(value, ".3f")

    def interval(bounds: Sequence[float | None]) -> str:
        low, high = bounds
        return "" if low is None or high is None else f"{low:+.4f} … {high:+.4f}"

    return [
        [
            f"{test['method']} − {test['against']}",
            test["metric"],
            f"{test['difference']:+.4f}",
            interval(test["interval"]),
            p_value(test["p_randomization"]),
            p_value(test["p_randomization_holm"]),
            number(test["effect"], "+.2f"),
            interval(test["interval_seeds"]),
            p_value(test["p_seeds"]),
            p_value(test["p_seeds_holm"]),
            number(test["effect_seeds"], "+.2f"),
        ]
        for test in tests
    ]
