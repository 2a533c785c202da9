"""One table of published results, training-free recommenders, teachers, students, and the best student of this library.

    python -m experiments.leaderboard --data released:PATH:ML --json leaderboard.json

Models are trained in `--out`; a second call with the same folder reuses them. `--runs` adds finished runs of
`reproduce`. With `--training-free` nothing is trained: the table has the training-free recommenders alone. `--lineup
short` or `full` replaces these by counting and linear methods whose options are chosen on validation. With `--by-bytes`
nothing is trained either: the table has the best students of several sizes beside the training-free recommenders;
`--re-ranker` fits a re-ranker of counts and titles first, whose labels these students may have, too.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import numpy as np

from alkd_jax.checks import check_count, check_one_of
from alkd_jax.data.readers import registry
from alkd_jax.distillation import item_rules
from alkd_jax.errors import import_extra
from alkd_jax.evaluation import Protocol
from alkd_jax.io import open_arrays, read_json, save_arrays, to_json, write_json, write_texts
from alkd_jax.llm.price_list import PRICES
from alkd_jax.models import BACKBONES, Encoder, Params
from alkd_jax.registry import path_safe
from alkd_jax.training import checkpoints
from alkd_jax.types import Dataset

from . import efficiency
from .best import NAME, Best, open_folder, train_and_collect
from .pipeline import dataset_checks, light_options, options, re_rankers
from .pipeline.command_line import parse
from .pipeline.compact_students import STORED
from .pipeline.console import cli_errors, print_line, print_lines
from .pipeline.lineups import LINEUPS, rank_lineup
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
from .reporting import byte_rows, byte_tables, comparisons, leaderboard_table, lineup_rows, training_free_rows
from .reporting.published import published_by_row
from .reporting.results import row_of
from .reporting.tables import backbone_title
from .reproduce import run_pipeline


@dataclasses.dataclass(frozen=True)
class Leaderboard:
    """Options of the command.

    Attributes:
        json: file for the results, in addition to those in `out`.
        out: folder of the runs; default `runs/leaderboard`.
        runs: folders of finished runs on the same data and by the same protocol, whose models are added to the table.
        training_free: rank the test targets by the training-free recommenders alone; options of models have no effect.
        by_bytes: rank them by the students of each size and the training-free recommenders alone.
        title_vectors: file of an encoder's vectors of the titles (.npz), which the students by size read beside words.
        ship: folder in which every student of the table is kept as it is shipped.
        history: number of most recent items of a session that the methods of a line-up read, and that are left out of
            the ranking for the last target; 10 as models do, 0 for all.
        max_steps: the largest number of training steps of every model that is trained.
    """

    data: options.Data
    json: pathlib.Path | None = None
    out: pathlib.Path = pathlib.Path("runs/leaderboard")
    backbones: options.Backbones = ("fpmc",)
    runs: tuple[pathlib.Path, ...] = ()
    training_free: bool = False
    by_bytes: bool = False
    title_vectors: pathlib.Path | None = None
    re_ranker: Annotated[
        str | None,
        light_options.choices(
            re_rankers.KINDS,
            help="re-ranker of counts and titles whose labels the students by size may have too, if validation is "
            "better with them; `trees` needs the extra of this name. By default there is none.",
        ),
    ] = None
    ship: pathlib.Path | None = None
    lineup: Annotated[
        str | None,
        light_options.choices(
            LINEUPS,
            help="counting and linear methods, with the best options of a fixed grid by recall@10 on validation; "
            "by default the training-free recommenders with fixed options.",
        ),
    ] = None
    history: int = 10
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
    def trains_nothing(self) -> bool:
        """Whether the table has no trained model."""
        return self.training_free or self.by_bytes

    @property
    def protocol(self) -> Protocol:
        """How the test sessions are evaluated."""
        return Protocol(seen=self.seen, targets=self.targets)


def pipeline_settings(args: Leaderboard, folder: pathlib.Path) -> list[Settings]:
    """Returns the checked settings of the pipeline runs, one for each backbone; none without trained models.

    Raises:
        ValueError: a setting is invalid.
    """
    if args.lineup is not None:
        check_one_of("--lineup", args.lineup, LINEUPS)
    check_count(0, **{"--history": args.history})
    if sum((args.training_free, args.by_bytes, bool(args.runs))) > 1:
        raise ValueError("--training-free, --by-bytes and --runs go not together; expected one of them")
    if args.re_ranker is not None:
        check_one_of("--re-ranker", args.re_ranker, re_rankers.KINDS)
    if args.re_ranker == "trees":
        import_extra("lightgbm")
    if args.re_ranker and (args.training_free or args.seen != "exclude"):
        raise ValueError(
            "--re-ranker goes with --seen exclude and not with --training-free; its labels have no repeats"
        )
    if args.title_vectors is not None and not args.title_vectors.is_file():
        raise ValueError(f"--title-vectors is {args.title_vectors}; expected a file")
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
        for backbone in (() if args.trains_nothing else args.backbones)
    ]
    check_protocol(args.seen, args.targets)
    dataset_checks.check_all(all_settings)
    return all_settings


def build_leaderboard(args: Leaderboard) -> dict[str, Any]:
    """Trains the models that are not yet in the folder, and collects all results.

    Returns:
        ``{"dataset", "seeds", "protocol", "methods": {NAME: {METRIC: {"mean", "std", "values"}, "parameters", "bytes",
        "resident_bytes", "us_per_session", "folder", "seen", "unseen", "llm_usd", "lists"}}, "published": {NAME:
        {METRIC: value}}, "tests"}``; "bytes" are those of the files that answer, without raw ids and shown titles, and
        "lists" says whose lists a method learns from; "llm_usd" is left out where their cost is not known; the tests
        compare the best student with every other method, over the test sessions and as many seeds as every method has,
        and the students of each size with the rules and the stored sessions, and with those without a re-ranker's
        labels. With ``training_free``, what :func:`build_training_free` returns.

    Raises:
        ValueError: a run is on other data, or a setting is invalid.
    """
    pipeline_settings(args, args.out)
    dataset = registry.read(args.data)
    if args.training_free:
        return build_training_free(args, dataset)
    folder = args.out / dataset.name
    if args.by_bytes:
        by_bytes = RunFolder(folder / "by-bytes", print_line, overwrite=args.overwrite)
        by_bytes.open({"data": dataset.fingerprint, "dataset": dataset.name, "what": "students by bytes"})
        return byte_rows.build(
            dataset, by_bytes, args.protocol, args.title_vectors, args.ship, re_ranker=args.re_ranker
        )
    best_args = Best(args.data, folder / "best", seeds=args.seeds, max_steps=args.max_steps, overwrite=args.overwrite)
    train_and_collect(best_args)
    best_folder = open_folder(best_args, dataset)
    if args.lineup is None:
        rank_training_free(dataset, best_folder, args.protocol)
    else:
        rank_lineup(dataset, best_folder, args.protocol, args.lineup, args.history)
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
    byte_rows.rank_students(dataset, best_folder, args.protocol, args.title_vectors, re_ranker=args.re_ranker)
    methods, ranks = best_student_row(best_args, dataset, best_folder, args.protocol, args.ship)
    rows, student_ranks = byte_rows.load(dataset, best_folder, args.ship)
    methods |= rows
    ranks |= student_ranks
    header: dict[str, Any] = {}
    if args.lineup is None:
        rows, training_free_ranks = training_free_rows.load(best_folder)
        rows = byte_rows.with_costs(dataset, rows, methods[STORED]["bytes"])
    else:
        rows, training_free_ranks = lineup_rows.load(dataset, best_folder, args.lineup)
        header = {"lineup": lineup_rows.about(dataset, best_folder, args.lineup, args.history)}
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
    for name, row in methods.items():
        row |= byte_rows.split_by_training(dataset, ranks[name], np.asarray(queries.target))
    pairs = [(NAME, other) for other in ranks if other != NAME] + byte_rows.pairs(ranks)
    tests = comparisons.compare_pairs(ranks, pairs, seed=0, session_id=clusters(args.protocol, queries.session_id))
    header |= {"dataset": dataset.name, "seeds": args.seeds, "protocol": stored_protocol(args.protocol)}
    published = published_by_row(dataset.name) if args.protocol == Protocol() else {}
    return header | {"methods": methods, "published": published, "tests": tests}


def build_training_free(args: Leaderboard, dataset: Dataset) -> dict[str, Any]:
    """Returns the results of the training-free recommenders or of a line-up, see :func:`build_leaderboard`."""
    if args.lineup is None:
        return training_free_rows.build(dataset, args.out, args.protocol, overwrite=args.overwrite)
    return lineup_rows.build(dataset, args.out, args.protocol, args.lineup, args.history, overwrite=args.overwrite)


def best_student_row(
    best_args: Best, dataset: Dataset, folder: RunFolder, protocol: Protocol, ship: pathlib.Path | None
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
    costs = model_costs(NAME, model, first_seed(params), dataset, ship)
    row = row_of(ranks, tied, of_lists) | costs | {"llm_usd": 0.0}
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
        params = first_seed(run.params(folder))
        costs = model_costs(f"{method}, {backbone}", run.model(role_of(method)), params, run.dataset, args.ship)
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


def model_costs(
    name: str, model: Encoder, params: Params, dataset: Dataset, ship: pathlib.Path | None
) -> dict[str, Any]:
    """Returns the number of parameters of a model, and its bytes, bytes in memory and time per session as shipped.

    A backbone of the user's own cannot be shipped; its bytes are those of its parameters in half precision.
    """
    leaves = jax.tree.leaves(params)
    count = {"parameters": sum(leaf.size for leaf in leaves)}
    if type(model) not in BACKBONES.values():
        seconds = efficiency.time_to_recommend(dataset.test, model, params, 10)
        return count | {"bytes": 2 * count["parameters"], "us_per_session": 1e6 * seconds}
    return count | byte_rows.shipped_costs(name, model, params, dataset, ship)


def write(args: Leaderboard, numbers: Mapping[str, Any]) -> None:
    """Writes `leaderboard.md`, `leaderboard.json`, the file of `--json`, and the figure `bytes.svg` of `--by-bytes`."""
    folder = args.out / numbers["dataset"]
    page = leaderboard_table.table(numbers, own=NAME) + "\n"
    texts = {folder / "leaderboard.md": page, folder / "leaderboard.json": to_json(numbers)}
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        texts[args.json] = to_json(numbers)
    write_texts(texts)
    if args.by_bytes:
        byte_tables.write_figure(numbers, folder / "bytes.svg")


def main() -> None:
    """Entry point."""
    with cli_errors():
        args = parse(Leaderboard, "leaderboard", __doc__)
        pipeline_settings(args, args.out)
        # The results that take minutes are written before those that may take an hour.
        first = args if args.trains_nothing else dataclasses.replace(args, backbones=(), runs=())
        for part_args in dict.fromkeys((first, args)):
            numbers = build_leaderboard(part_args)
            write(args, numbers)
        print_lines(leaderboard_table.table(numbers, own=NAME))
        print_line(f"{args.json or args.out / numbers['dataset'] / 'leaderboard.json'}")


if __name__ == "__main__":
    main()
