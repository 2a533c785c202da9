"""How far a re-ranker of counts and titles gets, beside rules and students that ship: a ceiling, and a teacher.

    python -m experiments.ceiling --data released:PATH:Games --json ceiling.json
    python -m experiments.ceiling --data released:PATH:Games --trees --students runs/leaderboard/Games/by-bytes

It is fitted to training sessions, each described by the counts of all others, and its options are chosen on validation.
`--trees` boosts trees on its scores as well. Two tables of rules, of any size, are taught by the soft labels of each
re-ranker: for every item alone, and for the training sessions.
`leaderboard --by-bytes --re-ranker linear` adds the labels of items to the rules of students of given sizes.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int
from scipy.sparse import csr_array

import alkd_jax as alkd
from alkd_jax import baselines
from alkd_jax.checks import check_between, check_count
from alkd_jax.data.readers import registry
from alkd_jax.distillation import item_rules
from alkd_jax.errors import import_extra
from alkd_jax.evaluation import Protocol
from alkd_jax.io import open_arrays, read_json, write_json

from .pipeline import options, re_rankers
from .pipeline.command_line import parse
from .pipeline.compact_students import METRICS, Search, quality_of_ranks, rules_scorer
from .pipeline.console import cli_errors, print_lines, stage_bar
from .pipeline.protocols import stored_protocol
from .pipeline.re_rankers import Fitted
from .pipeline.stage_records import checked_output
from .pipeline.training_free import TRAINING_FREE
from .reporting import byte_rows, ceiling_rows, comparisons
from .reporting.ceiling_rows import RE_RANKER, TREES

REFERENCES = ("Sequential rules", "Sequential rules (both ways)")
"""Methods beside which the re-ranker stands, whether or not there are students."""

TEMPERATURES, RECENCIES = (1.0, 1.5, 2.0, 3.0), (0.5, 0.65, 0.8)
"""Options of the tables that it teaches, of which validation chooses."""


@dataclasses.dataclass(frozen=True)
class Ceiling:
    """The options of the command.

    Attributes:
        json: also write the numbers to this file.
        title_vectors: file of an encoder's vectors of the titles (.npz), which are read beside words.
        students: folder "by-bytes" of a run of `leaderboard --by-bytes` on the same data, whose best student on
            validation is compared.
        sample: number of training sessions that the re-ranker is fitted to, drawn at random.
        ridges: penalties of its coefficients, of which validation chooses one.
        places: number of candidates that each way of counting proposes.
        seed: of the sample.
        trees: also boost trees on the linear re-ranker's scores (LightGBM, the extra `trees`).
    """

    data: options.Data
    json: pathlib.Path | None = None
    title_vectors: pathlib.Path | None = None
    students: pathlib.Path | None = None
    sample: int = re_rankers.SAMPLE
    ridges: tuple[float, ...] = re_rankers.RIDGES
    places: int = re_rankers.PLACES
    seed: int = 0
    trees: bool = False

    def check(self) -> None:
        """Raises ValueError where an option is out of range, or a file or a package is not there."""
        check_count(1, **{"--sample": self.sample, "--places": self.places})
        check_between(0, 2**32 - 1, **{"--seed": self.seed})
        if not self.ridges or min(self.ridges) <= 0:
            raise ValueError(f"--ridges is {self.ridges}; expected numbers above 0")
        if self.title_vectors is not None and not self.title_vectors.is_file():
            raise ValueError(f"--title-vectors is {self.title_vectors}; expected a file")
        if self.trees:
            import_extra("lightgbm")


def best_student(folder: pathlib.Path, dataset: alkd.Dataset) -> tuple[str, dict[str, float], Int[np.ndarray, " P"]]:
    """Reads the best student on validation of a run by bytes: its name, its quality there, and its test ranks.

    Raises:
        ValueError: the run is on other data, or it has no students.
    """
    fingerprint = read_json(folder / "run.json").get("data")
    if fingerprint != dataset.fingerprint:
        raise ValueError(f"data of --students {folder} are {fingerprint}; expected {dataset.fingerprint}, as --data")
    numbers: Mapping[str, Any] = read_json(checked_output(folder, "students.json"))
    name = max(numbers, key=lambda student: numbers[student]["chosen"]["sum"])
    with open_arrays(checked_output(folder, "students.ranks.npz")) as archive:
        return name, {metric: numbers[name]["chosen"][metric] for metric in METRICS}, archive[name]


def ranks_on_test(search: Search, scorer: baselines.Scorer) -> Int[np.ndarray, " P"]:
    """Returns the ranks of the test targets by a scorer that breaks ties."""
    return search.places(scorer, "test").ranks()


def taught_tables(
    search: Search, fitted: Fitted, name: str, places: int
) -> Iterator[tuple[str, dict[str, float], dict[str, float], Int[np.ndarray, " P"]]]:
    """Yields the tables that a re-ranker teaches: name, options, quality on validation, and test ranks.

    Args:
        search: the data, and how a scorer is evaluated.
        fitted: the re-ranker.
        name: of the re-ranker.
        places: as of :class:`Ceiling`.
    """
    features, counts, train = fitted.features, fitted.features.counts, search.dataset.train
    histories = baselines.Histories(np.asarray(train.items), np.asarray(train.mask))
    with stage_bar("labels of items and sessions", total=2) as bar:
        of_items = item_rules.item_labels(features, fitted.ranker, places=places)
        bar.update(1)
        sessions = np.arange(len(train))
        of_sessions = item_rules.session_labels(features, fitted.ranker, histories, sessions, places=places)

    def of_temperature(temperature: float) -> dict[str, csr_array]:
        items, sessions = (
            item_rules.sharpened(labels, temperature=temperature, places=counts.num_items)
            for labels in (of_items, of_sessions)
        )
        averaged = item_rules.averaged_labels(counts, histories, sessions, items)
        return {ceiling_rows.ITEM_LABELS[name]: items, ceiling_rows.SESSION_LABELS[name]: averaged}

    best: dict[str, tuple[dict[str, float], dict[str, float], csr_array]] = {}
    with stage_bar("temperatures of labels", total=len(TEMPERATURES)) as bar:
        for done, temperature in enumerate(TEMPERATURES, start=1):
            tables = of_temperature(temperature)
            for (table, rules), recency in itertools.product(tables.items(), RECENCIES):
                of_table = search.quality(rules_scorer(counts, rules, recency))
                found = {metric: of_table[metric] for metric in METRICS}
                if table not in best or sum(found.values()) > sum(best[table][1].values()):
                    best[table] = {"temperature": temperature, "recency": recency}, found, rules
            bar.update(done)
    for table, (chosen, found, rules) in best.items():
        yield table, chosen, found, ranks_on_test(search, rules_scorer(counts, rules, chosen["recency"]))


def measure(args: Ceiling) -> dict[str, Any]:
    """Fits the re-ranker and ranks the test targets once, by it and by what it is compared with.

    Returns:
        ``{"dataset", "protocol", "titles", "features", "places", "seed", "chosen", "taught", "methods": {NAME:
        {"validation", "test", "seen", "unseen"}}, "tests"}``; "chosen" has the options of each re-ranker, "taught"
        those of the tables of labels.
    """
    args.check()
    dataset = registry.read(args.data)
    student = None if args.students is None else best_student(args.students, dataset)
    search = Search(dataset, Protocol(), None)
    fitted = re_rankers.fit(
        search, args.title_vectors, sample=args.sample, ridges=args.ridges, places=args.places, seed=args.seed
    )
    re_rankers_found = {RE_RANKER: fitted}
    if args.trees:
        re_rankers_found[TREES] = re_rankers.fit_trees(search, fitted)
    features, taught = fitted.features, {}
    ranks, validation = {}, {}
    for name, found in re_rankers_found.items():
        ranks[name] = ranks_on_test(search, baselines.re_ranker_scorer(features, found.ranker, fitted.find))
        validation[name] = found.validation
    for name in REFERENCES:
        scorer = TRAINING_FREE[name](features.counts)
        of_splits = [
            baselines.target_places(scorer, features.counts, sessions).ranks()
            for sessions in (dataset.validation, dataset.test)
        ]
        validation[name], ranks[name] = quality_of_ranks(of_splits[0]), of_splits[1]
    for teacher, found in re_rankers_found.items():
        for name, best_options, on_validation, of_table in taught_tables(search, found, teacher, args.places):
            taught[name], validation[name], ranks[name] = best_options, on_validation, of_table
    if student is not None:
        name, on_validation, of_student = student
        validation[name], ranks[name] = on_validation, of_student
    target = np.asarray(dataset.test.target)
    rows = {
        name: {"validation": validation[name], "test": quality_of_ranks(of_method)}
        | dict(byte_rows.split_by_training(dataset, of_method[None], target))
        for name, of_method in ranks.items()
    }
    pairs = [(method, name) for method in re_rankers_found for name in ranks if name not in re_rankers_found]
    if args.trees:
        pairs.append((TREES, RE_RANKER))
    tests = comparisons.compare_pairs({name: found[None] for name, found in ranks.items()}, pairs, seed=0)
    return {
        "dataset": dataset.name,
        "protocol": stored_protocol(Protocol()),
        "titles": sorted(features.titles),
        "features": fitted.choices.features.shape[2],
        "places": args.places,
        "seed": args.seed,
        "chosen": {name: found.chosen for name, found in re_rankers_found.items()},
        "taught": taught,
        "methods": rows,
        "tests": tests,
    }


def run(args: Ceiling) -> dict[str, Any]:
    """Measures, prints and stores.

    Returns:
        As of :func:`measure`.
    """
    found = measure(args)
    print_lines(ceiling_rows.table(found) + "\n\n" + ceiling_rows.differences(found))
    if args.json is not None:
        write_json(args.json, found)
    return found


def main() -> None:
    """Runs the command."""
    with cli_errors():
        run(parse(Ceiling, "ceiling", __doc__))


if __name__ == "__main__":
    main()
