"""Rows of `experiments.best` that are trained on sessions: the paper's backbones, and late interaction end to end."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import alkd_jax as alkd
from alkd_jax import baselines, objectives, samplers, scoring, training
from alkd_jax.data.readers import registry
from alkd_jax.distillation import item_rules
from alkd_jax.distillation.item_rules import Recipe
from alkd_jax.distillation.soft_labels import held_out_labels
from alkd_jax.llm.teachers import replay
from alkd_jax.models import Encoder
from alkd_jax.training.augmentation import Augmented
from alkd_jax.training.examples import prefix_examples
from alkd_jax.types import PAD

from .best_lists import released_lists
from .best_rows import Row
from .method_lists import digest_of
from .run import first_seed

ENSEMBLE = "FPMC of width 100, session-kNN and sequential rules"
"""The teachers whose lists are fused, as a part of the row's identity."""
PATIENCE = 30
"""Patience of losses over the whole catalogue: validation recall rises late, because they learn popularity first."""


def session_rows(data: str, dataset: alkd.Dataset, recipe: Recipe) -> list[Row]:
    """Makes the rows of students that are trained on sessions, partly with an ensemble's lists or artificial sessions.

    Args:
        data: source of the dataset.
        dataset: the dataset.
        recipe: the recipe.
    """

    def row(name: str, backbone: str, **options: Any) -> Row:
        identity = {"backbone": backbone, **{key: str(value) for key, value in options.items()}}
        return Row(name, functools.partial(train_on_sessions, backbone=backbone, **options), identity, test=True)

    patience: dict[str, Any] = {"patience": PATIENCE}
    late = {"shared": recipe.shared, "recency": recipe.recency}
    rows = [
        row("FPMC, every prefix, in-batch softmax", "fpmc"),
        row("FPMC, every prefix, in-batch BPR", "fpmc", loss="bpr"),
        row("FPMC, every prefix, sampled softmax", "fpmc", loss="sampled", **patience),
        row("FPMC, every prefix, full softmax", "fpmc", loss="full", **patience),
        row("FPMC, every prefix, half the loss on rules' lists", "fpmc", loss="rules", **patience),
        row("FPMC, every prefix, half the loss on an ensemble's lists", "fpmc", loss="ensemble", **patience),
        row("FPMC, every prefix, weight decay", "fpmc", weight_decay=0.01),
        row("FPMC, every prefix, items dropped", "fpmc", augment={"drop": 0.2}),
        row("FPMC, every prefix, inputs cropped", "fpmc", augment={"crop": 0.5}),
        row("FPMC, every prefix, with as many random walks", "fpmc", random_walks=True),
        row("FPMC, cloze, in-batch softmax", "fpmc", targets="cloze"),
        row("STAMP, every prefix, in-batch softmax", "stamp"),
        row("late interaction, every prefix, in-batch softmax", "late", model_options=late),
        row("late interaction, every prefix, items dropped", "late", model_options=late | {"item_dropout": 0.2}),
        row("the recipe, then every prefix", "late", model_options=late, pretraining=recipe, learning_rate=1e-3),
    ]
    source = registry.parse_source(data)
    if source.kind == "released":
        longer = alkd.data.load_released(source.path, source.name, max_length=20)
        longer_inputs = row("FPMC, every prefix, inputs of 20 items", "fpmc", length=20)
        llm = replay.lookup_rankings(*released_lists(source, dataset))[0]
        train = functools.partial(train_on_sessions, backbone="fpmc", loss="lists", rankings=llm, **patience)
        identity = {"backbone": "fpmc", "loss": "lists", "lists": digest_of(llm), **patience}
        rows += [
            dataclasses.replace(longer_inputs, dataset=longer),
            Row("FPMC, every prefix, full softmax, 500 LLM lists mixed in", train, identity, test=True),
        ]
    with_lists = dataclasses.replace(recipe, lists=1.0)
    identity = {"recipe": dataclasses.asdict(with_lists), "lists": ENSEMBLE}
    train = functools.partial(train_with_ensemble, recipe=with_lists)
    return [*rows, Row("with an ensemble's lists for all sessions", train, identity)]


def train_on_sessions(
    key: jax.Array,
    dataset: alkd.Dataset,
    *,
    backbone: str,
    loss: str = "softmax",
    model_options: Mapping[str, Any] | None = None,
    augment: Mapping[str, float] | None = None,
    random_walks: bool = False,
    length: int = 10,
    rankings: alkd.Rankings | None = None,
    pretraining: Recipe | None = None,
    **options: Any,
) -> tuple[Encoder, training.FitResult]:
    """Trains a backbone of width 10 on the training sessions.

    Args:
        key: a JAX key.
        dataset: the dataset.
        backbone: name of the backbone.
        loss: name of the loss, see :func:`make_objective`.
        model_options: further options of the backbone.
        augment: options of :class:`alkd_jax.training.augmentation.Augmented`.
        random_walks: add as many random walks to the training sessions.
        length: largest number of items of an input.
        rankings: lists for training sessions, for the loss "lists".
        pretraining: recipe of the student whose parameters are the initial values; None trains from scratch.
        **options: further options of :func:`alkd_jax.distillation.item_rules.train_backbone`.

    Returns:
        The backbone, and the trained student.
    """
    model = alkd.models.create(backbone, num_items=dataset.num_items, dim=10, **(model_options or {}))
    if random_walks:
        dataset = dataclasses.replace(dataset, train_sequences=with_random_walks(dataset))
    if length != 10:
        options["examples"] = prefix_examples(dataset.train_sequences, length=length)
    objective = make_objective(key, model, dataset, loss, rankings)
    options["loss"] = Augmented(objective, **augment) if augment else objective
    if pretraining is not None:
        options["initial"] = item_rules.train(key, dataset, preset=pretraining, seeds=options["seeds"])[1].params
    return model, item_rules.train_backbone(key, dataset, model, **options)


