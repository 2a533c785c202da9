"""Rows of `experiments.best` that measure what lists add: a language model's lists, and others in their place."""

import dataclasses

import numpy as np

import alkd_jax as alkd
from alkd_jax import baselines
from alkd_jax.data.readers import registry
from alkd_jax.distillation.item_rules import Recipe
from alkd_jax.llm.teachers import replay

from .best_rows import Row, rules_row

LLM_LISTS = "with 500 LLM lists"
"""Name of the row with the LLM's lists for the sessions of the authors' selection."""
LIST_WEIGHT = 3.0
"""Weight of a list in these rows if the recipe reads no lists."""


def list_rows(data: str, dataset: alkd.Dataset, recipe: Recipe) -> list[Row]:
    """Makes the rows of the recipe with lists, for the authors' selection of 500 sessions and for others.

    Args:
        data: source of the dataset.
        dataset: the dataset.
        recipe: the recipe.

    Raises:
        ValueError: the source has no recorded lists.
    """
    source = registry.parse_source(data)
    if source.kind != "released":
        raise ValueError(f"--data is {data}; expected released:PATH:NAME, whose recorded lists --rows lists needs")
    recorded, selected = released_lists(source, dataset)
    llm = replay.lookup_rankings(recorded, selected)[0]
    recipe = dataclasses.replace(recipe, lists=recipe.lists or LIST_WEIGHT)
    rows = [
        rules_row(name, recipe, rankings=rankings, test=True, compared=True)
        for name, rankings in {LLM_LISTS: llm, **control_lists(dataset, llm)}.items()
    ]
    unrepaired, _ = alkd.data.load_released_rankings(source.path, source.name, repair=False, dataset=dataset)
    unrepaired = replay.lookup_rankings(unrepaired, selected)[0]
    unrepaired = alkd.Rankings(unrepaired.session_id, unrepaired.items[:, :25], unrepaired.mask[:, :25])
    with_target, rare = llm.take(holds_target(dataset, llm)), lists_of_rare_items(dataset, recorded, 500)
    trust = agreement(dataset, llm)
    rows += [
        rules_row("with the LLM lists that hold the next item", recipe, rankings=with_target),
        rules_row("with 500 unrepaired LLM lists", recipe, rankings=unrepaired),
        rules_row("with 500 LLM lists weighted by agreement with counts", recipe, rankings=llm, confidence=trust),
        rules_row("with 500 LLM lists for sessions with the rarest items", recipe, rankings=rare),
        rules_row("with every recorded LLM list", recipe, rankings=recorded),
    ]
    order = np.random.default_rng(1).permutation(len(recorded))
    for num in (50, 1500):
        rows.append(rules_row(f"with {num:,} LLM lists", recipe, rankings=recorded.take(order[:num])))
    for weight in (1.0, 10.0):
        if weight != recipe.lists:
            reweighted = dataclasses.replace(recipe, lists=weight)
            rows.append(rules_row(f"{LLM_LISTS}, weight {weight:g}", reweighted, rankings=llm))
    return rows


def released_lists(source: registry.Source, dataset: alkd.Dataset) -> tuple[alkd.Rankings, np.ndarray]:
    """Reads all recorded lists, repaired, and the ids of the 500 sessions of the authors' selection."""
    recorded, _ = alkd.data.load_released_rankings(source.path, source.name, dataset=dataset)
    return recorded, alkd.data.load_released_selection(source.path, source.name, "ALKDRec", dataset=dataset)[:500]


def control_lists(dataset: alkd.Dataset, llm: alkd.Rankings) -> dict[str, alkd.Rankings]:
    """Returns row name → lists for the same sessions: the LLM's permuted among them, and co-occurrence lists."""
    order = np.random.default_rng(0).permutation(len(llm))
    cooccurrence = baselines.held_out_lists(
        baselines.method("co_occurrence"), dataset.train_sequences, dataset.num_items, dataset.train, 25
    )
    return {
        "with 500 shuffled LLM lists": alkd.Rankings(llm.session_id, llm.items[order], llm.mask[order]),
        "with 500 co-occurrence lists": cooccurrence.take(np.isin(cooccurrence.session_id, llm.session_id)),
    }


def holds_target(dataset: alkd.Dataset, rankings: alkd.Rankings) -> np.ndarray:
    """Returns a mask ``[M]`` of the lists that hold their session's next item."""
    target = np.asarray(dataset.train.target)[dataset.train.rows_of(rankings.session_id)]
    return np.asarray((rankings.items == target[:, None]).any(1))


def agreement(dataset: alkd.Dataset, rankings: alkd.Rankings) -> np.ndarray:
    """Computes the share of each list that sequential rules, counted in other sessions, also list; scaled to mean 1."""
    rule_rankings = baselines.held_out_lists(
        baselines.method("sequential_rules"), dataset.train_sequences, dataset.num_items, dataset.train, 50
    )
    rule_items = rule_rankings.items[dataset.train.rows_of(rankings.session_id)]
    pairs = zip(rankings.items, rankings.mask, rule_items, strict=True)
    share = np.array([np.isin(items[mask], others).mean() for items, mask, others in pairs])
    return share / share.mean()


def lists_of_rare_items(dataset: alkd.Dataset, rankings: alkd.Rankings, num: int) -> alkd.Rankings:
    """Selects the lists of the sessions whose items have the smallest counts, where a list should add most.

    Args:
        dataset: the dataset.
        rankings: lists for training sessions.
        num: number of lists to select.
    """
    counts, train = baselines.count(dataset.train_sequences, dataset.num_items), dataset.train
    item_counts = np.asarray(counts.followers.sum(1)).ravel()
    mean_log_count = (np.log1p(item_counts[train.items]) * train.mask).sum(1) / train.mask.sum(1)
    order = np.argsort(mean_log_count[train.rows_of(rankings.session_id)], kind="stable")
    return rankings.take(order[:num])
