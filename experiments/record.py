"""Keeps finished runs' numbers as small files beside the code, and writes the README's tables from them.

    python -m experiments.record --runs runs/paper/ML-fpmc-clean runs/paper/Games-fpmc-clean --out experiments/results

A file a run: every metric of every method, seed by seed, the differences and their p, the searches for options, and the
seconds of every hop; of a figure its table and picture. No sessions, items or lists. Without `--runs` only the tables
are written anew, `README.md` there.
"""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import tabulate
import tyro

from alkd_jax.io import read_json

from .pipeline.methods import CONTROLS
from .reporting import comparisons, report, tables
from .reporting.console import cli_errors, console
from .reporting.results import cell, search_lines, spread

METRICS = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")
KEPT_OF_A_TEST = ("method", "against", "metric", "difference", "interval", "p_randomisation_holm", "p_seeds_holm")
NOTE = (
    "Mean ± standard deviation over seeds, NDCG by rank. Against the student: * over sessions, † over seeds, p < 0.05 "
    "after Holm's correction over all tests of the run. Controls are slanted. Published NDCGs follow the iteration "
    "order of a hash set and are lower than NDCG by rank; ‡ a number that cannot be what it is called."
)


@dataclasses.dataclass(frozen=True)
class Record:
    """What is kept, and where.

    Attributes:
        runs: folders of finished runs.
        figures: folders of finished figures, as `experiments.fig4_budget` writes them.
        out: folder of the kept numbers.
    """

    runs: tuple[pathlib.Path, ...] = ()
    figures: tuple[pathlib.Path, ...] = ()
    out: pathlib.Path = pathlib.Path("experiments/results")


def condensed(run: pathlib.Path) -> dict[str, Any]:
    """The numbers of a run that are worth keeping.

    Raises:
        ValueError: the run is not finished.
    """
    if not (run / "metrics.json").exists():
        raise ValueError(f"{run} has no metrics.json; expected the folder of a finished run")
    numbers = read_json(run / "metrics.json")
    hops = read_json(run / "hops.json")
    return numbers | {
        "methods": {
            name: {metric: [round(value, 6) for value in column["values"]] for metric, column in columns.items()}
            for name, columns in numbers["methods"].items()
        },
        "tests": [{name: rounded(test[name]) for name in KEPT_OF_A_TEST} for test in numbers["tests"]],
        "seconds": {name: round(hop["seconds"], 1) for name, hop in hops.items()},
        "versions": report.versions(),
    }


def rounded(value: Any) -> Any:
    """The value with six digits where it is a fraction."""
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return round(value, 6) if isinstance(value, float) else value


