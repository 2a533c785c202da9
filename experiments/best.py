"""The strongest student of width 10: trained by its preset, taken apart, and asked what a language model's lists add.

    python -m experiments.best --data released:PATH:ML --seeds 5 --out runs/best-ml

Rows of the ablation are compared on the validation sessions, where the recipe was found; the finished recipe, its
widths and the rows that ask about lists are reported on test. Every row is kept, and is not trained again.
`--ship FOLDER` writes the recipe's best student for `experiments.serve`.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import tabulate
import tyro

import alkd_jax as alkd
from alkd_jax import evaluation
from alkd_jax.distillation.item_rules import recipe as best
from alkd_jax.distillation.item_rules.recipe import Recipe
from alkd_jax.evaluation import metrics
from alkd_jax.io import write_json
from alkd_jax.training import checkpoints

from .export import write_student
from .pipeline import best_lists, best_rows, best_sessions
from .pipeline.best_rows import Row
from .pipeline.run_folder import RunFolder
from .pipeline.sources import parse_source
from .reporting import comparisons
from .reporting.console import cli_errors, console, training_bar
from .reporting.results import COLUMNS, averaged, cell

NAME = "Best student (width 10)"
GROUPS = ("student", "ablation", "widths", "lists", "sessions")


@dataclasses.dataclass(frozen=True)
class Best:
    """What is asked.

    Attributes:
        data: a data set, see `experiments.pipeline.sources`.
        out: folder.
        seeds: students of every row.
        rows: "student", or more: "ablation", "widths", "lists", "sessions"; "all".
        preset: of the recipe.
        max_steps: of every row that trains item by item; default the recipe's.
        ship: folder for the recipe's student of the best seed on validation; must not be there yet.
        dtype: how its weights are stored: float32, or float16 for half the size.
        seed: of all random numbers.
    """

    data: str
    out: pathlib.Path
    seeds: int = 5
    rows: tuple[str, ...] = ("student",)
    preset: str = "best"
    max_steps: int | None = None
    ship: pathlib.Path | None = None
    dtype: str = "float32"
    seed: int = 0


def rows(groups: Sequence[str], data: str, dataset: alkd.Dataset, recipe: Recipe) -> list[Row]:
    """The rows of these groups, the recipe's own first.

    Raises:
        ValueError: a group is unknown, or there are no recorded lists to ask about.
    """
    unknown = set(groups) - {*GROUPS, "all"}
    if unknown:
        raise ValueError(f"--rows has {sorted(unknown)}; expected some of {', '.join(GROUPS)}, or all")
    wanted = set(GROUPS) if "all" in groups else set(groups)
    if "all" in groups and parse_source(data).kind != "released":
        wanted -= {"lists"}
    found = [best_rows.taught("recipe", recipe, test=True, compared=True)]
    if "ablation" in wanted:
        found += best_rows.ablation(recipe)
    if "widths" in wanted:
        found += [best_rows.taught(f"recipe, width {dim}", recipe, dim=dim, test=True) for dim in (16, 32, 64, 100)]
    if "lists" in wanted:
        found += best_lists.rows(data, dataset, recipe)
    if "sessions" in wanted:
        found += best_sessions.rows(data, dataset, recipe)
    return found


def open_folder(asked: Best, dataset: alkd.Dataset) -> RunFolder:
    """Makes the folder, or takes it up."""
    folder = RunFolder(asked.out, announce=functools.partial(console.print, highlight=False, markup=False))
    folder.open({"data": dataset.fingerprint, "dataset": dataset.name, "seed": asked.seed, "what": "best student"})
    return folder


def make_row(asked: Best, dataset: alkd.Dataset, folder: RunFolder, row: Row) -> None:
    """Trains a row's students and ranks the targets of validation and, where the row may, of test."""

    def work(place: pathlib.Path) -> None:
        key = jax.random.fold_in(jax.random.key(asked.seed), 1)
        with training_bar(f"{row.name} ({asked.seeds} seeds)") as bar:
            model, fitted = row.train(key, dataset, seeds=asked.seeds, progress=bar)
        shown = dataset if row.dataset is None else row.dataset
        splits = {"validation": shown.validation} | ({"test": shown.test} if row.test else {})
        ranks = {
            name: np.stack([out.ranks for out in evaluation.evaluate_seeds(model, fitted.params, split)])
            for name, split in splits.items()
        }
        count = sum(leaf.size for leaf in jax.tree.leaves(fitted.params)) // asked.seeds
        np.savez(place / f"{row.slug}.npz", allow_pickle=False, parameters=count, **ranks)
        checkpoints.save_params(place / f"{row.slug}.params", fitted.params)

    inputs = {"row": row.identity, "seeds": asked.seeds, "test": row.test}
    folder.stage(row.slug, inputs, [f"{row.slug}.npz", f"{row.slug}.params"], work)


