"""Trains the strongest student of width 10, variants with one part changed, and variants with a language model's lists.

    python -m experiments.best --data released:PATH:ML --seeds 5 --out runs/best-ml

The variants are the rows of a table. Rows with a part changed are compared on the validation sessions, on which the
recipe was chosen; the recipe, its widths and the rows with lists are also reported on the test sessions. A row that is
stored in the folder is not trained again; one of other options is replaced only with `--overwrite`.

`--ship FOLDER` exports the recipe's best student for `experiments.serve`.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import jax
import numpy as np
import tabulate

import alkd_jax as alkd
from alkd_jax.checks import check_at_least
from alkd_jax.data.readers import registry
from alkd_jax.distillation import item_rules
from alkd_jax.distillation.item_rules import Recipe
from alkd_jax.distillation.item_rules.recipe import PRESETS
from alkd_jax.errors import markdown
from alkd_jax.evaluation import Protocol, metrics
from alkd_jax.io import open_arrays, save_arrays, to_json, write_texts
from alkd_jax.training import checkpoints

from .export import write_student
from .pipeline import best_lists, best_rows, best_sessions, light_options, options
from .pipeline.best_rows import Row
from .pipeline.command_line import parse
from .pipeline.console import cli_errors, print_line, print_lines, training_bar
from .pipeline.protocols import (
    check_protocol,
    clusters,
    protocol_inputs,
    protocol_queries,
    rank_by_protocol,
    stored_protocol,
)
from .pipeline.run_folder import RunFolder
from .pipeline.stage_records import checked_output
from .reporting import comparisons
from .reporting.results import COLUMNS, format_cell, metrics_over_seeds

NAME = "Best student (width 10)"
GROUPS = ("student", "ablation", "widths", "lists", "sessions")
SHOWN_METRICS = [column for column in COLUMNS if column.endswith("@10")]


@dataclasses.dataclass(frozen=True)
class Best:
    """Options of the command.

    Attributes:
        out: folder of the rows.
        seeds: number of students trained for each row.
        rows: groups of rows: student, ablation, widths, lists, sessions, or all; the recipe's row is always there.
        preset: name of the recipe.
        max_steps: training steps of every row that is trained on rules; default the recipe's.
        ship: new folder to which the recipe's student is exported, of the best seed on the validation sessions.
        seed: seed of all random numbers.
    """

    data: options.Data
    out: pathlib.Path
    seeds: int = 5
    rows: Annotated[tuple[str, ...], light_options.choices((*GROUPS, "all"), several=True)] = ("student",)
    preset: Annotated[str, light_options.choices(PRESETS)] = "best"
    seen: options.Seen = "exclude"
    targets: options.Targets = "last"
    max_steps: int | None = None
    ship: pathlib.Path | None = None
    dtype: options.WeightsType = "float32"
    seed: int = 0
    overwrite: options.Overwrite = False

    @property
    def protocol(self) -> Protocol:
        """How the validation and the test sessions are ranked."""
        return Protocol(seen=self.seen, targets=self.targets)


def make_rows(groups: Sequence[str], data: str, dataset: alkd.Dataset, recipe: Recipe) -> list[Row]:
    """Makes the rows of some groups; the first row is the recipe's.

    Args:
        groups: names of groups.
        data: source of the dataset.
        dataset: the dataset.
        recipe: the recipe.

    Raises:
        ValueError: a group is unknown, or the group "lists" is named and the source has no recorded lists.
    """
    unknown = set(groups) - {*GROUPS, "all"}
    if unknown:
        raise ValueError(f"--rows has {sorted(unknown)}; expected some of {', '.join(GROUPS)}, or all")
    selected = set(GROUPS) if "all" in groups else set(groups)
    if "all" in groups and registry.parse_source(data).kind != "released":
        selected -= {"lists"}
    rows = [best_rows.rules_row("recipe", recipe, test=True, compared=True)]
    if "ablation" in selected:
        rows += best_rows.ablation_rows(recipe)
    if "widths" in selected:
        rows += [best_rows.rules_row(f"recipe, width {dim}", recipe, dim=dim, test=True) for dim in (16, 32, 64, 100)]
    if "lists" in selected:
        rows += best_lists.list_rows(data, dataset, recipe)
    if "sessions" in selected:
        rows += best_sessions.session_rows(data, dataset, recipe)
    return rows


def open_folder(args: Best, dataset: alkd.Dataset) -> RunFolder:
    """Makes the folder, or opens an existing one of the same dataset and seed."""
    folder = RunFolder(args.out, print_line, overwrite=args.overwrite)
    folder.open({"data": dataset.fingerprint, "dataset": dataset.name, "seed": args.seed, "what": "best student"})
    return folder


def row_inputs(args: Best, row: Row) -> dict[str, Any]:
    """Returns what a stored row depends on."""
    return {"row": row.identity, "seeds": args.seeds, "test": row.test} | protocol_inputs(args.protocol)


def train_row(args: Best, dataset: alkd.Dataset, folder: RunFolder, row: Row) -> None:
    """Trains a row's students, and stores the ranks of the validation targets and, if `row.test`, the test targets."""

    def write_outputs(folder: pathlib.Path) -> None:
        key = jax.random.fold_in(jax.random.key(args.seed), 1)
        with training_bar(f"{row.name} ({args.seeds} seeds)") as bar:
            model, fitted = row.train(key, dataset, seeds=args.seeds, progress=bar)
        evaluated = dataset if row.dataset is None else row.dataset
        ranks = {
            split: np.stack(
                [out.ranks for out in rank_by_protocol(model, fitted.params, evaluated, args.protocol, split)]
            )
            for split in (("validation", "test") if row.test else ("validation",))
        }
        num_parameters = sum(leaf.size for leaf in jax.tree.leaves(fitted.params)) // args.seeds
        save_arrays(folder / f"{row.slug}.npz", parameters=num_parameters, **ranks)
        checkpoints.save_params(folder / f"{row.slug}.params", fitted.params)

    folder.run_stage(row.slug, row_inputs(args, row), [f"{row.slug}.npz", f"{row.slug}.params"], write_outputs)


