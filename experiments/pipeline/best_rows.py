"""The rows of the search for the strongest student: what a row is, the recipe, and the recipe with one part changed."""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import numpy as np

import alkd_jax as alkd
from alkd_jax import training
from alkd_jax.distillation.item_rules import recipe as best
from alkd_jax.distillation.item_rules.recipe import Recipe
from alkd_jax.models import Encoder

from . import distill_methods

Train: TypeAlias = Callable[..., tuple[Any, Any]]


@dataclasses.dataclass(frozen=True)
class Row:
    """One kind of student.

    Attributes:
        name: as shown.
        train: ``train(key, dataset, seeds=…, progress=…)``.
        identity: what decides the outcome, plain JSON values.
        test: whether it is reported on test.
        compared: whether it is tested for significance against the recipe.
        dataset: whose sessions it is evaluated on, where not on those asked about.
    """

    name: str
    train: Train
    identity: dict[str, Any]
    test: bool = False
    compared: bool = False
    dataset: alkd.Dataset | None = None

    @property
    def slug(self) -> str:
        """The name as a file's."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


def taught(
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
    """A student taught item by item; `options` are those of :func:`alkd_jax.distillation.item_rules.targets.teach`."""
    train = functools.partial(best.train, preset=recipe, dim=dim, rankings=rankings, confidence=confidence, **options)
    lists = "" if rankings is None else distill_methods.digest(rankings)
    identity: dict[str, Any] = {"recipe": dataclasses.asdict(recipe), "dim": dim, "lists": lists}
    if options:
        identity["options"] = options
    if confidence is not None:
        identity["confidence"] = np.round(confidence, 6).tolist()
    return Row(name, train, identity, test, compared)


def ablation(recipe: Recipe) -> list[Row]:
    """The recipe with one part changed."""
    changes: dict[str, dict[str, Any]] = {
        "separate tables": {"shared": False},
        "all items of a session alike": {"recency": 1.0},
        "only what comes after": {"backward": 0.0},
        "before as much as after": {"backward": 1.0},
        "adjacent items only": {"decay": 0.01},
        "far apart as much as adjacent": {"decay": 0.99},
        "no titles": {"titles": 0.0},
        "more titles": {"titles": max(0.5, 2 * recipe.titles)},
        "rules as counted": {"power": 1.0},
        "rules sharper": {"power": 3.0},
        "frequent items say as much": {"damping": 0.0},
        "16 places": {"places": 16},
        "half the steps": {"max_steps": recipe.max_steps // 2},
        "twice the steps": {"max_steps": 2 * recipe.max_steps},
    }
    made = {name: dataclasses.replace(recipe, **change) for name, change in changes.items()}
    settings: dict[str, dict[str, Any]] = {
        "cosines in place of products": {"length": 1.5},
        "label smoothing": {"smoothing": 0.1},
        "no item biases": {"frozen": ["input_bias", "output_bias"]},
    }
    found = [taught(name, changed) for name, changed in made.items() if changed != recipe]
    found += [taught(name, recipe, **options) for name, options in settings.items()]
    identity = {"recipe": dataclasses.asdict(recipe), "sharpness": SHARPNESS}
    return [*found, Row("the loudest item speaks", functools.partial(max_pooling, recipe=recipe), identity)]


SHARPNESS = 16.0
"""Times which scores are pooled to stand for a maximum: ``log Σ exp(16 s) / 16`` is at most log(10) / 16 above it."""


def max_pooling(
    key: jax.Array, dataset: alkd.Dataset, *, recipe: Recipe, **options: Any
) -> tuple[Encoder, training.FitResult]:
    """The recipe's student scored by its sessions' maximum in place of their sum.

    Teaching is by items alone, so nothing but the scoring differs. Scores times a large number are pooled:
    that ranks as their maximum does.
    """
    model, fitted = best.train(key, dataset, preset=recipe, **options)
    own = dict(fitted.params["params"])
    scaled = ["input_bias", "output_bias", "meeting_kernel" if recipe.shared else "output_embedding"]
    own |= {name: SHARPNESS * own[name] for name in scaled}
    sharp = dataclasses.replace(recipe, recency=recipe.recency**SHARPNESS)
    model = best.student(sharp, num_items=dataset.num_items, dim=model.dim)
    return model, dataclasses.replace(fitted, params={"params": own})
