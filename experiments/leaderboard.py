"""One table of published results, training-free recommenders, teachers, students, and the best student of this library.

    python -m experiments.leaderboard --data released:PATH:ML --json leaderboard.json

Models are trained in `--out`; a second call with the same folder reuses them. `--runs` adds finished runs of
`reproduce`. With `--training-free` nothing is trained: the table has the training-free recommenders alone.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import tabulate

from alkd_jax.data.readers import registry
from alkd_jax.distillation import item_rules
from alkd_jax.errors import markdown
from alkd_jax.evaluation import Protocol
from alkd_jax.io import open_arrays, read_json, save_arrays, to_json, write_json, write_texts
from alkd_jax.llm.pricing import PRICES
from alkd_jax.models import Encoder, Params
from alkd_jax.registry import path_safe
from alkd_jax.training import checkpoints
from alkd_jax.types import Dataset

from . import efficiency
from .best import NAME, Best, open_folder, train_and_collect
from .pipeline import dataset_checks, options
from .pipeline.command_line import parse
from .pipeline.console import cli_errors, print_line, print_lines
from .pipeline.list_metrics import list_metrics
from .pipeline.methods import METHODS, role_of, trained_methods
from .pipeline.protocols import (
    check_protocol,
    clusters,
    protocol_inputs,
    protocol_queries,
    rank_by_protocol,
    stored_protocol,
)
from .pipeline.run import first_seed
from .pipeline.run_folder import RunFolder
from .pipeline.settings import Settings, Teacher
from .pipeline.stage_records import checked_output
from .pipeline.stages import Run
from .pipeline.teachers import TEACHERS, title_of
from .pipeline.training_free import rank_training_free
from .reporting import comparisons, training_free_rows
from .reporting.results import format_cell, format_tied, row_of
from .reporting.tables import backbone_title, published_results
from .reproduce import run_pipeline

METRICS = ("recall@5", "ndcg@5", "recall@10", "ndcg@10")
COVERAGE = "coverage@20"
HEADINGS = ("method", *METRICS, COVERAGE, "tied targets", "parameters", "bytes", "µs a session", "LLM, USD", "lists")


@dataclasses.dataclass(frozen=True)
class Leaderboard:
    """Options of the command.

    Attributes:
        json: file for the results, in addition to those in `out`.
        out: folder of the runs; default `runs/leaderboard`.
        runs: folders of finished runs on the same data and by the same protocol, whose models are added to the table.
        training_free: rank the test targets by the training-free recommenders alone; options of models have no effect.
        max_steps: the largest number of training steps of every model that is trained.
    """

    data: options.Data
    json: pathlib.Path | None = None
    out: pathlib.Path = pathlib.Path("runs/leaderboard")
    backbones: options.Backbones = ("fpmc",)
    runs: tuple[pathlib.Path, ...] = ()
    training_free: bool = False
    seen: options.Seen = "exclude"
    targets: options.Targets = "last"
    seeds: options.Seeds = 5
    max_steps: int | None = None
    budget: options.Budget = None
    prompt_tokens: options.PromptTokens = 1270
    answer_tokens: options.AnswerTokens = 150
    teacher: Teacher = None
    rankings: options.RankingsFile = None
    overwrite: options.Overwrite = False

    @property
    def protocol(self) -> Protocol:
        """How the test sessions are evaluated."""
        return Protocol(seen=self.seen, targets=self.targets)


def pipeline_settings(args: Leaderboard, folder: pathlib.Path) -> list[Settings]:
    """Returns the checked settings of the pipeline runs, one for each backbone; none without trained models.

    Raises:
        ValueError: a setting is invalid.
    """
    if args.training_free and args.runs:
        raise ValueError("--training-free and --runs go not together; expected one of them")
    all_settings = [
        Settings(
            data=args.data,
            backbone=backbone,
            out=folder / path_safe(backbone),
            seeds=args.seeds,
            seen=args.seen,
            targets=args.targets,
            max_steps=args.max_steps or Settings.max_steps,
            budget=args.budget,
            teacher=args.teacher,
            rankings=args.rankings,
            overwrite=args.overwrite,
        )
        for backbone in (() if args.training_free else args.backbones)
    ]
    check_protocol(args.seen, args.targets)
    dataset_checks.check_all(all_settings)
    return all_settings


def build_leaderboard(args: Leaderboard) -> dict[str, Any]:
    """Trains the models that are not yet in the folder, and collects all results.

    Returns:
        ``{"dataset", "seeds", "protocol", "methods": {NAME: {METRIC: {"mean", "std", "values"}, "parameters", "bytes",
        "us_per_session", "llm_usd", "lists"}}, "published": {NAME: {METRIC: value}}, "tests"}``; "lists" says
        whose lists a method learns from, and "llm_usd" is left out where their cost is not known; the tests compare the
        best student with every other method, over the test sessions and as many seeds as every method has. With
        ``training_free``, what :func:`experiments.reporting.training_free_rows.build` returns.

    Raises:
        ValueError: a run is on other data, or a setting is invalid.
    """
    pipeline_settings(args, args.out)
    if args.training_free:
        return training_free_rows.build(registry.read(args.data), args.out, args.protocol, overwrite=args.overwrite)
    dataset = registry.read(args.data)
    folder = args.out / dataset.name
    best_args = Best(args.data, folder / "best", seeds=args.seeds, max_steps=args.max_steps, overwrite=args.overwrite)
    train_and_collect(best_args)
    best_folder = open_folder(best_args, dataset)
    rank_training_free(dataset, best_folder, args.protocol)
    folders = list(args.runs)
    for settings in pipeline_settings(args, folder):
        run_pipeline(settings)
        folders.append(settings.out)
    runs = [Run.reopen(folder, readonly=True) for folder in folders]
    for run in runs:
        if run.dataset.fingerprint != dataset.fingerprint:
            raise ValueError(f"dataset of {run.folder.path} is {run.dataset.name}; expected the same data as --data")
        if run.settings.protocol != args.protocol:
            names = run.settings.protocol.name, args.protocol.name
            raise ValueError("protocol of {} is {}; expected {}".format(run.folder.path, *names))
    methods, ranks = best_student_row(best_args, dataset, best_folder, args.protocol)
    rows, training_free_ranks = training_free_rows.load(best_folder)
    methods |= rows
    ranks |= training_free_ranks
    for run in runs:
        rows, run_ranks = run_rows(args, run)
        methods |= rows
        ranks |= run_ranks
    seeds_of_methods = [len(method_ranks) for method_ranks in ranks.values()]
    num_seeds = min(number for number in seeds_of_methods if number > 1 or best_args.seeds == 1)
    ranks = {name: method_ranks[:num_seeds] for name, method_ranks in ranks.items()}
    queries = protocol_queries(dataset, args.protocol)
    pairs = [(NAME, other) for other in ranks if other != NAME]
    tests = comparisons.compare_pairs(ranks, pairs, seed=0, session_id=clusters(args.protocol, queries.session_id))
    header = {"dataset": dataset.name, "seeds": args.seeds, "protocol": stored_protocol(args.protocol)}
    published = published_rows(dataset.name) if args.protocol == Protocol() else {}
    return header | {"methods": methods, "published": published, "tests": tests}


def best_student_row(
    best_args: Best, dataset: Dataset, folder: RunFolder, protocol: Protocol
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns the results and the ranks of the best student, by its name, after a stage that ranks the test targets."""
    recipe = item_rules.recipe_of(best_args.preset, dataset.name)
    model = item_rules.create_student(recipe, num_items=dataset.num_items)
    stored_at = checked_output(best_args.out, "recipe.params")
    params = checkpoints.restore_params(stored_at, model, seeds=best_args.seeds)

    def write_outputs(folder: pathlib.Path) -> None:
        per_seed = rank_by_protocol(model, params, dataset, protocol, lists=True)
        save_arrays(
            folder / "recipe.test.npz",
            ranks=np.stack([result.ranks for result in per_seed]),
            tied=np.array([result.num_tied for result in per_seed]),
        )
        write_json(folder / "recipe.lists.json", list_metrics(dataset, [result.exposure for result in per_seed]))

    outputs = ["recipe.test.npz", "recipe.lists.json"]
    folder.run_stage("recipe-test", protocol_inputs(protocol), outputs, write_outputs, after=["recipe"])
    with open_arrays(checked_output(best_args.out, "recipe.test.npz")) as archive:
        ranks, tied = archive["ranks"], archive["tied"].tolist()
    of_lists = read_json(checked_output(best_args.out, "recipe.lists.json"))
    row = row_of(ranks, tied, of_lists) | model_costs(dataset.test, model, first_seed(params)) | {"llm_usd": 0.0}
    return {NAME: row}, {NAME: ranks}