def train_and_collect(args: Best) -> dict[str, Any]:
    """Trains the rows that are not stored yet, and collects the numbers of all rows.

    Returns:
        ``{"dataset", "seeds", "recipe", "protocol", "rows": {NAME: {"parameters", "validation": {METRIC: …}, "test":
        …}}, "tests"}``; the tests compare rows on the test sessions and are corrected for their number.
    """
    check_at_least(1, **{"--seeds": args.seeds})
    check_protocol(args.seen, args.targets)
    dataset = registry.read(args.data)
    recipe = item_rules.recipe_of(args.preset, dataset.name)
    if args.max_steps is not None:
        recipe = dataclasses.replace(recipe, max_steps=args.max_steps)
    folder = open_folder(args, dataset)
    rows = make_rows(args.rows, args.data, dataset, recipe)
    folder.refuse_replacing({row.slug: row_inputs(args, row) for row in rows})
    for row in rows:
        train_row(args, dataset, folder, row)
    return collect_rows(args, dataset, folder, rows, recipe)


def collect_rows(
    args: Best, dataset: alkd.Dataset, folder: RunFolder, rows: list[Row], recipe: Recipe
) -> dict[str, Any]:
    """Computes the numbers of all rows from their stored ranks; see :func:`train_and_collect`."""
    results: dict[str, dict[str, Any]] = {}
    test_ranks: dict[str, np.ndarray] = {}
    for row in rows:
        with open_arrays(checked_output(folder.path, f"{row.slug}.npz")) as stored:
            results[row.name] = {"parameters": int(stored["parameters"])}
            for split in ("validation", "test"):
                if split in stored:
                    results[row.name][split] = metrics_over_seeds(stored[split])
            if "test" in stored and row.compared:
                test_ranks[row.name] = stored["test"]
    recipe_name, lists_name = rows[0].name, best_lists.LLM_LISTS
    pairs = [(name, recipe_name) for name in test_ranks if name != recipe_name]
    if lists_name in test_ranks:
        pairs += [(lists_name, name) for name in test_ranks if name not in (recipe_name, lists_name)]
    session_id = clusters(args.protocol, protocol_queries(dataset, args.protocol).session_id)
    tests = comparisons.compare_pairs(test_ranks, pairs, seed=args.seed, session_id=session_id)
    header = {"dataset": dataset.name, "seeds": args.seeds, "recipe": dataclasses.asdict(recipe)}
    header["protocol"] = stored_protocol(args.protocol)
    return header | {"rows": results, "tests": tests}


def export_student(args: Best, out: pathlib.Path) -> None:
    """Exports the recipe's student, of the seed with the best NDCG@10 on the validation sessions."""
    dataset = registry.read(args.data)
    recipe = item_rules.recipe_of(args.preset, dataset.name)
    model = item_rules.create_student(recipe, num_items=dataset.num_items)
    with open_arrays(checked_output(args.out, "recipe.npz")) as stored:
        ndcg = [metrics.from_ranks(ranks)["ndcg@10"] for ranks in stored["validation"]]
    seed = int(np.argmax(ndcg))
    params = checkpoints.restore_params(checked_output(args.out, "recipe.params"), model, seeds=args.seeds)
    summary = f"{NAME}, seed {seed} (validation ndcg@10 {ndcg[seed]:.4f})"
    write_student(out, summary, model, jax.tree.map(lambda leaf: leaf[seed], params), dataset, dtype=args.dtype)


def as_markdown(numbers: Mapping[str, Any]) -> str:
    """Formats the rows, and the differences on the test sessions, as tables."""
    rows = [
        [markdown(name), f"{row['parameters']:,}"]
        + [
            format_cell(row[split][metric]) if split in row else ""
            for split in ("validation", "test")
            for metric in SHOWN_METRICS
        ]
        for name, row in numbers["rows"].items()
    ]
    headings = [
        "student",
        "parameters",
        *(f"{split} {metric}" for split in ("validation", "test") for metric in SHOWN_METRICS),
    ]
    table = tabulate.tabulate(rows, headings, tablefmt="github", disable_numparse=True)
    table += f"\n\nProtocol: {numbers['protocol']['name']}."
    if not numbers["tests"]:
        return table
    tests = [
        [markdown(f"{test['method']} − {test['against']}"), test["metric"], comparisons.format_difference(test)]
        + [f"[{test['interval'][0]:+.4f}, {test['interval'][1]:+.4f}]"]
        + ["" if p is None else f"{p:.3f}" for p in (test["p_randomization_holm"], test["p_seeds_holm"])]
        for test in numbers["tests"]
    ]
    headings = ["difference on test", "metric", "", "95 %", "p over sessions (Holm)", "p over seeds (Holm)"]
    return f"{table}\n\n{tabulate.tabulate(tests, headings, tablefmt='github', disable_numparse=True)}"


def main() -> None:
    """Runs the command."""
    with cli_errors():
        args = parse(Best, "best", __doc__)
        if args.ship is not None and args.ship.exists():
            raise ValueError(f"{args.ship} exists; expected a new folder")
        numbers = train_and_collect(args)
        text = as_markdown(numbers)
        write_texts({args.out / "best.json": to_json(numbers), args.out / "best.md": text + "\n"})
        print_lines(text)
        print_line(f"{args.out}/best.json, best.md")
        if args.ship is not None:
            export_student(args, args.ship)


if __name__ == "__main__":
    main()
