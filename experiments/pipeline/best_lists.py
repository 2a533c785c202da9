"""Rows of the search that ask what lists add: a language model's, others in their place, an ensemble's."""

import dataclasses
from typing import Any

import jax
import numpy as np

import alkd_jax as alkd
from alkd_jax import baselines
from alkd_jax.distillation.item_rules.recipe import Recipe
from alkd_jax.llm.teachers import replay

from .best_rows import Row, taught
from .sources import Source, parse_source

LISTED = "with 500 LLM lists"
LIST_WEIGHT = 3.0
"""Weight of a list in the rows that ask about lists, where the recipe itself reads none."""


def rows(data: str, dataset: alkd.Dataset, recipe: Recipe) -> list[Row]:
    """The recipe with lists for the 500 sessions that the authors' selection names, and with others in their place.

    Raises:
        ValueError: there are no recorded lists.
    """
    source = parse_source(data)
    if source.kind != "released":
        raise ValueError("--rows lists needs --data released:PATH:NAME, which has recorded lists")
    recorded, chosen = authors_lists(source, dataset)
    llm = replay.replay(recorded, chosen)[0]
    recipe = dataclasses.replace(recipe, lists=recipe.lists or LIST_WEIGHT)
    found = [
        taught(name, recipe, rankings=lists, test=True, compared=True)
        for name, lists in {LISTED: llm, **in_their_place(dataset, llm)}.items()
    ]
    raw, _ = alkd.data.load_released_rankings(source.path, source.name, repair=False, dataset=dataset)
    raw = replay.replay(raw, chosen)[0]
    as_they_came = alkd.Rankings(raw.session_id, raw.items[:, :25], raw.mask[:, :25])
    counted = agreement(dataset, llm)
    found += [
        taught("with the LLM lists that hold the next item", recipe, rankings=taken(llm, holds_next(dataset, llm))),
        taught("with 500 LLM lists as they came", recipe, rankings=as_they_came),
        taught("with 500 LLM lists, the more they agree with counts", recipe, rankings=llm, confidence=counted),
        taught("with 500 LLM lists where counts are thinnest", recipe, rankings=thinnest(dataset, recorded, 500)),
        taught("with every recorded LLM list", recipe, rankings=recorded),
    ]
    drawn = np.random.default_rng(1).permutation(len(recorded))
    for num in (50, 1500):
        found.append(taught(f"with {num:,} LLM lists", recipe, rankings=taken(recorded, drawn[:num])))
    for weight in (1.0, 10.0):
        if weight != recipe.lists:
            more = dataclasses.replace(recipe, lists=weight)
            found.append(taught(f"{LISTED}, weight {weight:g}", more, rankings=llm))
    return found


def authors_lists(source: Source, dataset: alkd.Dataset) -> tuple[alkd.Rankings, np.ndarray]:
    """All recorded lists, repaired, and the 500 sessions that the authors' selection asks about."""
    recorded, _ = alkd.data.load_released_rankings(source.path, source.name, dataset=dataset)
    return recorded, alkd.data.load_released_selection(source.path, source.name, "ALKDRec", dataset=dataset)[:500]


def in_their_place(dataset: alkd.Dataset, llm: alkd.Rankings) -> dict[str, alkd.Rankings]:
    """The same lists handed to the wrong sessions, and co-occurrence lists for the same sessions."""
    order = np.random.default_rng(0).permutation(len(llm))
    counted = baselines.held_out_lists(
        baselines.co_occurrence, dataset.train_sequences, dataset.num_items, dataset.train, 25
    )
    return {
        "with 500 shuffled LLM lists": alkd.Rankings(llm.session_id, llm.items[order], llm.mask[order]),
        "with 500 co-occurrence lists": taken(counted, np.isin(counted.session_id, llm.session_id)),
    }


def holds_next(dataset: alkd.Dataset, lists: alkd.Rankings) -> np.ndarray:
    """Which of the lists hold their session's next item."""
    wanted = np.asarray(dataset.train.target)[dataset.train.rows_of(lists.session_id)]
    return np.asarray((lists.items == wanted[:, None]).any(1))


def agreement(dataset: alkd.Dataset, lists: alkd.Rankings) -> np.ndarray:
    """How much of each list the sequential rules of all other sessions list too; 1 on average."""
    everyone = baselines.held_out_lists(
        baselines.sequential_rules, dataset.train_sequences, dataset.num_items, dataset.train, 50
    )
    counted = everyone.items[dataset.train.rows_of(lists.session_id)]
    shared = np.array(
        [np.isin(row[on], known).mean() for row, on, known in zip(lists.items, lists.mask, counted, strict=True)]
    )
    return shared / shared.mean()


def thinnest(dataset: alkd.Dataset, lists: alkd.Rankings, num: int) -> alkd.Rankings:
    """The lists of the sessions of whose items the training sessions say least: there a list should be worth most."""
    counts = baselines.count(dataset.train_sequences, dataset.num_items)
    says = np.asarray(counts.followers.sum(1)).ravel()
    known = (np.log1p(says[dataset.train.items]) * dataset.train.mask).sum(1) / dataset.train.mask.sum(1)
    order = np.argsort(known[dataset.train.rows_of(lists.session_id)], kind="stable")
    return taken(lists, order[:num])


def taken(tree: Any, rows: np.ndarray) -> Any:
    """These rows of sessions or lists."""
    return jax.tree.map(lambda leaf: leaf[rows], tree)
