"""The training-free recommenders by name, and the stage that ranks the test targets with them."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import alkd_jax as alkd
from alkd_jax import baselines
from alkd_jax.io import save_arrays, write_json

from .run_folder import RunFolder

TRAINING_FREE: Mapping[str, baselines.Scorer] = {
    "Popularity": baselines.popularity,
    "Markov": baselines.markov,
    "Co-occurrence": baselines.co_occurrence,
    "Item-kNN": baselines.item_knn,
    "Item-kNN (recency)": functools.partial(baselines.item_knn, recency=0.8),
    "Session-kNN": baselines.session_knn,
    "Sequential rules": baselines.sequential_rules,
    "Sequential rules (both ways)": functools.partial(baselines.sequential_rules, backward=0.5),
}
"""Name → recommender that counts and trains no parameters."""


def training_free_inputs() -> dict[str, Any]:
    """Returns what the stage depends on; it runs again where an earlier version ranked ties by another rule."""
    return {"methods": list(TRAINING_FREE), "ties": "average"}


def training_free_places(dataset: alkd.Dataset) -> dict[str, baselines.Places]:
    """Returns name → the places of the test targets."""
    counts = baselines.count(dataset.train_sequences, dataset.num_items)
    return {name: baselines.target_places(method, counts, dataset.test) for name, method in TRAINING_FREE.items()}


def rank_training_free(dataset: alkd.Dataset, run_folder: RunFolder) -> None:
    """Runs the stage that ranks the test targets, and counts the tied ones, with every training-free recommender."""

    def write_outputs(folder: pathlib.Path) -> None:
        places = training_free_places(dataset)
        save_arrays(folder / "training_free_ranks.npz", **{name: place.ranks() for name, place in places.items()})
        write_json(folder / "training_free_tied.json", {name: [place.num_tied] for name, place in places.items()})

    outputs = ["training_free_ranks.npz", "training_free_tied.json"]
    run_folder.run_stage("training_free", training_free_inputs(), outputs, write_outputs)
