"""The rows of students by their bytes: tables and stored sessions, ranked, shipped, loaded and measured."""

import contextlib
import dataclasses
import pathlib
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from alkd_jax import baselines
from alkd_jax.evaluation import Protocol, metrics
from alkd_jax.io import digest_of, open_arrays, read_json, save_arrays, write_json
from alkd_jax.models import Encoder, PackedStudent, Params
from alkd_jax.serving import export
from alkd_jax.types import Dataset

from ..pipeline import compact_students, re_rankers
from ..pipeline.compact_students import Search, student_name, untaught_name
from ..pipeline.list_metrics import CUT_OFFS, item_counts, list_metrics
from ..pipeline.protocols import clusters, protocol_inputs, protocol_queries, stored_protocol
from ..pipeline.run_folder import RunFolder
from ..pipeline.stage_records import checked_output
from ..pipeline.student_costs import costs_of_folder, costs_of_method
from ..pipeline.training_free import TRAINING_FREE, rank_training_free
from . import comparisons, training_free_rows
from .results import row_of

STAGE = "students-by-bytes"
COVERAGE = "coverage@20"
_ARRAYS, _NUMBERS, _RANKS = "students.npz", "students.json", "students.ranks.npz"


def rank_students(
    dataset: Dataset,
    run_folder: RunFolder,
    protocol: Protocol,
    vectors: pathlib.Path | None,
    *,
    re_ranker: str | None = None,
) -> None:
    """Runs the stage that chooses the students on validation and ranks the test targets, once each.

    Args:
        dataset: the data.
        run_folder: where students and ranks are stored.
        protocol: how sessions are evaluated, those of validation too.
        vectors: file of an encoder's vectors of the titles.
        re_ranker: kind of the re-ranker whose labels students may have, see
            :data:`experiments.pipeline.re_rankers.KINDS`; None for none.
    """

    def write_outputs(folder: pathlib.Path) -> None:
        neighbors = compact_students.title_similarity(dataset, None if vectors is None else str(vectors))
        search = Search(dataset, protocol, neighbors)
        if re_ranker is not None:
            search = dataclasses.replace(search, labels=re_rankers.item_labels(re_ranker, search, vectors))
        arrays: dict[str, np.ndarray] = {}
        numbers: dict[str, Any] = {}
        ranks: dict[str, np.ndarray] = {}
        for name, student, chosen in compact_students.compact_students(search):
            places = search.places(baselines.packed_scorer(student), "test", ks=CUT_OFFS)
            ranks[name] = places.ranks(ties=protocol.ties)
            arrays |= {f"{name}/{array}": packed for array, packed in student.arrays.items()}
            numbers[name] = {
                "kind": student.kind,
                "packed_options": dict(student.options),
                "chosen": chosen,
                "tied": [places.num_tied],
                "lists": list_metrics(dataset, [places.exposure]),
            }
        save_arrays(folder / _ARRAYS, **arrays)
        save_arrays(folder / _RANKS, **ranks)
        write_json(folder / _NUMBERS, numbers)

    digest = None if vectors is None else digest_of(vectors)
    inputs = {
        "sizes": list(compact_students.BUDGETS_KB),
        "grid": {name: list(values) for name, values in compact_students.GRID.items()},
        "validation_sessions": compact_students.MOST_SESSIONS,
        "uses": list(compact_students.USES),
        "title_places": list(compact_students.TITLE_PLACES),
        "searched_by_size": ["title_places", "use", "recency"],
        "vectors": digest,
        "ties": protocol.ties,
    }
    if re_ranker is not None:
        inputs |= {
            "label_grid": {name: list(values) for name, values in compact_students.LABEL_GRID.items()},
            "re_ranker": re_rankers.settings(re_ranker),
        }
    run_folder.run_stage(STAGE, inputs | protocol_inputs(protocol), [_ARRAYS, _NUMBERS, _RANKS], write_outputs)


def load_students(
    dataset: Dataset, run_folder: RunFolder
) -> dict[str, tuple[PackedStudent, dict[str, Any], Int[np.ndarray, "S P"]]]:
    """Returns name → the student, what was stored of it, and its ranks `[1, P]` of the test targets."""
    numbers = read_json(checked_output(run_folder.path, _NUMBERS))
    students = {}
    with (
        open_arrays(checked_output(run_folder.path, _ARRAYS)) as arrays,
        open_arrays(checked_output(run_folder.path, _RANKS)) as ranks,
    ):
        for name, stored in numbers.items():
            own = {key.removeprefix(f"{name}/"): arrays[key] for key in arrays if key.startswith(f"{name}/")}
            student = PackedStudent(stored["kind"], stored["packed_options"], own, dataset.num_items)
            students[name] = student, stored, ranks[name][None]
    return students