def run_rows(args: Leaderboard, run: Run) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns the results and the ranks of a run's models, by method and backbone."""
    with open_arrays(checked_output(run.folder.path, "ranks.npz")) as archive:
        ranks = dict(archive)
    tied, of_lists = (read_json(checked_output(run.folder.path, name)) for name in ("tied.json", "list_metrics.json"))
    method_names = run.settings.method_names
    method_folders = trained_methods(method_names)
    backbone, question = backbone_title(run.settings.backbone), usd_per_list(args, run)
    rows = {}
    for method, folder in method_folders.items():
        costs = model_costs(run.dataset.test, run.model(role_of(method)), first_seed(run.params(folder)))
        num_lists = run.settings.resolved_budget if method in method_names and METHODS.find(method).is_paid else 0
        name = f"{method}, {backbone}"
        rows[name] = row_of(ranks[method], tied[method], of_lists[method]) | costs
        if question is not None or not num_lists:
            rows[name]["llm_usd"] = round((question or 0.0) * num_lists, 2)
        if num_lists:
            rows[name]["lists"] = title_of(run.settings.resolved_teacher)
    return rows, {f"{method}, {backbone}": ranks[method] for method in method_folders}


def usd_per_list(args: Leaderboard, run: Run) -> float | None:
    """Returns the dollars that one list of a run cost: nothing unless a language model gave it.

    Args:
        args: tokens of a question and its answer.
        run: a finished run.

    Returns:
        What was paid on average in this run, the list price for the authors' recorded lists, 0 for lists of no language
        model, and None where it is not known.
    """
    teacher = run.settings.resolved_teacher
    if TEACHERS.find(teacher).asks_llm is False:
        return 0.0
    if teacher == "replay" and run.settings.rankings is None:
        price = PRICES["gpt-4-turbo-2024-04-09"]
        return float((price.input * args.prompt_tokens + price.output * args.answer_tokens) / 10**6)
    report = read_json(checked_output(run.folder.path, "rankings.report.json"))
    return None if report.get("paid_usd") is None else report["paid_usd"] / max(1, report["asked"])


