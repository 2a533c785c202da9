"""The protocol of a command: its options, the test sessions that it reads, and how it is stored with results."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

import alkd_jax as alkd
from alkd_jax import evaluation
from alkd_jax.checks import check_one_of
from alkd_jax.evaluation import Protocol, Queries, make_queries
from alkd_jax.evaluation.protocol import SEEN
from alkd_jax.evaluation.queries import TARGETS
from alkd_jax.io import open_arrays, save_arrays
from alkd_jax.models import Encoder, Params

from .rules import CLEAN, rules_of
from .stage_records import PROTOCOL_DEFAULTS, checked_output


def check_protocol(seen: str, targets: str, *, mode: str = CLEAN) -> None:
    """Checks the options `--seen` and `--targets`.

    Raises:
        ValueError: an option is unknown, or the rules of the authors' code fix another one.
    """
    check_one_of("--seen", seen, tuple(SEEN))
    check_one_of("--targets", targets, tuple(TARGETS))
    if "padding" in rules_of(mode) and (seen, targets) != ("exclude", "last"):
        raise ValueError(
            f"--mode {mode} with --seen {seen} and --targets {targets}; expected exclude and last, as in "
            "the authors' code, or --mode clean"
        )


def protocol_inputs(protocol: Protocol) -> dict[str, Any]:
    """Returns the inputs of a stage that ranks the test sessions: the options that differ from their defaults.

    Runs that were made before there was a choice keep their inputs.
    """
    values = {name: getattr(protocol, name) for name in PROTOCOL_DEFAULTS}
    return {name: value for name, value in values.items() if value != PROTOCOL_DEFAULTS[name]}


def ranked_sessions(
    dataset: alkd.Dataset, protocol: Protocol, split: str = "test"
) -> alkd.Sessions | alkd.HeldOutSequences:
    """Returns the sessions of a split: their last L inputs for the last target, otherwise the complete sessions.

    Args:
        dataset: the dataset.
        protocol: the rules.
        split: "validation" or "test".
    """
    if split == "validation":
        return dataset.validation if protocol.targets == "last" else dataset.validation_sequences
    return dataset.test if protocol.targets == "last" else dataset.test_sequences


def input_length(dataset: alkd.Dataset) -> int:
    """Returns L, the number of items that models read."""
    return int(dataset.test.items.shape[1])


def rank_by_protocol(
    model: Encoder,
    params: Params,
    dataset: alkd.Dataset,
    protocol: Protocol,
    split: str = "test",
    *,
    lists: bool = False,
    mesh: jax.sharding.Mesh | None = None,
) -> list[evaluation.Evaluation]:
    """Ranks a split's targets with the parameters of every seed; with lists, counts the items of top-k lists, too."""
    return evaluation.evaluate_seeds(
        model,
        params,
        ranked_sessions(dataset, protocol, split),
        seen=protocol.seen,
        targets=protocol.targets,
        protocol=protocol.rules,
        max_length=input_length(dataset),
        lists=lists,
        mesh=mesh,
    )


def protocol_queries(dataset: alkd.Dataset, protocol: Protocol) -> Queries:
    """Returns the queries of the complete test sessions, which say where in its session each of them stands."""
    return make_queries(dataset.test_sequences, dataset.num_items, targets=protocol.targets)


def save_queries(file: pathlib.Path, dataset: alkd.Dataset, protocol: Protocol) -> None:
    """Stores what the ranks of a run belong to, `[P]` arrays: session_id, position, target, and session_length."""
    queries = protocol_queries(dataset, protocol)
    names = ("session_id", "position", "target", "session_length")
    save_arrays(file, **{name: getattr(queries, name) for name in names})


def load_queries(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Loads what :func:`save_queries` stored in a run's folder."""
    with open_arrays(checked_output(folder, "queries.npz")) as archive:
        return dict(archive)


def clusters(protocol: Protocol, session_id: np.ndarray) -> np.ndarray | None:
    """Returns the session of each query where a session has several, which tests draw together; else None."""
    return session_id if protocol.targets == "all" else None


def stored_protocol(protocol: Protocol) -> dict[str, str]:
    """Returns the fields and the name of a protocol, as results contain them."""
    return dataclasses.asdict(protocol) | {"name": protocol.name}


def protocol_names(runs: Iterable[Mapping[str, Any]]) -> str:
    """Returns the names of the protocols of some results, each once, for the text below a table."""
    return "; ".join(dict.fromkeys(run["protocol"]["name"] for run in runs))
