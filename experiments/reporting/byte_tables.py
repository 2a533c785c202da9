"""Students by their bytes: the table of one dataset, the comparisons with counts, and the Pareto front as a figure."""

import io
import pathlib
from collections.abc import Mapping
from typing import Any

import tabulate
from matplotlib.figure import Figure

from alkd_jax.errors import markdown
from alkd_jax.io import read_json, write_texts

from ..pipeline import compact_students
from ..pipeline.compact_students import METRICS, STORED, is_student, is_untaught, student_name, untaught_name
from .byte_rows import REFERENCES
from .comparisons import difference_with_interval
from .results import format_cell

STORED_RESULTS = pathlib.Path(__file__).resolve().parents[1] / "results" / "bytes"
"""The folder of the stored results, which a wheel does not have."""

MARK = (
    "Differences over the test sessions with 95 % intervals; * marks p < 0.05 after Holm's correction over the table."
)


_KINDS = (
    ((True, False), "best student of a size", "C0"),
    ((True, True), "without labels", "C1"),
    ((False, False), "training-free", "C7"),
)


def read(folder: pathlib.Path = STORED_RESULTS) -> dict[str, dict[str, Any]]:
    """Reads the stored results of a folder, name → numbers of `leaderboard --by-bytes`."""
    return {file.stem: read_json(file) for file in sorted(folder.glob("*.json"))}


def table(numbers: Mapping[str, Any]) -> str:
    """Returns one row a student or method, in ascending order of bytes, as a Markdown table.

    Args:
        numbers: as `leaderboard --by-bytes` writes them.
    """
    rows = [_row(name, row) for name, row in _by_bytes(numbers["methods"])]
    headings = ["", *METRICS, "seen targets", "unseen targets", "KB", "KB in memory", "what it is"]
    return tabulate.tabulate(rows, headings, tablefmt="github", disable_numparse=True)


def comparisons(numbers: Mapping[str, Any]) -> str:
    """Returns the differences of the students from the references, with * where they are significant over sessions.

    Where a re-ranker teaches, the best student of a size is also compared with the best one without its labels.

    Args:
        numbers: as of :func:`table`.
    """
    students = [name for name, _ in _by_bytes(numbers["methods"]) if is_student(name)]
    tests = {(test["method"], test["against"], test["metric"]): test for test in numbers["tests"]}
    untaught = {student_name(size): untaught_name(size) for size in compact_students.BUDGETS_KB}
    untaught = {student: other for student, other in untaught.items() if other in numbers["methods"]}
    rows = []
    for student in students:
        for metric in METRICS:
            references = [*REFERENCES, *([untaught.get(student, "")] if untaught else [])]
            found = [tests.get((student, reference, metric)) for reference in references]
            rows.append(
                [f"{markdown(student)}, {metric}", *(difference_with_interval(test) if test else "" for test in found)]
            )
    headings = ["", *REFERENCES, *(["Without labels"] if untaught else [])]
    return tabulate.tabulate(rows, headings, tablefmt="github", disable_numparse=True)


def front(methods: Mapping[str, Any], metric: str) -> list[tuple[float, float]]:
    """Returns bytes and metric of the Pareto front: what nothing of at most the same bytes surpasses."""
    best: list[tuple[float, float]] = []
    for _, row in _by_bytes(methods):
        value = row[metric]["mean"]
        if not best or value > best[-1][1]:
            best.append((row["bytes"], value))
    return best


def plot(numbers: Mapping[str, Any]) -> Figure:
    """Plots recall and NDCG against KB, one panel each; a line connects the Pareto front."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    methods = dict(_by_bytes(numbers["methods"]))
    for axes, metric in zip(figure.subplots(1, len(METRICS)), METRICS, strict=True):
        size, value = zip(*((row["bytes"] / 1000, row[metric]["mean"]) for row in methods.values()), strict=True)
        kinds = [(is_student(name), is_untaught(name)) for name in methods]
        for kind, label, color in _KINDS:
            own = [number for number, found in enumerate(kinds) if found == kind]
            if own:
                axes.plot([size[n] for n in own], [value[n] for n in own], "o", ms=5, color=color, label=label)
        steps = front(methods, metric)
        axes.step([at / 1000 for at, _ in steps], [best for _, best in steps], "-", where="post", lw=1, label="front")
        below = max(value) * 1.1
        for name, row in sorted(methods.items(), key=lambda pair: -pair[1][metric]["mean"]):
            if not is_student(name):
                # Labels of nearly equal values stand below each other.
                below = min(row[metric]["mean"], below - 0.05 * max(value))
                axes.text(0.93 * row["bytes"] / 1000, below, name, ha="right", va="center", fontsize=7)
        axes.set(xscale="log", xlabel="KB", ylabel=f"test {metric}", ylim=(0, 1.1 * max(value)))
        axes.set(xlim=(min(size) / 3, 1.2 * max(size)), title=numbers["dataset"])
        axes.set_xticks(compact_students.BUDGETS_KB, map(str, compact_students.BUDGETS_KB))
        axes.set_xticks([], minor=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower right")
    return figure


def write_figure(numbers: Mapping[str, Any], file: pathlib.Path) -> None:
    """Writes the figure of :func:`plot` as SVG."""
    text = io.StringIO()
    plot(numbers).savefig(text, format="svg", metadata={"Date": None})
    write_texts({file: text.getvalue()})


def _by_bytes(methods: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Returns the rows with a size in its ascending order; of several sizes with one student the smallest."""
    known: set[tuple[Any, ...]] = set()
    rows = []
    # Students stand in ascending order of their sizes, which a stable order keeps.
    for name, row in sorted(((n, r) for n, r in methods.items() if "bytes" in r), key=lambda pair: pair[1]["bytes"]):
        identity = row["bytes"], row["resident_bytes"], *(row[metric]["mean"] for metric in METRICS)
        if not is_student(name) or identity not in known:
            rows.append((name, row))
        known.add(identity)
    return rows


def _row(name: str, row: Mapping[str, Any]) -> list[str]:
    split = [
        " / ".join(f"{row[part][metric]:.4f}" for metric in METRICS) if METRICS[0] in row[part] else ""
        for part in ("seen", "unseen")
    ]
    sizes = [f"{row[key] / 1000:,.0f}" for key in ("bytes", "resident_bytes")]
    return [
        markdown(name),
        *(format_cell(row[metric]) for metric in METRICS),
        *split,
        *sizes,
        _what(name, row),
    ]


def _what(name: str, row: Mapping[str, Any]) -> str:
    if name == STORED:
        return "packed sessions, counted at each answer"
    if not is_student(name):
        return "counts of the packed sessions"
    options = row["chosen"]["options"]
    parts = [f"recency {options['recency']:g}", f"backward {options['backward']:g}"]
    if options["titles"]:
        parts.append(f"titles {options['titles']:g} of {options['title_places']} nearest")
    # Results that were stored before there were labels do not name them.
    if options.get("labels"):
        parts.append(f"labels {options['labels']:g} of {options['label_places']}, τ = {options['temperature']:g}")
    return ", ".join(parts)
