"""How far a linear re-ranker of counts and titles gets, beside rules and students that ship: a ceiling, and no student.

    python -m experiments.ceiling --data released:PATH:Games --json ceiling.json
    python -m experiments.ceiling --data released:PATH:Games --students runs/leaderboard/Games/by-bytes

It is fitted to training sessions, each described by the counts of all others, and its options are chosen on validation.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int
from scipy.sparse import csr_array

import alkd_jax as alkd
from alkd_jax import baselines
from alkd_jax.baselines import Candidates, PairFeatures, ReRanker
from alkd_jax.checks import check_between, check_count
from alkd_jax.data import item_vectors
from alkd_jax.data.readers import registry
from alkd_jax.distillation import item_rules
from alkd_jax.evaluation import Protocol, metrics
from alkd_jax.io import open_arrays, read_json, write_json

from .pipeline import options
from .pipeline.command_line import parse
from .pipeline.compact_students import has_titles
from .pipeline.console import cli_errors, print_lines
from .pipeline.protocols import stored_protocol
from .pipeline.stage_records import checked_output
from .pipeline.training_free import TRAINING_FREE
from .reporting import byte_rows, ceiling_rows, comparisons
from .reporting.ceiling_rows import METRICS, RE_RANKER

REFERENCES = ("Sequential rules", "Sequential rules (both ways)")
"""Methods beside which the re-ranker stands, whether or not there are students."""


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
    """

    data: options.Data
    json: pathlib.Path | None = None
    title_vectors: pathlib.Path | None = None
    students: pathlib.Path | None = None
    sample: int = 4000
    ridges: tuple[float, ...] = (1.0, 10.0, 100.0)
    places: int = 50
    seed: int = 0

    def check(self) -> None:
        """Raises ValueError where an option is out of range, or a file is not there."""
        check_count(1, **{"--sample": self.sample, "--places": self.places})
        check_between(0, 2**32 - 1, **{"--seed": self.seed})
        if not self.ridges or min(self.ridges) <= 0:
            raise ValueError(f"--ridges is {self.ridges}; expected numbers above 0")
        if self.title_vectors is not None and not self.title_vectors.is_file():
            raise ValueError(f"--title-vectors is {self.title_vectors}; expected a file")


def title_cosines(dataset: alkd.Dataset, vectors: pathlib.Path | None) -> dict[str, csr_array]:
    """Returns name → cosines of titles: of their words where there are titles, and of an encoder's vectors."""
    found = {}
    if has_titles(dataset):
        found["words"] = item_rules.title_neighbors(item_rules.word_vectors(dataset.titles), min_cosine=0.15)
    if vectors is not None:
        encoded = item_vectors.read_vectors(vectors, dataset.num_items)
        found["vectors"] = item_rules.title_neighbors(encoded, min_cosine=0.3)
    return found


def validated(
    dataset: alkd.Dataset, features: PairFeatures, args: Ceiling
) -> tuple[ReRanker, dict[str, Any], dict[str, float]]:
    """Returns the re-ranker of the best options on validation, these options, and its quality."""
    rows = np.random.default_rng(args.seed).permutation(len(dataset.train))[: args.sample]
    known = dataset.train.take(rows)
    histories = baselines.Histories(np.asarray(known.items), np.asarray(known.mask))
    choices = baselines.training_choices(features, histories, np.asarray(known.target), rows, places=args.places)
    find = remembered(features, args.places)
    found = []
    for ridge in args.ridges:
        ranker = baselines.fit_re_ranker(choices, ridge=ridge)
        chosen = {"sessions": len(rows), "with_target": len(choices), "ridge": ridge}
        found.append((ranker, chosen, quality(ranks_of(features, ranker, dataset.validation, find))))
    return max(found, key=lambda each: sum(each[2].values()))


def remembered(features: PairFeatures, places: int) -> Callable[[baselines.Histories], Candidates]:
    """Returns a function that finds candidates, and those of the same histories once only."""
    known: dict[bytes, Candidates] = {}

    def find(histories: baselines.Histories) -> Candidates:
        key = histories.items.tobytes()
        if key not in known:
            known[key] = baselines.find_candidates(features, histories, places=places)
        return known[key]

    return find


def ranks_of(
    features: PairFeatures,
    ranker: ReRanker,
    sessions: alkd.Sessions,
    find: Callable[[baselines.Histories], Candidates],
) -> Int[np.ndarray, " P"]:
    """Returns the ranks of the targets of some sessions."""
    scorer = baselines.re_ranker_scorer(features, ranker, find)
    return baselines.target_places(scorer, features.counts, sessions, ties_broken=True).ranks()


def quality(ranks: Int[np.ndarray, " P"]) -> dict[str, float]:
    """Returns recall@10 and NDCG@10 with six decimals."""
    values = metrics.from_ranks(ranks)
    return {name: round(float(values[name]), 6) for name in METRICS}


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


def measure(args: Ceiling) -> dict[str, Any]:
    """Fits the re-ranker and ranks the test targets once, by it and by what it is compared with.

    Returns:
        ``{"dataset", "protocol", "titles", "features", "places", "seed", "chosen", "methods": {NAME: {"validation",
        "test", "seen", "unseen"}}, "tests"}``.
    """
    args.check()
    dataset = registry.read(args.data)
    others = {} if args.students is None else {"student": best_student(args.students, dataset)}
    titles = title_cosines(dataset, args.title_vectors)
    features = baselines.pair_features(dataset.train_sequences, dataset.num_items, titles)
    ranker, chosen, on_validation = validated(dataset, features, args)
    find = functools.partial(baselines.find_candidates, features, places=args.places)
    ranks = {RE_RANKER: ranks_of(features, ranker, dataset.test, find)}
    validation = {RE_RANKER: on_validation}
    for name in REFERENCES:
        scorer = TRAINING_FREE[name](features.counts)
        of_splits = [
            baselines.target_places(scorer, features.counts, sessions).ranks()
            for sessions in (dataset.validation, dataset.test)
        ]
        validation[name], ranks[name] = quality(of_splits[0]), of_splits[1]
    for name, on_validation, of_student in others.values():
        validation[name], ranks[name] = on_validation, of_student
    target = np.asarray(dataset.test.target)
    rows = {
        name: {"validation": validation[name], "test": quality(of_method)}
        | dict(byte_rows.split_by_training(dataset, of_method[None], target))
        for name, of_method in ranks.items()
    }
    pairs = [(RE_RANKER, name) for name in ranks if name != RE_RANKER]
    tests = comparisons.compare_pairs({name: found[None] for name, found in ranks.items()}, pairs, seed=0)
    return {
        "dataset": dataset.name,
        "protocol": stored_protocol(Protocol()),
        "titles": sorted(titles),
        "features": len(ranker.coefficients),
        "places": args.places,
        "seed": args.seed,
        "chosen": chosen,
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
