"""Stores the results of finished runs as small files beside the code, and writes tables from them.

    python -m experiments.record --runs runs/paper/ML-fpmc-clean runs/paper/Games-fpmc-clean --out experiments/results

The file of a run holds every metric of every method and seed, the differences and their p-values, the tuned options,
and the seconds of every stage; a figure is stored as its table and plot. Sessions, items and lists are not stored. The
tables are in `README.md` of the same folder; without `--runs` the command only writes this page again.

Runs of `experiments.train` may be among `--runs`: their files are in the folder `sequential`, with the metrics of every
seed on test and validation, all options, and the counts of the data; runs that differ in seeds alone are one row.

With `--data released:PATH:ML` the command ranks the training-free rows of that dataset's stored results again, by the
rule for ties of today; all other rows stay as they are.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

import tabulate

from alkd_jax.data.readers import registry
from alkd_jax.errors import markdown
from alkd_jax.evaluation import Protocol
from alkd_jax.io import read_json, replacing, write_text, write_texts

from .pipeline import options
from .pipeline.command_line import parse
from .pipeline.console import cli_errors, print_line
from .pipeline.methods import CONTROLS
from .pipeline.run_folder import refuse_earlier_version
from .pipeline.single_run import OPTIONS_FILE
from .pipeline.stage_records import checked_output, read_records
from .pipeline.training_free import training_free_places
from .reporting import beyond_accuracy, comparisons, run_facts, tables, training_records
from .reporting.published import format_published, published_by_method, published_results
from .reporting.recount import recount_leaderboard, recount_results
from .reporting.results import TIED_COUNT, format_cell, format_tied, mean_and_std, tuning_lines

SEQUENTIAL = "sequential"
"""The folder of the stored runs of `experiments.train`."""
METRICS = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")
TEST_FIELDS = ("method", "against", "metric", "difference", "interval", "p_randomization_holm", "p_seeds_holm")
NOTE = (
    "Mean ± standard deviation over seeds, NDCG by rank. Differences from the student: * significant over sessions, † "
    "over seeds, p < 0.05 after Holm's correction over all tests of the run; § not tested, because a training-free "
    "method was ranked again by another rule for ties, and the ranks of the trained models are not stored (the other "
    "tests are corrected for these too). Controls are set in italics. A tied target shares its score with another "
    "ranked item; for trained models of older runs the number is not known. Published NDCGs follow the iteration order "
    "of a hash set and are lower than NDCG by rank; ‡ marks an implausible number."
)


@dataclasses.dataclass(frozen=True)
class Record:
    """The options of the command.

    Attributes:
        runs: folders of finished runs to store.
        figures: folders of finished figures to store, as `fig4_budget` writes them.
        out: folder of the stored results.
    """

    runs: tuple[pathlib.Path, ...] = ()
    figures: tuple[pathlib.Path, ...] = ()
    data: options.AllData = ()
    out: pathlib.Path = pathlib.Path("experiments/results")


def condensed_results(run: pathlib.Path) -> dict[str, Any]:
    """Reads the results of a run, rounded to six digits and without what can be computed from them.

    Raises:
        ValueError: the run is not finished, or an earlier version made it.
    """
    refuse_earlier_version(run)
    if not (run / "metrics.json").exists():
        raise ValueError(f"{run} has no metrics.json; expected the folder of a finished run")
    results = read_json(checked_output(run, "metrics.json"))
    if "protocol" not in results:
        raise ValueError(
            f"{run} was finished before results named their protocol; repeat the command that made it, which ranks the "
            "test sessions again without training"
        )
    stages = read_records(run)
    return results | {
        "methods": {
            name: {metric: [round(value, 6) for value in column["values"]] for metric, column in columns.items()}
            for name, columns in results["methods"].items()
        },
        "tests": [{name: rounded(test[name]) for name in TEST_FIELDS} for test in results["tests"]],
        "seconds": {name: round(stage["seconds"], 1) for name, stage in stages.items()},
        "versions": run_facts.versions(),
    }


def rounded(value: Any) -> Any:
    """Rounds a float, or the floats in a list, to six digits."""
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return round(value, 6) if isinstance(value, float) else value


def as_text(results: Mapping[str, Any]) -> str:
    """Returns the results as JSON with one line for each key, so that a file has few lines."""
    lines = [f"{json.dumps(name)}: {json.dumps(part)}" for name, part in results.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read_results(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Reads the results of the stored runs, in the order of their names."""
    return [read_json(file) for file in sorted(folder.glob("*.json"))]