def make_objective(
    key: jax.Array, model: Encoder, dataset: alkd.Dataset, loss: str, rankings: alkd.Rankings | None
) -> objectives.BoundLoss:
    """Returns a loss bound to a backbone.

    Args:
        key: a JAX key, for the ensemble's backbone.
        model: the backbone.
        dataset: the dataset, with the training sessions as the student sees them.
        loss: "softmax" (in-batch), "bpr" (in-batch), "full" (softmax), "sampled" (softmax); or "rules", "ensemble" or
            "lists", the full softmax with half of its weight on soft labels from these.
        rankings: lists for training sessions, for the loss "lists".
    """
    sequences = dataset.train_sequences
    items = np.asarray(sequences.items)
    if loss == "softmax":
        return objectives.InBatchSoftmax(model, samplers.log_frequency(items, dataset.num_items))
    if loss == "bpr":
        return objectives.InBatchBPR(model)
    if loss == "full":
        return objectives.FullSoftmax(model)
    if loss == "sampled":
        sampler = samplers.by_popularity(items, dataset.num_items)
        return objectives.SampledLoss(model, sampler, "softmax", num_negatives=256)
    if loss == "rules":
        list_items, list_gain = held_out_labels(
            baselines.method("sequential_rules"), sequences, dataset.num_items, prefix_examples(sequences)
        )
    else:
        rankings = ensemble_rankings(key, dataset) if rankings is None else rankings
        list_items, list_gain = last_position_lists(dataset, rankings)
    return objectives.DistilledSoftmax(model, list_items, list_gain, share=0.5)


def last_position_lists(dataset: alkd.Dataset, rankings: alkd.Rankings) -> tuple[np.ndarray, np.ndarray]:
    """Assigns each list to the example whose target is the last item of the list's session.

    Args:
        dataset: the dataset.
        rankings: lists for training sessions.

    Returns:
        ``[E, K]`` items and ``[E, K]`` gains of the lists, one for each prefix of a training session; 0 for the others.
    """
    examples = prefix_examples(dataset.train_sequences)
    session, position = np.asarray(examples.session), np.asarray(examples.position)
    is_last = position == np.asarray(dataset.train_sequences.offsets)[session + 1] - 1
    row_of_session = np.full(len(dataset.train), -1)
    row_of_session[dataset.train.rows_of(rankings.session_id)] = np.arange(len(rankings))
    row = np.where(is_last, row_of_session[session], -1)
    items = np.where((row >= 0)[:, None], rankings.items[row], PAD).astype(np.int32)
    weights = np.asarray(item_rules.LIST_WEIGHTS, np.float32)[: items.shape[1]]
    return items, np.where(items != PAD, weights, 0.0).astype(np.float32)


def ensemble_rankings(key: jax.Array, dataset: alkd.Dataset) -> alkd.Rankings:
    """Fuses the lists of a wide backbone, session-kNN and sequential rules for every training session."""
    train = dataset.train
    model = alkd.models.create("fpmc", num_items=dataset.num_items, dim=100)
    params = first_seed(item_rules.train_backbone(key, dataset, model).params)
    items = jnp.asarray(train.items)
    table = model.apply(params, method="item_embeddings")
    _, ids = scoring.top_k(model.apply(params, items, jnp.asarray(train.mask)), table, 25, exclude=items)
    baseline_rankings = [
        baselines.held_out_lists(baselines.method(name), dataset.train_sequences, dataset.num_items, train, 25)
        for name in ("session_knn", "sequential_rules")
    ]
    return item_rules.fuse_rankings([alkd.Rankings.from_top_k(train.session_id, ids), *baseline_rankings], k=25)


def train_with_ensemble(
    key: jax.Array, dataset: alkd.Dataset, *, recipe: Recipe, **options: Any
) -> tuple[Encoder, training.FitResult]:
    """Trains the recipe's student with an ensemble's lists for all training sessions."""
    return item_rules.train(key, dataset, preset=recipe, rankings=ensemble_rankings(key, dataset), **options)


def with_random_walks(dataset: alkd.Dataset) -> alkd.Sequences:
    """Returns the training sessions and as many random walks along their co-occurrence rules."""
    sequences = dataset.train_sequences
    counts = baselines.count(sequences, dataset.num_items)
    rules, rng = item_rules.cooccurrence_rules(counts), np.random.default_rng(0)
    walks = item_rules.random_walk_sessions(rng, rules, counts.popularity, len(sequences))
    offsets = np.concatenate([np.asarray(sequences.offsets), sequences.offsets[-1] + walks.offsets[1:]])
    items = np.concatenate([np.asarray(sequences.items), walks.items])
    return alkd.Sequences(items=items, offsets=offsets.astype(np.int32))
