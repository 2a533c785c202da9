"""What answers about items are worth: the items asked, simulated teachers, and recall with the rules of the answers."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

import alkd_jax as alkd
from alkd_jax import baselines, selection
from alkd_jax.checks import check_between, check_count
from alkd_jax.distillation import item_rules
from alkd_jax.distillation.item_rules import TableRecipe
from alkd_jax.evaluation import metrics
from alkd_jax.llm import exchange, item_prompts, pricing
from alkd_jax.llm.endpoint import Endpoint
from alkd_jax.llm.pricing import Price
from alkd_jax.llm.prompts import Question, Template
from alkd_jax.llm.store import Store
from alkd_jax.llm.teachers import name_by_similarity
from alkd_jax.llm.teachers.protocol import lists_to_rankings

WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Weights of the rules of the answers, of which one is chosen on validation sessions."""
BASES = {"counts": TableRecipe(recency=0.8, damping=0.3), "counts and titles": TableRecipe(titles=2.0)}
"""Name → the rules that the student has without asking: followers' counts, or these and title neighbors."""
AMONG = ("known", "catalogue")
"""Items that a question shows: those that occur in training sessions, or any of the catalogue."""
ORDERS = ("value", "game", "random")
LEAST_COSINE = {"tf-idf": 0.2, "encoder": 0.4}
"""Teacher → the smallest similarity at which it names an item; those of the title neighbors of `experiments.best`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """The questions about the rare items of a dataset.

    Attributes:
        dataset: the data; only training sessions and titles enter the questions and the answers.
        rare: items that occur at most so often in the training sessions are asked about.
        among: one of :data:`AMONG`.
        num_candidates: C, items that a question shows.
        k: number of items that an answer names at most.
        seed: of random orders and simulated errors.
    """

    dataset: alkd.Dataset
    rare: int = 0
    among: str = "known"
    num_candidates: int = 30
    k: int = 10
    seed: int = 0

    @functools.cached_property
    def counts(self) -> baselines.Counts:
        """Counts of the training sessions."""
        return baselines.count(self.dataset.train_sequences, self.dataset.num_items)

    @functools.cached_property
    def neighbors(self) -> csr_array:
        """``[V1, V1]`` cosines of tf-idf titles."""
        return item_rules.title_neighbors(item_rules.word_vectors(self.dataset.titles), min_cosine=0.2)

    @functools.cached_property
    def asked(self) -> Int[np.ndarray, " M"]:
        """The items that may be asked about."""
        return item_rules.rare_items(self.counts, most=self.rare)

    @functools.cached_property
    def shown(self) -> tuple[Int[np.ndarray, "M C"], Float[np.ndarray, "M C"]]:
        """The candidates of each question, and the cosines of their titles with the item's."""
        options: dict[str, Any] = {"num": self.num_candidates, "known": self.among == AMONG[0]}
        return item_rules.question_candidates(self.counts, self.neighbors, self.asked, **options)

    @functools.cached_property
    def values(self) -> Float[np.ndarray, " M"]:
        """The traffic that the answer to each question could change; a cosine is the chance that it names an item."""
        candidates, cosines = self.shown
        use = selection.expected_use(self.counts.popularity)[self.asked]
        rules = item_rules.table_rules(self.dataset, BASES["counts"])
        entry = item_rules.entry_chances(rules, candidates, cosines**2)
        return selection.question_values(use, np.clip(cosines, 0.0, 1.0), entry)

    def order(self, name: str, num: int) -> Int[np.ndarray, " num"]:
        """Returns the questions, rows of :attr:`asked`, that are asked where ``num`` are affordable.

        Args:
            name: "value" takes those of the largest value, "game" samples from the policy of their game, "random" any.
            num: at most the number of questions of a value above 0.
        """
        key = jax.random.fold_in(jax.random.key(self.seed), num)
        if name == "game":
            return np.asarray(selection.select_items(key, self.values, num=num))
        if name == "random":
            return np.asarray(jax.random.permutation(key, len(self.asked)))[:num]
        return np.argsort(-self.values, kind="stable")[:num]

    def answers(self, teacher: str, accuracy: float, vectors: Float[np.ndarray, "V1 D"] | None = None) -> alkd.Rankings:
        """Returns the answers of a simulated teacher to all questions.

        Args:
            teacher: "tf-idf", which knows no more than the words of titles, or "encoder", which knows what the vectors
                of a pretrained sentence encoder say of titles.
            accuracy: share of the answers that are made so; the others name random candidates.
            vectors: ``[V1, D]`` of length 1 or 0, for "encoder".
        """
        candidates, similarity = self.shown
        if teacher == "encoder":
            if vectors is None:
                raise ValueError("vectors is None; expected the vectors of an encoder, --encoder FILE")
            similarity = np.einsum("md,mcd->mc", vectors[self.asked], vectors[candidates]).astype(np.float64)
        return name_by_similarity(
            self.seed,
            self.asked,
            candidates,
            similarity,
            k=self.k,
            accuracy=accuracy,
            least=LEAST_COSINE[teacher],
        )

    def questions(self, rows: Int[np.ndarray, " num"], template: Template) -> Iterator[Question]:
        """Yields some questions as they would be sent."""
        for row in rows.tolist():
            shown = tuple(int(candidate) for candidate in self.shown[0][row] if candidate)
            prompt = item_prompts.ItemPrompt(int(self.asked[row]), shown, self.k)
            yield item_prompts.item_question(prompt, template, self.dataset.titles, seed=self.seed)

    def dollars(self, rows: Int[np.ndarray, " num"], template: Template, endpoint: Endpoint, price: Price) -> float:
        """Estimates the price of some questions, by the bytes of at most 200 of them and the tokens of an answer."""
        sampled = self.questions(rows[:: -(-len(rows) // 200)], template)
        sizes: list[tuple[int, int | None]] = [(endpoint.request(each)["size"], None) for each in sampled]
        estimate = pricing.estimate(sizes, price, max_output_tokens=endpoint.max_tokens(item_prompts.KIND))
        return estimate.expected / pricing.PICO / len(sizes) * len(rows)


@dataclasses.dataclass(frozen=True, eq=False)
class Base:
    """The student that is there before anything is asked: rules, and their scores of the sessions of both splits.

    Attributes:
        study: the questions.
        name: one of :data:`BASES`.
    """

    study: Study
    name: str

    @property
    def recipe(self) -> TableRecipe:
        """The options of the rules."""
        return BASES[self.name]

    @functools.cached_property
    def scores(self) -> dict[str, csr_array]:
        """Split → sparse scores of its sessions."""
        neighbors = self.study.neighbors if self.recipe.titles else None
        rules = item_rules.table_rules(self.study.dataset, self.recipe, neighbors)
        return {split: self.scores_of(rules, split) for split in ("validation", "test")}

    def scores_of(self, rules: csr_array, split: str) -> csr_array:
        """Returns the scores of a split's sessions by other rules."""
        sessions = getattr(self.study.dataset, split)
        return baselines.rule_scores(self.study.counts, rules, sessions, recency=self.recipe.recency)

    def ranks(self, split: str, extra: csr_array | None = None, weight: float = 0.0) -> Int[np.ndarray, " P"]:
        """Returns the ranks of a split's targets, with the scores of further rules added."""
        scores = self.scores[split] if extra is None else csr_array(self.scores[split] + weight * extra)
        return baselines.sparse_places(scores, self.study.counts, getattr(self.study.dataset, split)).ranks()

    @functools.cached_property
    def base_ranks(self) -> dict[str, Int[np.ndarray, " P"]]:
        """Split → ranks of the targets without an answer."""
        return {split: self.ranks(split) for split in self.scores}

    def worth(self, answers: alkd.Rankings) -> dict[str, Any]:
        """Returns what answers are worth: their weight by validation, and metrics and differences on both splits."""
        rules = item_rules.answer_rules(answers, self.study.dataset.num_items)
        extra = self.scores_of(rules, "validation")
        of_weights = {weight: self.ranks("validation", extra, weight) for weight in WEIGHTS}
        weight = max(WEIGHTS, key=lambda each: _quality(of_weights[each]))
        found: dict[str, Any] = {"weight": weight, "validation": self._compare("validation", of_weights[weight])}
        test = self.ranks("test", self.scores_of(rules, "test"), weight)
        return found | {"test": self._compare("test", test)}

    def _compare(self, split: str, ranks: Int[np.ndarray, " P"]) -> dict[str, float]:
        hits, before = ranks <= 10, self.base_ranks[split] <= 10
        gained = hits.astype(float) - before
        return {
            "recall@10": round(float(hits.mean()), 6),
            "ndcg@10": round(metrics.from_ranks(ranks)["ndcg@10"], 6),
            "gain": round(float(gained.mean()), 6),
            "error": round(float(gained.std(ddof=1) / np.sqrt(len(gained))), 6),
        }


def stored_answers(file: pathlib.Path) -> dict[str, tuple[alkd.Rankings, float]]:
    """Reads the answers about items in a store, such as that of :func:`alkd_jax.llm.items_before`; sends nothing.

    Args:
        file: the store.

    Returns:
        Model → the items named for each item, and the dollars that the answers cost.

    Raises:
        ValueError: the store has no answer about an item, or is damaged.
    """
    named: dict[str, dict[int, tuple[int, ...]]] = {}
    paid: dict[str, int] = {}
    with Store.open(file, readonly=True) as store:
        for record in exchange.records(store):
            if record["kind"] == item_prompts.KIND and record["items"]:
                model = str(record["model"])
                named.setdefault(model, {})[record["session_id"]] = item_prompts.named_items(record["items"])
                paid[model] = paid.get(model, 0) + int(record["cost_pico"])
    if not named:
        raise ValueError(f"{file} has no usable answer about an item; expected a store of alkd.llm.items_before")
    return {
        model: (
            lists_to_rankings(dict(sorted(lists.items())), max(1, *map(len, lists.values()))),
            paid[model] / pricing.PICO,
        )
        for model, lists in named.items()
    }


def _quality(ranks: Int[np.ndarray, " P"]) -> float:
    values = metrics.from_ranks(ranks)
    return values["recall@10"] + values["ndcg@10"]


def check_numbers(numbers: Sequence[int], accuracies: Sequence[float]) -> None:
    """Raises ValueError where there is no number of questions, or an accuracy is out of range."""
    check_count(1, **{"--numbers": len(numbers), "--accuracies": len(accuracies)})
    check_count(1, **{"--numbers": min(numbers)})
    check_between(0, 1, **{"--accuracies": min(accuracies)})
    check_between(0, 1, **{"--accuracies": max(accuracies)})
