"""Everything in one table: the paper's numbers, training-free recommenders, teachers, students, and our best student.

    python -m experiments.leaderboard --data released:PATH:ML --json leaderboard.json

Trains what it needs in `--out`, where a second call finds it again; `--runs` adds finished runs of `reproduce`.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import jax
import numpy as np
import tabulate
import tyro

from alkd_jax.distillation.item_rules import recipe as best
from alkd_jax.io import write_json
from alkd_jax.llm.pricing import PRICES
from alkd_jax.models import Encoder, Params
from alkd_jax.training import checkpoints
from alkd_jax.types import Dataset

from . import efficiency
from .best import NAME, Best, account, open_folder
from .pipeline.methods import SELECTIONS, TUNED, role_of, trained_methods
from .pipeline.run import first_seed
from .pipeline.settings import Settings
from .pipeline.sources import parse_source
from .pipeline.stages import Run, rank_by_counting
from .reporting import comparisons
from .reporting.console import cli_errors, console
from .reporting.results import averaged, cell
from .reporting.tables import PAPER_NAMES, published
from .reproduce import run_pipeline

METRICS = ("recall@5", "ndcg@5", "recall@10", "ndcg@10")
PAID = (*SELECTIONS, TUNED, "DLLM2Rec", "Shuffled lists")
"""Methods that learn from an LLM's lists."""
HEADINGS = ("method", *METRICS, "parameters", "bytes", "µs a session", "LLM, USD")


@dataclasses.dataclass(frozen=True)
class Leaderboard:
    """What is asked.

    Attributes:
        data: a data set, see `experiments.pipeline.sources`.
        json: where the numbers go.
        out: folder of the runs; default `runs/leaderboard`.
        backbones: whose teachers, students and ALKDRec students are trained here.
        runs: folders of finished runs of the same data to show as well.
        seeds: of everything that is trained here.
        max_steps: training steps at most, of everything that is trained here.
        prompt_tokens: of one question to the language model; by default the paper's account.
        answer_tokens: of one answer.
        teacher: who ranks the sessions chosen here, see `pipeline.settings`; by default the data's own, which prepared
            data do not have.
        rankings: file of recorded lists that replay reads.
    """

    data: str
    json: pathlib.Path | None = None
    out: pathlib.Path = pathlib.Path("runs/leaderboard")
    backbones: tuple[str, ...] = ("fpmc",)
    runs: tuple[pathlib.Path, ...] = ()
    seeds: int = 5
    max_steps: int | None = None
    prompt_tokens: int = 1270
    answer_tokens: int = 150
    teacher: str | None = None
    rankings: pathlib.Path | None = None


def trained_here(asked: Leaderboard, place: pathlib.Path) -> list[Settings]:
    """The runs of the pipeline that the leaderboard makes, one a backbone; checked.

    Raises:
        ValueError: a setting is one that no hop can use.
    """
    found = [
        Settings(
            data=asked.data,
            backbone=backbone,
            out=place / backbone,
            seeds=asked.seeds,
            selection="released" if parse_source(asked.data).kind == "released" else "own",
            max_steps=asked.max_steps or Settings.max_steps,
            teacher=asked.teacher,
            rankings=asked.rankings,
        )
        for backbone in asked.backbones
    ]
    for settings in found:
        settings.check()
    return found


def board(asked: Leaderboard) -> dict[str, Any]:
    """Makes what is not made yet, and gathers it.

    Returns:
        ``{"dataset", "seeds", "methods": {NAME: {METRIC: {"mean", "std", "values"}, "parameters", "bytes",
        "us_per_session", "llm_usd"}}, "published": {NAME: {METRIC: value}}, "tests"}``; the tests compare our best
        student with every other method, over the test sessions and as many seeds as all have.

    Raises:
        ValueError: a run is of other data, or a setting is one that no hop can use.
    """
    trained_here(asked, asked.out)
    dataset = parse_source(asked.data).load()
    place = asked.out / dataset.name
    ours = Best(asked.data, place / "best", seeds=asked.seeds, max_steps=asked.max_steps)
    account(ours)
    counted = open_folder(ours, dataset)
    rank_by_counting(dataset, counted)
    folders = list(asked.runs)
    for settings in trained_here(asked, place):
        run_pipeline(settings)
        folders.append(settings.out)
    runs = [Run.reopen(folder, readonly=True) for folder in folders]
    for run in runs:
        if run.dataset.fingerprint != dataset.fingerprint:
            raise ValueError(f"{run.folder.path} is a run on {run.dataset.name}; expected one on the same data")
    methods, ranks = our_best(ours, dataset)
    with np.load(counted.path / "neighbor_ranks.npz") as archive:
        by_counting = {name: archive[name][None] for name in archive}
    methods |= {name: averaged(of_method) for name, of_method in by_counting.items()}
    ranks |= by_counting
    for run in runs:
        found, their_ranks = of_run(asked, run)
        methods |= found
        ranks |= their_ranks
    common = min(len(of_method) for of_method in ranks.values() if len(of_method) > 1 or ours.seeds == 1)
    ranks = {name: of_method[:common] for name, of_method in ranks.items()}
    tests = comparisons.compare_pairs(ranks, [(NAME, other) for other in ranks if other != NAME], seed=0)
    about = {"dataset": dataset.name, "seeds": asked.seeds}
    return about | {"methods": methods, "published": of_paper(dataset.name), "tests": tests}


