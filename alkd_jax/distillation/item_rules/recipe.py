"""The strongest narrow students we know: a recipe a data set, found on its validation sessions.

A student of late interaction is taught item by item what follows what, from counting, titles and, if there are any, a
teacher's lists. For the paper's backbones: every prefix, and a softmax corrected for popularity.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array

from alkd_jax import baselines, objectives, samplers, training
from alkd_jax.distillation.item_rules import rules
from alkd_jax.distillation.item_rules.targets import teach
from alkd_jax.models import Encoder, create
from alkd_jax.types import Dataset, Rankings

LIST_WEIGHTS = (3,) * 5 + (2,) * 10 + (1,) * 10
"""What the places of a teacher's list weigh, as in the paper."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a student of late interaction is made.

    Attributes:
        shared: see :class:`alkd_jax.models.Late`.
        recency: likewise.
        decay: see :func:`alkd_jax.baselines.count`.
        backward: see :func:`alkd_jax.distillation.item_rules.rules.follow_rules`.
        titles: share of titles in what an item says, see :func:`alkd_jax.distillation.item_rules.rules.blend`; 0 reads
            none.
        lists: weight of a teacher's list beside one pair of adjacent items; 0 reads none.
        places: K, strongest rules an item.
        power: see :func:`alkd_jax.distillation.item_rules.rules.lessons`.
        damping: see :func:`alkd_jax.distillation.item_rules.targets.teach`.
        learning_rate: likewise.
        batch_size: items a step.
        max_steps: steps in all.
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


PRESETS: Mapping[str, Mapping[str, Recipe]] = {
    "best": {
        "ML": Recipe(decay=0.8, backward=0.5, titles=0.05),
        "Games": Recipe(titles=0.2),
    }
}
"""Preset → data set → recipe; another data set takes the defaults."""


def recipe(preset: str | Recipe, dataset: str) -> Recipe:
    """A preset's recipe for a data set.

    Args:
        preset: "best", or a recipe, which is returned.
        dataset: its name.

    Raises:
        ValueError: the preset is unknown.
    """
    if isinstance(preset, Recipe):
        return preset
    if preset not in PRESETS:
        raise ValueError(f"preset is {preset!r}; expected {' or '.join(PRESETS)}")
    return PRESETS[preset].get(dataset, Recipe())


def student(recipe: Recipe, *, num_items: int, dim: int = 10) -> Encoder:
    """The backbone that a recipe trains.

    Args:
        recipe: how it is made.
        num_items: V.
        dim: width D of each table.
    """
    return create("late", num_items=num_items, dim=dim, shared=recipe.shared, recency=recipe.recency)


def rules_for(
    dataset: Dataset,
    recipe: Recipe,
    rankings: Rankings | None = None,
    confidence: Float[np.ndarray, " N"] | None = None,
) -> csr_array:
    """What the training sessions, the titles and a teacher's lists say of items together.

    Args:
        dataset: its training sessions and titles are read, nothing else.
        recipe: what counts how much.
        rankings: lists for some training sessions.
        confidence: what each list counts, see :func:`alkd_jax.distillation.item_rules.rules.list_rules`.

    Raises:
        ValueError: the recipe wants lists and there are none.
    """
    if recipe.lists and rankings is None:
        raise ValueError("the recipe learns from lists; expected rankings")
    counts = baselines.count(dataset.train_sequences, dataset.num_items, decay=recipe.decay)
    found = rules.cooccurrence_rules(counts, backward=recipe.backward)
    if recipe.lists and rankings is not None:
        told = rules.list_rules(
            rankings,
            dataset.train,
            dataset.num_items,
            recency=recipe.recency,
            weights=LIST_WEIGHTS,
            confidence=confidence,
        )
        found = found + recipe.lists * told
    return rules.add_rules(found, rules.title_rules(dataset.titles), recipe.titles) if recipe.titles else found


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
    """Makes the strongest student of a width.

    Args:
        key: consumed.
        dataset: learned from; its validation sessions decide which parameters are kept, its test is not read.
        preset: "best", or a recipe.
        dim: width D of each table.
        seeds: as in :func:`alkd_jax.training.fit`.
        rankings: lists of a teacher for some training sessions, read where the recipe says so.
        confidence: what each of them counts, at least 0; default 1.
        **options: further options of :func:`alkd_jax.distillation.item_rules.targets.teach`.

    Returns:
        The student, and its parameters with a leading seed axis.

    Raises:
        ValueError: the preset is unknown, or lists are wanted and not given.
    """
    how = recipe(preset, dataset.name)
    model = student(how, num_items=dataset.num_items, dim=dim)
    lessons = rules.rule_targets(rules_for(dataset, how, rankings, confidence), k=how.places, power=how.power)
    settings = {
        "damping": how.damping,
        "learning_rate": how.learning_rate,
        "batch_size": how.batch_size,
        "max_steps": how.max_steps,
    }
    return model, teach(key, model, lessons, dataset.validation, seeds=seeds, **{**settings, **options})


def train_backbone(
    key: jax.Array,
    dataset: Dataset,
    model: Encoder,
    *,
    seeds: int | Sequence[int] = 1,
    learning_rate: float = 5e-3,
    **options: Any,
) -> training.FitResult:
    """Trains one of the paper's backbones as well as we can: every prefix, in-batch softmax with logQ correction.

    Args:
        key: consumed.
        dataset: learned from; its validation sessions decide when to stop.
        model: the student.
        seeds: as in :func:`alkd_jax.training.fit`.
        learning_rate: as in :func:`alkd_jax.training.fit`.
        **options: further options of :func:`alkd_jax.training.fit`, or others in place of these.
    """
    sequences = dataset.train_sequences
    settings: dict[str, Any] = {
        "targets": "all",
        "sequences": sequences,
        "loss": objectives.in_batch_softmax(model),
        "loss_inputs": {"log_frequency": samplers.log_frequency(np.asarray(sequences.items), dataset.num_items)},
        "learning_rate": learning_rate,
    }
    return training.fit(key, model, dataset.train, dataset.validation, seeds=seeds, **{**settings, **options})
