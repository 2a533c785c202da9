"""The training-free recommenders by name, and the stage that ranks the test targets with them."""

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import alkd_jax as alkd
from alkd_jax import baselines
from alkd_jax.data.sessions import most_recent
from alkd_jax.evaluation import Protocol
from alkd_jax.io import save_arrays, write_json

from .console import stage_bar
from .list_metrics import CUT_OFFS, list_metrics
from .protocols import input_length, protocol_inputs
from .run_folder import RunFolder

TRAINING_FREE: Mapping[str, baselines.Method] = {
    "Popularity": baselines.method("popularity"),
    "Markov": baselines.method("markov"),
    "Co-occurrence": baselines.method("co_occurrence"),
    "Item-kNN": baselines.method("item_knn"),
    "Item-kNN (recency)": baselines.method("item_knn", recency=0.8),
    "Session-kNN": baselines.method("session_knn"),
    "Sequential rules": baselines.method("sequential_rules"),
    "Sequential rules (both ways)": baselines.method("sequential_rules", backward=0.5),
}
"""Name → recommender that counts and trains no parameters."""


def training_free_inputs(protocol: Protocol) -> dict[str, Any]:
    """Returns what the stage depends on; it runs again where an earlier version ranked ties by another rule."""
    return {"methods": list(TRAINING_FREE), "ties": protocol.ties} | protocol_inputs(protocol)


def training_free_places(
    dataset: alkd.Dataset, protocol: Protocol, *, ks: Sequence[int] = ()
) -> dict[str, baselines.Places]:
    """Returns name → the places of the test targets, with the exposure of items in top-k lists for each k of `ks`."""
    counts, sessions = baselines.count(dataset.train_sequences, dataset.num_items), dataset.test_sequences
    if protocol.targets == "last":
        # The queries of ``dataset.test``, with the times that some methods need.
        sessions = most_recent(sessions, input_length(dataset))
    rank = functools.partial(
        baselines.target_places,
        counts=counts,
        sessions=sessions,
        seen=protocol.seen,
        targets=protocol.targets,
        max_length=input_length(dataset),
        ks=ks,
    )
    places = {}
    with stage_bar("recommenders", total=len(TRAINING_FREE)) as bar:
        for number, (name, method) in enumerate(TRAINING_FREE.items()):
            bar.update(number, status=name)
            places[name] = rank(method(counts))
    return places


def rank_training_free(dataset: alkd.Dataset, run_folder: RunFolder, protocol: Protocol) -> None:
    """Runs the stage that ranks the test targets, and counts tied ones and listed items, for training-free methods."""

    def write_outputs(folder: pathlib.Path) -> None:
        places = training_free_places(dataset, protocol, ks=CUT_OFFS)
        ranks = {name: place.ranks(ties=protocol.ties) for name, place in places.items()}
        save_arrays(folder / "training_free_ranks.npz", **ranks)
        write_json(folder / "training_free_tied.json", {name: [place.num_tied] for name, place in places.items()})
        of_lists = {name: list_metrics(dataset, [place.exposure]) for name, place in places.items()}
        write_json(folder / "training_free_lists.json", of_lists)

    outputs = ["training_free_ranks.npz", "training_free_tied.json", "training_free_lists.json"]
    run_folder.run_stage("training_free", training_free_inputs(protocol), outputs, write_outputs)