def our_best(ours: Best, dataset: Dataset) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The row of our best student."""
    recipe = best.recipe(ours.preset, dataset.name)
    with np.load(ours.out / "recipe.npz") as kept:
        ranks = kept["test"]
    model = best.student(recipe, num_items=dataset.num_items)
    params = first_seed(checkpoints.restore_params(ours.out / "recipe.params", model, seeds=ours.seeds))
    row = averaged(ranks) | cost(dataset.test, model, params) | {"llm_usd": 0.0}
    return {NAME: row}, {NAME: ranks}


def of_run(asked: Leaderboard, run: Run) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The rows of a run's trained models, named with their backbone."""
    with np.load(run.folder.path / "ranks.npz") as archive:
        ranks = dict(archive)
    places = trained_methods(run.settings.asked_methods)
    backbone = PAPER_NAMES.get(run.settings.backbone, run.settings.backbone)
    price = PRICES["gpt-4-turbo-2024-04-09"]
    question = (price.input * asked.prompt_tokens + price.output * asked.answer_tokens) / 10**6
    rows = {}
    for method, place in places.items():
        costs = cost(run.dataset.test, run.model(role_of(method)), first_seed(run.params(place)))
        paid = Decimal(run.settings.num_asked) * question if method in PAID else Decimal(0)
        rows[f"{method}, {backbone}"] = averaged(ranks[method]) | costs | {"llm_usd": float(round(paid, 2))}
    return rows, {f"{method}, {backbone}": ranks[method] for method in places}


def cost(test: Any, model: Encoder, params: Params) -> dict[str, Any]:
    """Parameters, bytes and time of a model."""
    leaves = jax.tree.leaves(params)
    return {
        "parameters": sum(leaf.size for leaf in leaves),
        "bytes": sum(leaf.nbytes for leaf in leaves),
        "us_per_session": 1e6 * efficiency.time_to_recommend(test, model, params, 10),
    }


def of_paper(dataset: str) -> dict[str, Any]:
    """The published numbers of both tables; their NDCG is not by rank."""
    found = {}
    for table in ("table1", "table2"):
        for backbone, methods in published(table).get(dataset, {}).items():
            for method, numbers in methods.items():
                found[f"{method}, {backbone} (published)"] = numbers
    return found


def as_markdown(numbers: Mapping[str, Any]) -> str:
    """The table, best recall first, published numbers among ours."""
    ours = [(row["recall@10"]["mean"], name, row) for name, row in numbers["methods"].items()]
    theirs = [(row["recall@10"], name, row) for name, row in numbers["published"].items() if "recall@10" in row]
    rows = []
    for _, name, row in sorted([*ours, *theirs], key=lambda entry: (-entry[0], entry[1])):
        if name in numbers["published"]:
            printed = [f"{row[m]:.4f}{' *' * ('ndcg' in m)}" if m in row else "" for m in METRICS]
            rows.append([name, *printed, "", "", "", ""])
            continue
        told = [f"{row[what]:,.0f}" if what in row else "" for what in ("parameters", "bytes", "us_per_session")]
        money = f"{row['llm_usd']:.2f}" if "llm_usd" in row else "0.00"
        rows.append([f"**{name}**" if name == NAME else name, *(cell(row[m]) for m in METRICS), *told, money])
    table = tabulate.tabulate(rows, HEADINGS, tablefmt="github", disable_numparse=True)
    return f"{table}\n\n\\* published; its NDCG is of the iteration order of a hash set and cannot be compared."


def write(asked: Leaderboard, numbers: Mapping[str, Any]) -> None:
    """Writes `leaderboard.md` and `.json`, and the file asked for."""
    place = asked.out / numbers["dataset"]
    (place / "leaderboard.md").write_text(as_markdown(numbers) + "\n", encoding="utf-8")
    write_json(place / "leaderboard.json", numbers)
    if asked.json is not None:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(asked.json, numbers)


def main() -> None:
    """Entry point."""
    with cli_errors():
        asked = tyro.cli(Leaderboard, description=__doc__)
        trained_here(asked, asked.out)
        # What takes minutes is written before what may take an hour.
        for part in dict.fromkeys((dataclasses.replace(asked, backbones=(), runs=()), asked)):
            numbers = board(part)
            write(asked, numbers)
        console.print(as_markdown(numbers), highlight=False, markup=False, soft_wrap=True)
        console.print(f"{asked.json or asked.out / numbers['dataset'] / 'leaderboard.json'}", highlight=False)


if __name__ == "__main__":
    main()