def load(
    dataset: Dataset, run_folder: RunFolder, ship: pathlib.Path | None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns the rows and the ranks of the students, each of which is shipped, loaded and measured.

    Args:
        dataset: the data.
        run_folder: of :func:`rank_students`.
        ship: folder in which the students are kept, None for none.
    """
    rows, ranks = {}, {}
    for name, (student, stored, of_student) in load_students(dataset, run_folder).items():
        row = row_of(of_student, stored["tied"], stored["lists"]) | {"llm_usd": 0.0, "chosen": stored["chosen"]}
        rows[name] = row | shipped_costs(name, student, None, dataset, ship)
        ranks[name] = of_student
    return rows, ranks


def shipped_costs(
    name: str, model: Encoder | PackedStudent, params: Params | None, dataset: Dataset, ship: pathlib.Path | None
) -> dict[str, Any]:
    """Ships a student in half precision without its compiled forms, loads it, and returns what it costs.

    Args:
        name: of the student; its folder is called after it.
        model: as of `alkd.export.save`.
        params: likewise.
        dataset: likewise.
        ship: folder of the shipped students, of which one of this name is replaced; None for a temporary one.

    Returns:
        "bytes", "resident_bytes" and "us_per_session", and "folder" where it is kept.
    """
    with _folder_of(ship) as parent:
        folder = parent / re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        options: dict[str, Any] = {"dtype": "float16", "compiled": False, "overwrite": True}
        export.save(folder, model, params, dataset, **options)
        costs = costs_of_folder(folder, dataset)
    return costs if ship is None else costs | {"folder": folder.name}


@contextlib.contextmanager
def _folder_of(ship: pathlib.Path | None) -> Iterator[pathlib.Path]:
    """Yields the folder of shipped students, or a temporary one."""
    if ship is not None:
        ship.mkdir(parents=True, exist_ok=True)
        yield ship
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield pathlib.Path(folder)


def split_by_training(
    dataset: Dataset, ranks: Int[np.ndarray, "S P"], target: Int[np.ndarray, " P"]
) -> Mapping[str, dict[str, float]]:
    """Returns the metrics of the targets that training has seen, and of those that it has not, as means over seeds."""
    is_seen = item_counts(dataset)[target] > 0
    split = {}
    for name, own in (("seen", is_seen), ("unseen", ~is_seen)):
        per_seed = [metrics.from_ranks(of_seed[own]) for of_seed in ranks] if own.any() else []
        split[name] = {"targets": float(own.sum())} | {
            metric: float(np.mean([values[metric] for values in per_seed]))
            for metric in (per_seed[0] if per_seed else ())
            if metric in ("recall@10", "ndcg@10")
        }
    return split


REFERENCES = ("Sequential rules (both ways)", "Sequential rules", compact_students.STORED)
"""Methods with which every best student of a size is compared."""


def pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Returns the pairs that are tested: students with each of :data:`REFERENCES`, and the best with those untaught."""
    sizes, known = compact_students.BUDGETS_KB, set(names)
    students, untaught = ([name(size) for size in sizes] for name in (student_name, untaught_name))
    of_references = [(student, other) for student in (*students, *untaught) for other in REFERENCES]
    return [pair for pair in [*of_references, *zip(students, untaught, strict=True)] if known.issuperset(pair)]


def build(
    dataset: Dataset,
    folder: RunFolder,
    protocol: Protocol,
    vectors: pathlib.Path | None,
    ship: pathlib.Path | None,
    *,
    re_ranker: str | None = None,
) -> dict[str, Any]:
    """Returns the students by bytes and the training-free recommenders, without anything that is trained.

    Args:
        dataset: the data.
        folder: where ranks are stored.
        protocol: how sessions are evaluated.
        vectors: file of an encoder's vectors of the titles.
        ship: folder in which the students are kept, None for none.
        re_ranker: as of :func:`rank_students`.

    Returns:
        ``{"dataset", "seeds", "protocol", "methods", "published", "tests"}`` as of `leaderboard`.
    """
    rank_training_free(dataset, folder, protocol)
    rank_students(dataset, folder, protocol, vectors, re_ranker=re_ranker)
    rows, ranks = load(dataset, folder, ship)
    free_rows, free_ranks = training_free_rows.load(folder)
    rows, ranks = rows | with_costs(dataset, free_rows, rows[compact_students.STORED]["bytes"]), ranks | free_ranks
    queries = protocol_queries(dataset, protocol)
    for name, row in rows.items():
        row |= split_by_training(dataset, ranks[name], np.asarray(queries.target))
    tests = comparisons.compare_pairs(ranks, pairs(ranks), seed=0, session_id=clusters(protocol, queries.session_id))
    header = {"dataset": dataset.name, "seeds": 1, "protocol": stored_protocol(protocol)}
    return header | {"methods": rows, "published": {}, "tests": tests}


def with_costs(dataset: Dataset, rows: Mapping[str, Any], stored_bytes: int) -> dict[str, Any]:
    """Returns the rows of training-free recommenders with what they cost.

    Such a method needs the training sessions, whose packed form is the smallest that it can be shipped in.

    Args:
        dataset: the data.
        rows: name → row.
        stored_bytes: bytes of the packed training sessions.
    """
    costs = {name: costs_of_method(TRAINING_FREE[name], dataset) for name in rows}
    return {name: row | {"bytes": stored_bytes} | costs[name] for name, row in rows.items()}