def as_text(numbers: Mapping[str, Any]) -> str:
    """The numbers as JSON of a line a part, so that a file stays short."""
    lines = [f"{json.dumps(name)}: {json.dumps(part)}" for name, part in numbers.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def kept(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The kept runs, in the order of their names."""
    return [read_json(file) for file in sorted(folder.glob("*.json"))]


def title(run: Mapping[str, Any]) -> str:
    """Which run it is, in words."""
    backbone = tables.PAPER_NAMES[run["backbone"]]
    asked = f"{run['budget']} sessions asked about, {run['selection']} selection"
    return f"{run['dataset']}, {backbone}, {run['mode']} mode: {run['seeds']} seeds, {asked}"


def table(run: Mapping[str, Any]) -> str:
    """A kept run as a Markdown table: ours, the difference from the student, and what was published."""
    backbone = tables.PAPER_NAMES[run["backbone"]]
    theirs = known(run["dataset"], backbone)
    unfitting = tables.published("table1")["unfitting"].get(run["dataset"], {}).get(backbone, [])
    tests = {
        test["method"]: test for test in run["tests"] if (test["against"], test["metric"]) == ("Student", "recall@10")
    }
    rows = []
    for name, columns in run["methods"].items():
        numbers = theirs.get(name, {})
        rows.append(
            [f"*{name}*" if name in CONTROLS else name]
            + [cell(spread(columns[metric])) for metric in METRICS]
            + [comparisons.marked(tests.get(name)).strip()]
            + [tables.printed(numbers, metric, unfits=name in unfitting) for metric in ("recall@10", "ndcg@10")]
        )
    headings = ["method", *METRICS, "recall@10 − Student", "published recall@10", "published ndcg@10"]
    return tabulate.tabulate(rows, headings, tablefmt="pipe", disable_numparse=True, colalign=["left"] + ["right"] * 7)


def known(dataset: str, backbone: str) -> dict[str, Any]:
    """The published numbers of both tables, by method."""
    both = (tables.published(name).get(dataset, {}).get(backbone, {}) for name in ("table2", "table1"))
    return {method: numbers for one in both for method, numbers in one.items()}


SUMMED = ("Student", "Teacher", "Random", "ALKDRec", "Co-occurrence lists", "Session-kNN")


def summary(runs: Sequence[Mapping[str, Any]]) -> str:
    """All runs in clean mode as one Markdown table: recall@10 of the methods that tell most, two differences tested."""
    rows = []
    for run in (run for run in runs if run["mode"] == "clean"):
        tests = {(test["method"], test["against"]): test for test in run["tests"] if test["metric"] == "recall@10"}
        rows.append(
            [f"{run['dataset']}, {tables.PAPER_NAMES[run['backbone']]}", str(run["seeds"])]
            + [cell(spread(run["methods"][name]["recall@10"])) if name in run["methods"] else "" for name in SUMMED]
            + [comparisons.marked(tests.get(("ALKDRec", other))).strip() for other in ("Student", "Random")]
        )
    headings = ["recall@10", "seeds", *SUMMED, "ALKDRec − Student", "ALKDRec − Random"]
    return tabulate.tabulate(rows, headings, tablefmt="pipe", disable_numparse=True, colalign=["left"] + ["right"] * 9)


def keep_figure(folder: pathlib.Path, out: pathlib.Path) -> None:
    """Copies a figure's table and picture, under its folder's name.

    Raises:
        ValueError: the figure is not finished.
    """
    out.mkdir(parents=True, exist_ok=True)
    for kind in ("md", "svg"):
        found = sorted(folder.glob(f"fig*.{kind}"))
        if len(found) != 1:
            raise ValueError(f"{folder} has {len(found)} files fig*.{kind}; expected the folder of a finished figure")
        shutil.copyfile(found[0], out / f"{folder.name}.{kind}")


def figure_parts(folder: pathlib.Path) -> list[str]:
    """Every kept figure: its name, its picture, its table."""
    parts = []
    for table in sorted(folder.glob("*.md")):
        picture = f"![{table.stem}]({folder.name}/{table.stem}.svg)"
        parts += [f"## {table.stem}", picture, table.read_text(encoding="utf-8").strip()]
    return parts


def page(folder: pathlib.Path) -> str:
    """All that is kept as one page of Markdown."""
    runs = kept(folder)
    parts = ["# Results", "Written by `python -m experiments.record`.", NOTE, summary(runs)]
    for run in runs:
        minutes = sum(run["seconds"].values()) / 60
        parts += [f"## {title(run)}", table(run), f"{minutes:.0f} minutes. {run['versions']}"]
        if lines := search_lines(run):
            parts.append("\n".join(["Options chosen on validation:", "", *(f"- {line}" for line in lines)]))
    return "\n\n".join([*parts, *figure_parts(folder / "figures")]) + "\n"


def main() -> None:
    """Entry point."""
    with cli_errors():
        asked = tyro.cli(Record, description=__doc__)
        every = {run.name: condensed(run) for run in asked.runs}
        asked.out.mkdir(parents=True, exist_ok=True)
        for name, numbers in every.items():
            (asked.out / f"{name}.json").write_text(as_text(numbers), encoding="utf-8")
        for figure in asked.figures:
            keep_figure(figure, asked.out / "figures")
        (asked.out / "README.md").write_text(page(asked.out), encoding="utf-8")
        console.print(f"{asked.out}/README.md", highlight=False, markup=False)


if __name__ == "__main__":
    main()