def model_costs(test: Any, model: Encoder, params: Params) -> dict[str, Any]:
    """Returns the number of parameters, the bytes and the time per session of a model."""
    leaves = jax.tree.leaves(params)
    return {
        "parameters": sum(leaf.size for leaf in leaves),
        "bytes": sum(leaf.nbytes for leaf in leaves),
        "us_per_session": 1e6 * efficiency.time_to_recommend(test, model, params, 10),
    }


def published_rows(dataset: str) -> dict[str, Any]:
    """Returns the published results of both tables; their NDCG is not computed from ranks."""
    rows = {}
    for table in ("table1", "table2"):
        for backbone, methods in published_results(table).get(dataset, {}).items():
            for method, numbers in methods.items():
                rows[f"{method}, {backbone} (published)"] = numbers
    return rows


def to_markdown(numbers: Mapping[str, Any]) -> str:
    """Returns the table in descending order of recall@10, measured and published results together."""
    if "published" not in numbers:
        return training_free_rows.table(numbers)
    measured = [(row["recall@10"]["mean"], name, row) for name, row in numbers["methods"].items()]
    published = [(row["recall@10"], name, row) for name, row in numbers["published"].items() if "recall@10" in row]
    rows = []
    for _, name, row in sorted([*measured, *published], key=lambda entry: (-entry[0], entry[1])):
        if name in numbers["published"]:
            printed = [f"{row[m]:.4f}{' *' * ('ndcg' in m)}" if m in row else "" for m in METRICS]
            rows.append([markdown(name), *printed, *[""] * (len(HEADINGS) - 1 - len(METRICS))])
            continue
        costs = [f"{row[column]:,.0f}" if column in row else "" for column in ("parameters", "bytes", "us_per_session")]
        money = f"{row['llm_usd']:.2f}" if "llm_usd" in row else "unknown" if "lists" in row else "0.00"
        rows.append(
            [
                f"**{name}**" if name == NAME else markdown(name),
                *(format_cell(row[m]) for m in (*METRICS, COVERAGE)),
                format_tied(row),
                *costs,
                money,
                markdown(row.get("lists", "")),
            ]
        )
    table = tabulate.tabulate(rows, HEADINGS, tablefmt="github", disable_numparse=True)
    text = f"{table}\n\nProtocol: {numbers['protocol']['name']}."
    if not numbers["published"]:
        return text
    return f"{text}\n\n\\* published; its NDCG is that of the iteration order of a hash set, which is not comparable."


def write(args: Leaderboard, numbers: Mapping[str, Any]) -> None:
    """Writes `leaderboard.md`, `leaderboard.json`, and the file of the option `--json`."""
    folder = args.out / numbers["dataset"]
    texts = {folder / "leaderboard.md": to_markdown(numbers) + "\n", folder / "leaderboard.json": to_json(numbers)}
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        texts[args.json] = to_json(numbers)
    write_texts(texts)


def main() -> None:
    """Entry point."""
    with cli_errors():
        args = parse(Leaderboard, "leaderboard", __doc__)
        pipeline_settings(args, args.out)
        # The results that take minutes are written before those that may take an hour.
        first = args if args.training_free else dataclasses.replace(args, backbones=(), runs=())
        for part_args in dict.fromkeys((first, args)):
            numbers = build_leaderboard(part_args)
            write(args, numbers)
        print_lines(to_markdown(numbers))
        print_line(f"{args.json or args.out / numbers['dataset'] / 'leaderboard.json'}")


if __name__ == "__main__":
    main()
