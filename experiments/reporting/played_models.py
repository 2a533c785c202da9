"""Models that a web page holds, so that a reader picks titles and sees their lists: weights, counts and catalogue.

The page scores sessions itself, by `templates/scorer.js`; its lists are those of
:class:`alkd_jax.serving.recommender.Recommender`, and of :func:`alkd_jax.baselines.top_k_lists` for the counts.
"""

import base64
import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import alkd_jax as alkd
from alkd_jax import baselines
from alkd_jax.errors import printable
from alkd_jax.serving.recommender import Recommender

BACKBONES = ("fpmc", "stamp", "attmix")
"""Backbones that the page scores."""

MAX_BYTES = 20_000_000
"""The largest size of all models of a page, in bytes of the page."""

LIST_LENGTH = 10
COUNTING_METHOD = "Sequential rules"
"""Name of the counting method, as of `experiments.pipeline.training_free.TRAINING_FREE`."""

_RECENCY, _DAMPING = 0.65, 0.3
_MAX_TEXT = 300


@dataclasses.dataclass(frozen=True)
class PlayedModel:
    """A model of a page.

    Attributes:
        name: shown above its list.
        content: what `templates/scorer.js` reads, as plain values.
        num_bytes: of its arrays in the page.
    """

    name: str
    content: Mapping[str, Any]
    num_bytes: int


@dataclasses.dataclass(frozen=True)
class Playground:
    """What a page holds for a reader to play with.

    Attributes:
        models: the models, in the order in which they are shown.
        left_out: a sentence for each model that the page does not hold.
        content: models, catalogue and sessions as plain values.
    """

    models: tuple[PlayedModel, ...]
    left_out: tuple[str, ...]
    content: Mapping[str, Any]


def check_backbone(backbone: str) -> None:
    """Refuses a backbone that the page does not score.

    Raises:
        ValueError: it is none of :data:`BACKBONES`.
    """
    if backbone not in BACKBONES:
        raise ValueError(f"backbone is {backbone}; expected {' or '.join(BACKBONES)}, which a web page can score")


def vector_model(name: str, student: Recommender) -> PlayedModel:
    """Returns a trained model for a page.

    Args:
        name: shown above its list.
        student: the model, as it would be shipped.

    Raises:
        ValueError: its backbone is none of :data:`BACKBONES`.
    """
    check_backbone(student.backbone)
    arrays = {key: encode_numbers(array) for key, array in student.arrays.items()}
    content = {
        "kind": "vectors",
        "backbone": student.backbone,
        "options": dict(student.options),
        "length": student.length,
        "dim": student.arrays["input_embedding"].shape[1],
    }
    return _model(name, content, arrays)


def counting_model(name: str, dataset: alkd.Dataset) -> PlayedModel:
    """Returns sequential rules, counted in the training sessions, for a page.

    Args:
        name: shown above its list.
        dataset: whose training sessions are counted; a history has as many items as its models read.
    """
    counts = baselines.count(dataset.train_sequences, dataset.num_items)
    length = dataset.train.items.shape[1]
    followers = counts.followers
    levels, codes = np.unique(followers.data, return_inverse=True)
    arrays = {
        "row_starts": followers.indptr.astype(np.uint32),
        "columns": narrowest(followers.indices),
        "codes": narrowest(codes),
        "levels": levels,
        "popularity": counts.popularity,
        "divisors": np.maximum(counts.popularity, 1.0) ** _DAMPING,
    }
    recency = (_RECENCY ** np.arange(length)).tolist()
    content = {"kind": "rules", "length": length, "recency": recency}
    return _model(name, content, {key: encode_numbers(array) for key, array in arrays.items()})


def _model(name: str, content: Mapping[str, Any], arrays: Mapping[str, Mapping[str, str]]) -> PlayedModel:
    num_bytes = sum(len(array["base64"]) for array in arrays.values())
    return PlayedModel(name, {"name": name, **content, "arrays": dict(arrays)}, num_bytes)


def narrowest(numbers: np.ndarray) -> np.ndarray:
    """Returns whole numbers in the narrowest type that holds them and that a page decodes."""
    return numbers.astype(np.uint16 if numbers.max(initial=0) < 2**16 else np.uint32)


def encode_numbers(array: np.ndarray) -> dict[str, str]:
    """Returns numbers as base64 of little-endian bytes, in their own type."""
    content = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    return {"type": array.dtype.name, "base64": base64.b64encode(content).decode("ascii")}


def make_playground(
    models: Sequence[PlayedModel], dataset: alkd.Dataset, *, num_required: int = 1, num_sessions: int = 5
) -> Playground:
    """Puts models together, and leaves out the last ones where a page would be too large.

    Args:
        models: the most important first.
        dataset: of all of them, for the titles and the sessions a reader may begin with: test sessions at random, by
            the seed 0.
        num_required: number of models without which there is no page.
        num_sessions: number of those sessions.

    Raises:
        ValueError: the models that are required are too large.
    """
    labels = item_labels(dataset)
    size = sum(len(label) + 3 for label in labels)
    kept, left_out = [], []
    for number, model in enumerate(models):
        if size + model.num_bytes <= MAX_BYTES:
            size += model.num_bytes
            kept.append(model)
            continue
        found = f"{(size + model.num_bytes) / 1e6:,.1f} MB"
        if number < num_required:
            raise ValueError(f"size of the page with {model.name} is {found}; expected at most {MAX_BYTES / 1e6:g} MB")
        left_out.append(f"{model.name} is left out: the page would have {found}, more than {MAX_BYTES / 1e6:g} MB.")
    test = dataset.test
    rows = np.sort(np.random.default_rng(0).permutation(len(test))[:num_sessions])
    sessions = [np.asarray(test.items[row])[np.asarray(test.mask[row])].tolist() for row in rows]
    content = {
        "labels": labels,
        "length": LIST_LENGTH,
        "sessions": sessions,
        "models": [dict(model.content) for model in kept],
    }
    return Playground(tuple(kept), tuple(left_out), content)


def item_labels(dataset: alkd.Dataset) -> list[str]:
    """Returns what a page calls each item: its title, with its id where other items have the title, too; or its id."""
    names = [title or item_id for title, item_id in zip(dataset.titles, dataset.item_ids, strict=True)]
    times = collections.Counter(names)
    labels = [
        f"{name} [{item_id}]" if times[name] > 1 and name != item_id else name
        for name, item_id in zip(names, dataset.item_ids, strict=True)
    ]
    return [printable(label, width=_MAX_TEXT) for label in labels]
