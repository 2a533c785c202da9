"""Metrics of the top-k lists of a run: coverage, Gini index, popularity and novelty, see `alkd_jax.evaluation`."""

from collections.abc import Mapping, Sequence

import numpy as np

import alkd_jax as alkd
from alkd_jax.evaluation import beyond_accuracy

CUT_OFFS = (10, 20)
"""Lengths of the lists whose items are counted."""

OF_LISTS = ("coverage", "gini", "popularity", "novelty")
"""Names of the metrics before the cut-off."""


def item_counts(dataset: alkd.Dataset) -> np.ndarray:
    """Returns ``[V + 1]``, the number of occurrences of each item in the complete training sessions."""
    return np.bincount(np.asarray(dataset.train_sequences.items), minlength=dataset.num_items + 1)


def list_metrics(
    dataset: alkd.Dataset, exposure_of_seeds: Sequence[Mapping[int, np.ndarray]]
) -> dict[str, list[float]]:
    """Computes the metrics of lists for every seed.

    Args:
        dataset: whose training sessions say how popular an item is.
        exposure_of_seeds: for each seed, cut-off k → ``[V + 1]`` number of top-k lists with each item.

    Returns:
        ``{"coverage@10": […], "gini@10": …, "popularity@10": …, "novelty@10": …, …}`` with a value for each seed.
    """
    counts = item_counts(dataset)
    per_seed = [beyond_accuracy.from_exposure({k: found[k] for k in CUT_OFFS}, counts) for found in exposure_of_seeds]
    return {metric: [values[metric] for values in per_seed] for metric in per_seed[0]}
