"""Rows of the search trained on sessions: the paper's backbones trained well, and late interaction end to end."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import alkd_jax as alkd
from alkd_jax import baselines, objectives, samplers, scoring, training
from alkd_jax.distillation.item_rules import ensembles, rules
from alkd_jax.distillation.item_rules import recipe as best
from alkd_jax.distillation.item_rules.recipe import LIST_WEIGHTS, Recipe
from alkd_jax.distillation.soft_labels import counted_labels
from alkd_jax.llm.teachers import replay
from alkd_jax.models import Encoder
from alkd_jax.training.augmentation import augmented
from alkd_jax.training.examples import prefix_examples
from alkd_jax.types import PAD

from . import distill_methods
from .best_lists import authors_lists
from .best_rows import Row
from .sources import parse_source

ENSEMBLE = "FPMC of width 100, session-kNN and sequential rules"
PATIENT = 30
"""Validations without a rise before a loss over the whole catalogue gives up: it learns popularity first."""


def rows(data: str, dataset: alkd.Dataset, recipe: Recipe) -> list[Row]:
    """Students that learn from sessions, from an ensemble's lists for all of them, or from sessions nobody had."""

    def whole(name: str, backbone: str, **options: Any) -> Row:
        identity = {"backbone": backbone, **{key: str(value) for key, value in options.items()}}
        return Row(name, functools.partial(by_sessions, backbone=backbone, **options), identity, test=True)

    patient: dict[str, Any] = {"patience": PATIENT}
    late = {"shared": recipe.shared, "recency": recipe.recency}
    found = [
        whole("FPMC, every prefix, in-batch softmax", "fpmc"),
        whole("FPMC, every prefix, in-batch BPR", "fpmc", loss="bpr"),
        whole("FPMC, every prefix, sampled softmax", "fpmc", loss="sampled", **patient),
        whole("FPMC, every prefix, full softmax", "fpmc", loss="full", **patient),
        whole("FPMC, every prefix, half the loss on rules' lists", "fpmc", loss="taught", **patient),
        whole("FPMC, every prefix, half the loss on an ensemble's lists", "fpmc", loss="ensemble", **patient),
        whole("FPMC, every prefix, weight decay", "fpmc", weight_decay=0.01),
        whole("FPMC, every prefix, items dropped", "fpmc", augment={"drop": 0.2}),
        whole("FPMC, every prefix, inputs begun later", "fpmc", augment={"crop": 0.5}),
        whole("FPMC, every prefix, with as many walked sessions", "fpmc", walked=True),
        whole("FPMC, cloze, in-batch softmax", "fpmc", targets="cloze"),
        whole("STAMP, every prefix, in-batch softmax", "stamp"),
        whole("late, every prefix, in-batch softmax", "late", model=late),
        whole("late, every prefix, items dropped", "late", model=late | {"item_dropout": 0.2}),
        whole("the recipe, then every prefix", "late", model=late, start=recipe, learning_rate=1e-3),
    ]
    source = parse_source(data)
    if source.kind == "released":
        longer = alkd.data.load_released(source.path, source.name, max_length=20)
        inputs = whole("FPMC, every prefix, inputs of 20 items", "fpmc", length=20)
        llm = replay.replay(*authors_lists(source, dataset))[0]
        mixed = functools.partial(by_sessions, backbone="fpmc", loss="mixed", rankings=llm, **patient)
        identity = {"backbone": "fpmc", "loss": "mixed", "lists": distill_methods.digest(llm), **patient}
        found += [
            dataclasses.replace(inputs, dataset=longer),
            Row("FPMC, every prefix, full softmax, 500 LLM lists mixed in", mixed, identity, test=True),
        ]
    more = dataclasses.replace(recipe, lists=1.0)
    identity = {"recipe": dataclasses.asdict(more), "lists": ENSEMBLE}
    return [
        *found,
        Row("with an ensemble's lists for all sessions", functools.partial(by_ensemble, recipe=more), identity),
    ]


def by_sessions(
    key: jax.Array,
    dataset: alkd.Dataset,
    *,
    backbone: str,
    loss: str = "softmax",
    model: Mapping[str, Any] | None = None,
    augment: Mapping[str, float] | None = None,
    walked: bool = False,
    length: int = 10,
    rankings: alkd.Rankings | None = None,
    start: Recipe | None = None,
    **options: Any,
) -> tuple[Encoder, training.FitResult]:
    """A backbone trained on the sessions themselves, from a recipe's student on where there is a start."""
    made = alkd.models.create(backbone, num_items=dataset.num_items, dim=10, **(model or {}))
    if walked:
        dataset = dataclasses.replace(dataset, train_sequences=with_walks(dataset))
    if length != 10:
        options["examples"] = prefix_examples(dataset.train_sequences, length=length)
    options |= objective(key, made, dataset, loss, rankings)
    if augment:
        options["loss"] = changed(made, **augment)
    if start is not None:
        options["initial"] = best.train(key, dataset, preset=start, seeds=options["seeds"])[1].params
    return made, best.train_backbone(key, dataset, made, **options)


