"""Rows of `experiments.best`: what a row is, students trained on rules, and the recipe with one part changed."""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import numpy as np

import alkd_jax as alkd
from alkd_jax import training
from alkd_jax.distillation import item_rules
from alkd_jax.distillation.item_rules import Recipe
from alkd_jax.models import Encoder

from .method_lists import digest_of

Train: TypeAlias = Callable[..., tuple[Any, Any]]


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table: a way to train a student.

    Attributes:
        name: the row's name in tables.
        train: function ``train(key, dataset, seeds=…, progress=…)``, which returns backbone and trained student.
        identity: everything that decides the result, plain JSON values.
        test: whether the row is also reported on the test sessions.
        compared: whether the row is tested for significance against the recipe.
        dataset: the dataset whose sessions evaluate the row; None for the one that trains it.
    """

    name: str
    train: Train
    identity: dict[str, Any]
    test: bool = False
    compared: bool = False
    dataset: alkd.Dataset | None = None

    @property
    def slug(self) -> str:
        """The row's name in file names."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


def rules_row(
    name: str,
    recipe: Recipe,
    *,
    dim: int = 10,
    rankings: alkd.Rankings | None = None,
    confidence: np.ndarray | None = None,
    test: bool = False,
    compared: bool = False,
    **options: Any,
) -> Row:
    """Makes the row of a student that is trained on item-to-item rules.

    Args:
        name: the row's name.
        recipe: options of the student.
        dim: width of each table.
        rankings: a teacher's lists, where the recipe reads lists.
        confidence: the weight of each list.
        test: as in `Row`.
        compared: as in `Row`.
        **options: options of :func:`alkd_jax.distillation.item_rules.fit_rule_targets`.
    """
    train = functools.partial(
        item_rules.train, preset=recipe, dim=dim, rankings=rankings, confidence=confidence, **options
    )
    lists = "" if rankings is None else digest_of(rankings)
    identity: dict[str, Any] = {"recipe": dataclasses.asdict(recipe), "dim": dim, "lists": lists}
    if options:
        identity["options"] = options
    if confidence is not None:
        identity["confidence"] = np.round(confidence, 6).tolist()
    return Row(name, train, identity, test, compared)


def ablation_rows(recipe: Recipe) -> list[Row]:
    """Makes the rows of the recipe with one part changed."""
    changes: dict[str, dict[str, Any]] = {
        "separate tables": {"shared": False},
        "all items of a session weighted equally": {"recency": 1.0},
        "forward rules only": {"backward": 0.0},
        "backward rules weighted as forward rules": {"backward": 1.0},
        "adjacent items only": {"decay": 0.01},
        "distant items weighted as adjacent ones": {"decay": 0.99},
        "no titles": {"titles": 0.0},
        "more titles": {"titles": max(0.5, 2 * recipe.titles)},
        "rules not sharpened": {"power": 1.0},
        "rules sharpened more": {"power": 3.0},
        "frequent items not damped": {"damping": 0.0},
        "16 rules an item": {"places": 16},
        "half the steps": {"max_steps": recipe.max_steps // 2},
        "twice the steps": {"max_steps": 2 * recipe.max_steps},
    }
    recipes = {name: dataclasses.replace(recipe, **change) for name, change in changes.items()}
    training_options: dict[str, dict[str, Any]] = {
        "cosines in place of products": {"length": 1.5},
        "label smoothing": {"smoothing": 0.1},
        "no item biases": {"frozen": ["input_bias", "output_bias"]},
    }
    rows = [rules_row(name, changed) for name, changed in recipes.items() if changed != recipe]
    rows += [rules_row(name, recipe, **options) for name, options in training_options.items()]
    identity = {"recipe": dataclasses.asdict(recipe), "sharpness": SHARPNESS}
    return [*rows, Row("maximum over items in place of sum", functools.partial(max_pooling, recipe=recipe), identity)]


SHARPNESS = 16.0
"""Factor of the scores before they are pooled: ``log Σ exp(16 s) / 16`` exceeds the maximum by at most log(10) / 16."""


def max_pooling(
    key: jax.Array, dataset: alkd.Dataset, *, recipe: Recipe, **options: Any
) -> tuple[Encoder, training.FitResult]:
    """Trains the recipe's student, and scores a session by the maximum over its items in place of the sum.

    Sessions of one item train the student, so only the scoring differs. The scores are multiplied by a large number
    before they are pooled, which ranks items as the maximum does.

    Args:
        key: a JAX key; the function consumes it.
        dataset: as in :func:`alkd_jax.distillation.item_rules.train`.
        recipe: the recipe.
        **options: further options of :func:`alkd_jax.distillation.item_rules.train`.
    """
    model, fitted = item_rules.train(key, dataset, preset=recipe, **options)
    params = dict(fitted.params["params"])
    scaled = ["input_bias", "output_bias", "interaction_kernel" if recipe.shared else "output_embedding"]
    params |= {name: SHARPNESS * params[name] for name in scaled}
    sharp_recipe = dataclasses.replace(recipe, recency=recipe.recency**SHARPNESS)
    model = item_rules.create_student(sharp_recipe, num_items=dataset.num_items, dim=model.dim)
    return model, dataclasses.replace(fitted, params={"params": params})
