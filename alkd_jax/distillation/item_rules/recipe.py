"""Recipes for the strongest narrow students: one for each dataset, chosen on its validation sessions.

A late-interaction student is trained on item-to-item rules from counts, titles and, if there are any, a teacher's
lists. A backbone of the paper is trained on every prefix with a softmax that is corrected for popularity.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array

from alkd_jax import baselines, objectives, paper_settings, samplers, training
from alkd_jax.checks import check_one_of
from alkd_jax.distillation.item_rules import rules
from alkd_jax.distillation.item_rules.targets import fit_rule_targets
from alkd_jax.models import Encoder, create
from alkd_jax.types import Dataset, Rankings

LIST_WEIGHTS = (3,) * 5 + (2,) * 10 + (1,) * 10
"""Weight of each position of a teacher's list, as in the paper."""
PRESETS = ("best",)
"""Names of presets: "best" has the options of :mod:`alkd_jax.paper_settings` for the paper's datasets."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Options of a late-interaction student that is trained on item-to-item rules.

    Attributes:
        shared: whether input and output share their tables, see the backbone "late" of :mod:`alkd_jax.models`.
        recency: weight of an item for each step before the end of the session, see the same backbone.
        decay: see :func:`alkd_jax.baselines.count`.
        backward: see :func:`alkd_jax.distillation.item_rules.cooccurrence_rules`.
        titles: share of the rules from titles, see :func:`alkd_jax.distillation.item_rules.add_rules`; 0 reads none.
        lists: weight of a teacher's list, where one pair of adjacent items has 1; 0 reads no lists.
        places: K, the number of rules for each item, the strongest ones.
        power: see :func:`alkd_jax.distillation.item_rules.rule_targets`.
        damping: see :func:`fit_rule_targets`.
        learning_rate: see :func:`fit_rule_targets`.
        batch_size: number of items in a batch.
        max_steps: number of steps.
    """

    shared: bool = True
    recency: float = 0.5
    decay: float = 0.9
    backward: float = 0.1
    titles: float = 0.0
    lists: float = 0.0
    places: int = 64
    power: float = 2.0
    damping: float = 0.3
    learning_rate: float = 0.05
    batch_size: int = 1024
    max_steps: int = 600


def recipe_of(preset: str | Recipe, dataset: str) -> Recipe:
    """Returns the recipe of a preset for a dataset; a dataset that the paper does not use gets the defaults.

    Args:
        preset: one of :data:`PRESETS`, or a recipe, which is returned.
        dataset: the dataset's name.

    Raises:
        ValueError: the preset is unknown.
    """
    if isinstance(preset, Recipe):
        return preset
    check_one_of("preset", preset, PRESETS)
    return Recipe(**paper_settings.settings_of(dataset).item_rules)


def create_student(recipe: Recipe, *, num_items: int, dim: int = 10) -> Encoder:
    """Makes the backbone that a recipe trains, without parameters.

    Args:
        recipe: the options.
        num_items: V.
        dim: D, the width of each table.
    """
    return create("late", num_items=num_items, dim=dim, shared=recipe.shared, recency=recipe.recency)


def build_rules(
    dataset: Dataset,
    recipe: Recipe,
    rankings: Rankings | None = None,
    confidence: Float[np.ndarray, " N"] | None = None,
) -> csr_array:
    """Adds up the rules from the training sessions, the titles and a teacher's lists.

    Args:
        dataset: a dataset, of which only the training sessions and the titles are read.
        recipe: the weights of the rules.
        rankings: lists for some training sessions.
        confidence: the weight of each list, see :func:`alkd_jax.distillation.item_rules.list_rules`.

    Returns:
        ``[V1, V1]`` rules.

    Raises:
        ValueError: the recipe reads lists and ``rankings`` is None.
    """
    if recipe.lists and rankings is None:
        raise ValueError(f"rankings is None; expected lists, which have weight {recipe.lists} in the recipe")
    counts = baselines.count(dataset.train_sequences, dataset.num_items, decay=recipe.decay)
    total = rules.cooccurrence_rules(counts, backward=recipe.backward)
    if recipe.lists and rankings is not None:
        list_rules = rules.list_rules(
            rankings,
            dataset.train,
            dataset.num_items,
            recency=recipe.recency,
            weights=LIST_WEIGHTS,
            confidence=confidence,
        )
        total = total + recipe.lists * list_rules
    return rules.add_rules(total, rules.title_rules(dataset.titles), recipe.titles) if recipe.titles else total


def train(
    key: jax.Array,
    dataset: Dataset,
    *,
    preset: str | Recipe = "best",
    dim: int = 10,
    seeds: int | Sequence[int] = 1,
    rankings: Rankings | None = None,
    confidence: Float[np.ndarray, " N"] | None = None,
    **options: Any,
) -> tuple[Encoder, training.FitResult]:
    """Trains the strongest student of a width.

    Args:
        key: a JAX key; the function consumes it.
        dataset: a dataset; its validation sessions decide which parameters are returned, its test split is not read.
        preset: one of :data:`PRESETS`, or a recipe.
        dim: D, the width of each table.
        seeds: as in :func:`alkd_jax.training.fit`.
        rankings: a teacher's lists for some training sessions; needed where the recipe reads lists.
        confidence: the weight of each list, at least 0; default 1.
        **options: further options of :func:`fit_rule_targets`, which replace the recipe's.

    Returns:
        The student's backbone, and the trained student.

    Raises:
        ValueError: the preset is unknown, or the recipe reads lists and ``rankings`` is None.
    """
    recipe = recipe_of(preset, dataset.name)
    model = create_student(recipe, num_items=dataset.num_items, dim=dim)
    total = build_rules(dataset, recipe, rankings, confidence)
    targets = rules.rule_targets(total, k=recipe.places, power=recipe.power)
    settings = {
        "damping": recipe.damping,
        "learning_rate": recipe.learning_rate,
        "batch_size": recipe.batch_size,
        "max_steps": recipe.max_steps,
    }
    return model, fit_rule_targets(key, model, targets, dataset.validation, seeds=seeds, **{**settings, **options})


def train_backbone(
    key: jax.Array,
    dataset: Dataset,
    model: Encoder,
    *,
    seeds: int | Sequence[int] = 1,
    learning_rate: float = 5e-3,
    **options: Any,
) -> training.FitResult:
    """Trains a backbone on every prefix of the training sessions, with in-batch softmax and logQ correction.

    Args:
        key: a JAX key; the function consumes it.
        dataset: a dataset; its validation sessions decide when training stops.
        model: the backbone.
        seeds: as in :func:`alkd_jax.training.fit`.
        learning_rate: as in :func:`alkd_jax.training.fit`.
        **options: further options of :func:`alkd_jax.training.fit`, which replace those set here.

    Returns:
        The trained backbone.
    """
    sequences = dataset.train_sequences
    log_frequency = samplers.log_frequency(np.asarray(sequences.items), dataset.num_items)
    settings: dict[str, Any] = {
        "targets": "all",
        "sequences": sequences,
        "loss": objectives.InBatchSoftmax(model, log_frequency),
        "learning_rate": learning_rate,
    }
    return training.fit(key, model, dataset.train, dataset.validation, seeds=seeds, **{**settings, **options})