def title(run: Mapping[str, Any]) -> str:
    """Returns the heading of a run: data, backbone, mode, seeds and selection."""
    backbone = tables.backbone_title(run["backbone"])
    # Results of earlier versions do not say whose lists they have.
    ranked_by = "ranked by the LLM" if run.get("teacher", "replay") == "replay" else f"with lists of: {run['lists']}"
    selection = f"{run['budget']} sessions {markdown(ranked_by)}, {run['selection']} selection"
    return f"{markdown(run['dataset'])}, {markdown(backbone)}, {run['mode']} mode: {run['seeds']} seeds, {selection}"


def table(run: Mapping[str, Any]) -> str:
    """Returns a Markdown table of a run: our results, the difference from the student, and the published results."""
    backbone = tables.backbone_title(run["backbone"])
    published = published_by_method(run["dataset"], backbone)
    implausible = published_results("table1")["implausible"].get(run["dataset"], {}).get(backbone, [])
    tests = {
        test["method"]: test for test in run["tests"] if (test["against"], test["metric"]) == ("Student", "recall@10")
    }
    rows = []
    for name, columns in run["methods"].items():
        numbers = published.get(name, {})
        rows.append(
            [f"*{markdown(name)}*" if name in CONTROLS else markdown(name)]
            + [format_cell(mean_and_std(columns[metric])) for metric in METRICS]
            + [format_tied({TIED_COUNT: mean_and_std(columns[TIED_COUNT])}) if TIED_COUNT in columns else ""]
            + [comparisons.format_difference(tests.get(name)).strip()]
            + [
                format_published(numbers, metric, implausible=name in implausible)
                for metric in ("recall@10", "ndcg@10")
            ]
        )
    headings = ["method", *METRICS, tables.TIED, "recall@10 − Student", "published recall@10", "published ndcg@10"]
    return tabulate.tabulate(rows, headings, tablefmt="pipe", disable_numparse=True, colalign=["left"] + ["right"] * 8)


SUMMARY_METHODS = ("Student", "Teacher", "Random", "ALKDRec", "Co-occurrence lists", "Session-kNN")


def summary(runs: Sequence[Mapping[str, Any]]) -> str:
    """Returns a Markdown table of all runs in clean mode: recall@10 of the main methods, and two tested differences."""
    rows = []
    for run in (run for run in runs if run["mode"] == "clean"):
        tests = {(test["method"], test["against"]): test for test in run["tests"] if test["metric"] == "recall@10"}
        rows.append(
            [markdown(f"{run['dataset']}, {tables.backbone_title(run['backbone'])}"), str(run["seeds"])]
            + [
                format_cell(mean_and_std(run["methods"][name]["recall@10"])) if name in run["methods"] else ""
                for name in SUMMARY_METHODS
            ]
            + [comparisons.format_difference(tests.get(("ALKDRec", other))).strip() for other in ("Student", "Random")]
        )
    headings = ["recall@10", "seeds", *SUMMARY_METHODS, "ALKDRec − Student", "ALKDRec − Random"]
    return tabulate.tabulate(rows, headings, tablefmt="pipe", disable_numparse=True, colalign=["left"] + ["right"] * 9)