def objective(
    key: jax.Array, model: Encoder, dataset: alkd.Dataset, loss: str, rankings: alkd.Rankings | None
) -> dict[str, Any]:
    """The options of `fit` that make a loss, by its name; none for the in-batch softmax."""
    sequences = dataset.train_sequences
    if loss == "softmax":
        return {}
    if loss == "bpr":
        return {"loss": objectives.in_batch_loss(model)}
    if loss == "full":
        return {"loss": objectives.full_softmax(model)}
    if loss == "sampled":
        sampler = samplers.by_popularity(np.asarray(sequences.items), dataset.num_items)
        return {
            "loss": objectives.sampled_loss(model, "softmax", num_negatives=256),
            "loss_inputs": {"sampler": sampler},
        }
    if loss == "taught":
        items, gain = counted_labels(
            baselines.sequential_rules, sequences, dataset.num_items, prefix_examples(sequences)
        )
    else:
        lists = ensemble_lists(key, dataset) if rankings is None else rankings
        items, gain = last_position_lists(dataset, lists)
    loss_inputs = {"list_items": items, "list_gain": gain, "list_share": 0.5}
    return {"loss": objectives.distilled_softmax(model), "loss_inputs": loss_inputs}


@functools.lru_cache(maxsize=8)
def changed(model: Encoder, **chances: float) -> objectives.Loss:
    """The in-batch softmax of changed inputs."""
    return augmented(objectives.in_batch_softmax(model), **chances)


def last_position_lists(dataset: alkd.Dataset, lists: alkd.Rankings) -> tuple[np.ndarray, np.ndarray]:
    """Lists and gains of every prefix: those of its session where its target is the session's last item, else none."""
    examples = prefix_examples(dataset.train_sequences)
    session, position = np.asarray(examples.session), np.asarray(examples.position)
    last = position == np.asarray(dataset.train_sequences.offsets)[session + 1] - 1
    row_of = np.full(len(dataset.train), -1)
    row_of[dataset.train.rows_of(lists.session_id)] = np.arange(len(lists))
    row = np.where(last, row_of[session], -1)
    items = np.where((row >= 0)[:, None], lists.items[row], PAD).astype(np.int32)
    weights = np.asarray(LIST_WEIGHTS, np.float32)[: items.shape[1]]
    return items, np.where(items != PAD, weights, 0.0).astype(np.float32)


def ensemble_lists(key: jax.Array, dataset: alkd.Dataset) -> alkd.Rankings:
    """Lists of a wide backbone, session-kNN and sequential rules, fused, for every training session."""
    train = dataset.train
    wide = alkd.models.create("fpmc", num_items=dataset.num_items, dim=100)
    params = jax.tree.map(lambda leaf: leaf[0], best.train_backbone(key, dataset, wide).params)
    items = jnp.asarray(train.items)
    table = wide.apply(params, method="item_embeddings")
    _, listed = scoring.top_k(wide.apply(params, items, jnp.asarray(train.mask)), table, 25, exclude=items)
    counted = [
        baselines.held_out_lists(method, dataset.train_sequences, dataset.num_items, train, 25)
        for method in (baselines.session_knn, baselines.sequential_rules)
    ]
    return ensembles.fuse([distill_methods.as_rankings(train, np.maximum(np.asarray(listed), PAD)), *counted], k=25)


def by_ensemble(
    key: jax.Array, dataset: alkd.Dataset, *, recipe: Recipe, **options: Any
) -> tuple[Encoder, training.FitResult]:
    """The recipe with an ensemble's lists for all training sessions."""
    return best.train(key, dataset, preset=recipe, rankings=ensemble_lists(key, dataset), **options)


def with_walks(dataset: alkd.Dataset) -> alkd.Sequences:
    """The training sessions and as many walked along what follows what in them."""
    counts = baselines.count(dataset.train_sequences, dataset.num_items)
    own, num = dataset.train_sequences, len(dataset.train_sequences)
    made = rules.random_walk_sessions(
        np.random.default_rng(0), rules.cooccurrence_rules(counts), counts.popularity, num
    )
    offsets = np.concatenate([np.asarray(own.offsets), own.offsets[-1] + made.offsets[1:]]).astype(np.int32)
    return alkd.Sequences(items=np.concatenate([np.asarray(own.items), made.items]), offsets=offsets)