def account(asked: Best) -> dict[str, Any]:
    """Makes what is not made yet, and gathers it.

    Returns:
        ``{"dataset", "seeds", "recipe", "rows": {NAME: {"parameters", "validation": {METRIC: …}, "test": …}},
        "tests"}``; the tests compare rows on test, corrected for their number.
    """
    if asked.seeds < 1:
        raise ValueError(f"--seeds is {asked.seeds}; expected at least 1")
    dataset = parse_source(asked.data).load()
    recipe = best.recipe(asked.preset, dataset.name)
    if asked.max_steps is not None:
        recipe = dataclasses.replace(recipe, max_steps=asked.max_steps)
    folder = open_folder(asked, dataset)
    rows_asked = rows(asked.rows, asked.data, dataset, recipe)
    for row in rows_asked:
        make_row(asked, dataset, folder, row)
    return collect_rows(asked, dataset, folder, rows_asked, recipe)


def collect_rows(
    asked: Best, dataset: alkd.Dataset, folder: RunFolder, made: list[Row], recipe: Recipe
) -> dict[str, Any]:
    """The numbers of all rows, from their stored ranks."""
    told: dict[str, dict[str, Any]] = {}
    on_test: dict[str, np.ndarray] = {}
    for row in made:
        with np.load(folder.path / f"{row.slug}.npz") as kept:
            told[row.name] = {"parameters": int(kept["parameters"])}
            for split in ("validation", "test"):
                if split in kept:
                    told[row.name][split] = averaged(kept[split])
            if "test" in kept and row.compared:
                on_test[row.name] = kept["test"]
    yardstick = made[0].name
    pairs = [(name, yardstick) for name in on_test if name != yardstick]
    lists = best_lists.LISTED
    pairs += [(lists, name) for name in on_test if name not in (yardstick, lists) and lists in on_test]
    tests = comparisons.compare_pairs(on_test, pairs, seed=asked.seed)
    about = {"dataset": dataset.name, "seeds": asked.seeds, "recipe": dataclasses.asdict(recipe)}
    return about | {"rows": told, "tests": tests}


def ship(asked: Best, out: pathlib.Path) -> None:
    """Writes the recipe's student, of the seed with the best NDCG@10 on validation."""
    dataset = parse_source(asked.data).load()
    model = best.student(best.recipe(asked.preset, dataset.name), num_items=dataset.num_items)
    with np.load(asked.out / "recipe.npz") as kept:
        quality = [metrics.from_ranks(ranks)["ndcg@10"] for ranks in kept["validation"]]
    seed = int(np.argmax(quality))
    params = checkpoints.restore_params(asked.out / "recipe.params", model, seeds=asked.seeds)
    told = f"{NAME}, seed {seed} (validation ndcg@10 {quality[seed]:.4f})"
    write_student(out, told, model, jax.tree.map(lambda leaf: leaf[seed], params), dataset, dtype=asked.dtype)


def as_markdown(numbers: Mapping[str, Any]) -> str:
    """All rows, and the differences tested on test."""
    rows = [
        [name, f"{row['parameters']:,}"]
        + [cell(row[split][metric]) if split in row else "" for split in ("validation", "test") for metric in SHOWN]
        for name, row in numbers["rows"].items()
    ]
    headings = ["student", "parameters", *(f"{split} {metric}" for split in ("validation", "test") for metric in SHOWN)]
    table = tabulate.tabulate(rows, headings, tablefmt="github", disable_numparse=True)
    if not numbers["tests"]:
        return table
    tests = [
        [f"{test['method']} − {test['against']}", test["metric"], comparisons.marked(test)]
        + [f"[{test['interval'][0]:+.4f}, {test['interval'][1]:+.4f}]"]
        + ["" if p is None else f"{p:.3f}" for p in (test["p_randomisation_holm"], test["p_seeds_holm"])]
        for test in numbers["tests"]
    ]
    headings = ["difference on test", "metric", "", "95 %", "p over sessions (Holm)", "p over seeds (Holm)"]
    return f"{table}\n\n{tabulate.tabulate(tests, headings, tablefmt='github', disable_numparse=True)}"


SHOWN = [column for column in COLUMNS if column.endswith("@10")]


def main() -> None:
    """Entry point."""
    with cli_errors():
        asked = tyro.cli(Best, description=__doc__)
        if asked.ship is not None and asked.ship.exists():
            raise ValueError(f"{asked.ship} exists; expected a new folder")
        numbers = account(asked)
        write_json(asked.out / "best.json", numbers)
        text = as_markdown(numbers)
        (asked.out / "best.md").write_text(text + "\n", encoding="utf-8")
        console.print(text, highlight=False, markup=False, soft_wrap=True)
        console.print(f"{asked.out}/best.json, best.md", highlight=False, markup=False)
        if asked.ship is not None:
            ship(asked, asked.ship)


if __name__ == "__main__":
    main()