def recount(source: str, out: pathlib.Path) -> dict[str | os.PathLike[str], str]:
    """Ranks the training-free rows of a dataset's stored results and leaderboard again.

    Args:
        source: of the dataset, see `alkd_jax.data.readers.registry`.
        out: folder of the stored results.

    Returns:
        File → its new text.
    """
    dataset = registry.read(source)
    places = training_free_places(dataset, Protocol())
    texts: dict[str | os.PathLike[str], str] = {}
    for file in sorted(out.glob("*.json")):
        results = read_json(file)
        if results["dataset"] == dataset.name:
            texts[file] = as_text(recount_results(results, places))
    page = out / "leaderboard" / f"{dataset.name}.md"
    if page.exists():
        texts[page] = recount_leaderboard(page.read_text(encoding="utf-8"), places)
    return texts


def store_figure(folder: pathlib.Path, out: pathlib.Path) -> None:
    """Copies a figure's table and plot; the copies have the name of its folder.

    Raises:
        ValueError: the figure is not finished.
    """
    out.mkdir(parents=True, exist_ok=True)
    for kind in ("md", "svg"):
        files = sorted(folder.glob(f"fig*.{kind}"))
        if len(files) != 1:
            raise ValueError(f"{folder} has {len(files)} files fig*.{kind}; expected the folder of a finished figure")
        with replacing(out / f"{folder.name}.{kind}") as partial:
            shutil.copyfile(files[0], partial)


def figure_parts(folder: pathlib.Path) -> list[str]:
    """Returns name, plot and table of every stored figure."""
    parts = []
    for table in sorted(folder.glob("*.md")):
        plot = f"![{markdown(table.stem)}]({urllib.parse.quote(f'{folder.name}/{table.stem}.svg')})"
        parts += [f"## {markdown(table.stem)}", plot, table.read_text(encoding="utf-8").strip()]
    return parts


def page(folder: pathlib.Path) -> str:
    """Returns all stored results as one Markdown page."""
    runs = read_results(folder)
    parts = ["# Results", "Written by `python -m experiments.record`.", NOTE, beyond_accuracy.NOTE, summary(runs)]
    for run in runs:
        minutes = sum(run["seconds"].values()) / 60
        parts += [
            f"## {title(run)}",
            f"Protocol: {run['protocol']['name']}.",
            table(run),
            f"{minutes:.0f} minutes. {markdown(run['versions'])}",
        ]
        if rows := beyond_accuracy.beyond_accuracy_rows(run["methods"]):
            rows = [[markdown(name), *values] for name, *values in rows]
            parts.append(tabulate.tabulate(rows, beyond_accuracy.HEADINGS, tablefmt="pipe", disable_numparse=True))
        if lines := tuning_lines(run):
            parts.append("\n".join(["Options chosen on validation:", "", *(f"- {markdown(line)}" for line in lines)]))
    parts += figure_parts(folder / "figures")
    parts += training_records.page_parts(folder / SEQUENTIAL, folder / "lineups")
    return "\n\n".join(parts) + "\n"


def store_runs(runs: Sequence[pathlib.Path], out: pathlib.Path) -> None:
    """Writes a file for each run; none where one of the runs is not finished."""
    texts: dict[str | os.PathLike[str], str] = {}
    for run in runs:
        is_single = (run / OPTIONS_FILE).is_file()
        results = training_records.condensed(run) if is_single else condensed_results(run)
        texts[(out / SEQUENTIAL if is_single else out) / f"{run.name}.json"] = as_text(results)
    for file in texts:
        pathlib.Path(file).parent.mkdir(parents=True, exist_ok=True)
    write_texts(texts)


def main() -> None:
    """Runs the command."""
    with cli_errors():
        args = parse(Record, "record", __doc__)
        args.out.mkdir(parents=True, exist_ok=True)
        store_runs(args.runs, args.out)
        for source in args.data:
            write_texts(recount(source, args.out))
        for figure in args.figures:
            store_figure(figure, args.out / "figures")
        write_text(args.out / "README.md", page(args.out))
        print_line(f"{args.out}/README.md")


if __name__ == "__main__":
    main()
