"""A re-ranker that is fitted to training sessions and chosen on validation: a ceiling, and a teacher of tables."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.sparse import csr_array

import alkd_jax as alkd
from alkd_jax import baselines
from alkd_jax.baselines import CandidateRanker, Candidates, PairFeatures
from alkd_jax.baselines.re_ranker_trees import GROWTH
from alkd_jax.data import item_vectors
from alkd_jax.distillation import item_rules
from alkd_jax.evaluation.conditional_logit import Choices

from .compact_students import METRICS, Search, has_titles
from .console import stage_bar

KINDS = ("linear", "trees")
"""The linear re-ranker, and the one that has trees on top of it."""

RIDGES = (1.0, 10.0, 100.0, 1000.0, 10_000.0)
"""Penalties of its coefficients, of which validation chooses one."""

SAMPLE = 12_000
"""Number of training sessions that it is fitted to."""

NUM_TREES, NUM_LEAVES = (25, 50, 100, 200, 400), (4, 8, 16)
"""Numbers of trees on top of it, and of leaves of each, of which validation chooses."""

PLACES = 50
"""Number of candidates that each way of counting proposes."""


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """A re-ranker and what it was chosen by.

    Attributes:
        features: the counts and titles that it reads.
        ranker: the re-ranker.
        chosen: its options and the number of sessions that it was fitted to.
        validation: its recall@10 and NDCG@10 there.
        choices: what it was fitted to.
        find: function that finds the candidates of histories, and those of the same histories once only.
    """

    features: PairFeatures
    ranker: CandidateRanker
    chosen: dict[str, Any]
    validation: dict[str, float]
    choices: Choices
    find: Callable[[baselines.Histories], Candidates]


def title_cosines(dataset: alkd.Dataset, vectors: pathlib.Path | None) -> dict[str, csr_array]:
    """Returns name → cosines of titles: of their words where there are titles, and of an encoder's vectors."""
    found = {}
    if has_titles(dataset):
        found["words"] = item_rules.title_neighbors(item_rules.word_vectors(dataset.titles), min_cosine=0.15)
    if vectors is not None:
        encoded = item_vectors.read_vectors(vectors, dataset.num_items)
        found["vectors"] = item_rules.title_neighbors(encoded, min_cosine=0.3)
    return found


def fit(
    search: Search,
    vectors: pathlib.Path | None,
    *,
    sample: int = SAMPLE,
    ridges: tuple[float, ...] = RIDGES,
    places: int = PLACES,
    seed: int = 0,
) -> Fitted:
    """Fits a re-ranker to training sessions, each described by the counts of all others, for every ridge.

    Args:
        search: the data, and how a scorer is evaluated on validation.
        vectors: file of an encoder's vectors of the titles (.npz), None for none.
        sample: number of training sessions, drawn at random.
        ridges: penalties of the coefficients.
        places: number of candidates that each way of counting proposes.
        seed: of the sample.

    Returns:
        The one that is best on validation.
    """
    dataset = search.dataset
    features = baselines.pair_features(dataset.train_sequences, dataset.num_items, title_cosines(dataset, vectors))
    rows = np.random.default_rng(seed).permutation(len(dataset.train))[:sample]
    known = dataset.train.take(rows)
    histories = baselines.Histories(np.asarray(known.items), np.asarray(known.mask))
    with stage_bar(f"candidates of {len(rows):,} sessions"):
        choices = baselines.training_choices(features, histories, np.asarray(known.target), rows, places=places)
    find = remembered(features, places)
    found = []
    with stage_bar("ridges of the re-ranker", total=len(ridges)) as bar:
        for ridge in ridges:
            ranker = baselines.fit_re_ranker(choices, ridge=ridge)
            chosen = {"sessions": len(rows), "with_target": len(choices), "ridge": ridge}
            found.append(Fitted(features, ranker, chosen, _quality(search, features, ranker, find), choices, find))
            bar.update(len(found))
    return max(found, key=lambda each: sum(each.validation.values()))


def item_labels(kind: str, search: Search, vectors: pathlib.Path | None) -> csr_array:
    """Returns the labels for items of a re-ranker of one of the :data:`KINDS`, with the defaults of :func:`fit`."""
    fitted = fit(search, vectors)
    if kind == "trees":
        fitted = fit_trees(search, fitted)
    return item_rules.item_labels(fitted.features, fitted.ranker, places=PLACES)


def settings(kind: str) -> list[Any]:
    """Returns what decides a re-ranker of a kind besides the data."""
    trees = [list(NUM_TREES), list(NUM_LEAVES), GROWTH] if kind == "trees" else []
    return [kind, SAMPLE, PLACES, list(RIDGES), *trees]


def fit_trees(search: Search, fitted: Fitted) -> Fitted:
    """Boosts trees on the scores of a linear re-ranker.

    Args:
        search: as of :func:`fit`.
        fitted: of :func:`fit`.

    Returns:
        The one that is best on validation, of all numbers of trees and leaves.
    """
    found = []
    with stage_bar("trees of the re-ranker", total=len(NUM_LEAVES) * len(NUM_TREES)) as bar:
        for leaves in NUM_LEAVES:
            ranker = baselines.fit_trees(fitted.choices, fitted.ranker, num_trees=max(NUM_TREES), num_leaves=leaves)
            for num_trees in NUM_TREES:
                first = dataclasses.replace(ranker, num_trees=num_trees)
                quality = _quality(search, fitted.features, first, fitted.find)
                chosen = fitted.chosen | {"leaves": leaves, "trees": num_trees}
                found.append(dataclasses.replace(fitted, ranker=first, chosen=chosen, validation=quality))
                bar.update(len(found))
    return max(found, key=lambda each: sum(each.validation.values()))


def _quality(
    search: Search,
    features: PairFeatures,
    ranker: CandidateRanker,
    find: Callable[[baselines.Histories], Candidates],
) -> dict[str, float]:
    """Returns recall@10 and NDCG@10 on validation."""
    on_validation = search.quality(baselines.re_ranker_scorer(features, ranker, find))
    return {name: on_validation[name] for name in METRICS}


def remembered(features: PairFeatures, places: int) -> Callable[[baselines.Histories], Candidates]:
    """Returns a function that finds candidates, and those of the same histories once only."""
    known: dict[bytes, Candidates] = {}

    def find(histories: baselines.Histories) -> Candidates:
        key = histories.items.tobytes()
        if key not in known:
            known[key] = baselines.find_candidates(features, histories, places=places)
        return known[key]

    return find
