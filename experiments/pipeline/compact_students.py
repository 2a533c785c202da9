"""Students by their bytes: sparse tables and stored sessions, whose options are chosen on validation sessions alone."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

import alkd_jax as alkd
from alkd_jax import baselines
from alkd_jax.data import item_vectors
from alkd_jax.distillation import item_rules
from alkd_jax.distillation.item_rules import TableRecipe
from alkd_jax.evaluation import Protocol, metrics
from alkd_jax.models import PackedStudent, packed_sessions

from .console import stage_bar
from .protocols import ranked_sessions

BUDGETS_KB = (64, 150, 375, 640, 1150, 2000)
"""Sizes of the best students: a KB is 1,000 bytes of the files that are needed to answer."""

METRICS = ("recall@10", "ndcg@10")
"""What students are compared by; options are chosen by their sum on validation."""

STORED = "Stored sessions + rules"

FILE_OVERHEAD = 2600
"""Bytes that are set aside for `config.json` and the header of the weights."""

MOST_SESSIONS = 8192
"""Number of validation sessions, drawn at random, on which options are chosen: a file may begin with unusual ones."""

GRID: Mapping[str, Sequence[float]] = {
    "titles": (0.0, 0.5, 1.0, 1.5, 2.0, 3.0),
    "recency": (0.35, 0.5, 0.65, 0.8),
    "backward": (0.0, 0.25, 0.5, 1.0),
    "decay": (0.5, 0.8, 0.9, 0.95),
    "damping": (0.0, 0.3, 0.5),
}
"""Option of the rules → values, tried one option after the other, twice."""

USES = (0.0, 0.5)
"""Values of `TableRecipe.use`, tried for each size."""

TITLE_PLACES = (3, 5, 10, 20, 40)
"""Values of `TableRecipe.title_places`, likewise where the recipe reads titles."""

LABEL_GRID: Mapping[str, Sequence[float]] = {
    "labels": (2.0, 0.5, 1.0, 5.0, 10.0),
    "label_places": (10, 20, 40),
    "temperature": (1.0, 1.5, 2.0, 3.0),
}
"""Option → values of the labels of a re-ranker, likewise for each size; the first ones are where the search starts."""

Found: TypeAlias = tuple[PackedStudent, TableRecipe, dict[str, float]]
"""A student, its recipe and its quality on validation."""


def has_titles(dataset: alkd.Dataset) -> bool:
    """Whether most items have a title that is not their id."""
    titles = [title for title, item_id in zip(dataset.titles, dataset.item_ids, strict=True) if title != item_id]
    return sum(map(bool, titles)) > dataset.num_items / 2


def title_similarity(dataset: alkd.Dataset, vectors: str | None) -> csr_array | None:
    """Returns the cosines of titles: of tf-idf words, and of an encoder's vectors where there are any.

    With both, ``C² = ¾ C²_vectors + ¼ C²_words``. None where the items have no titles and there are no vectors.

    Args:
        dataset: the data.
        vectors: file of vectors, see :func:`alkd_jax.data.item_vectors.read_vectors`.
    """
    words = None
    if has_titles(dataset):
        words = item_rules.title_neighbors(item_rules.word_vectors(dataset.titles), min_cosine=0.2)
    if vectors is None:
        return words
    encoded = item_rules.title_neighbors(item_vectors.read_vectors(vectors, dataset.num_items), min_cosine=0.4)
    if words is None:
        return encoded
    return (0.75 * encoded.power(2) + 0.25 * words.power(2)).sqrt().tocsr()


@dataclasses.dataclass(frozen=True, eq=False)
class Search:
    """Chooses options on the validation sessions.

    Attributes:
        dataset: the data.
        protocol: how sessions are evaluated.
        neighbors: cosines of titles, None without.
        labels: a re-ranker's labels for items, None without.
    """

    dataset: alkd.Dataset
    protocol: Protocol
    neighbors: csr_array | None
    labels: csr_array | None = None

    @functools.cached_property
    def counts(self) -> baselines.Counts:
        """Counts of the training sessions, for the number of items."""
        return baselines.count(self.dataset.train_sequences, self.dataset.num_items)

    def places(self, scorer: baselines.Scorer, split: str, *, ks: Sequence[int] = ()) -> baselines.Places:
        """Returns the places of the targets of a split by a scorer that breaks ties; of validation some targets."""
        sessions = ranked_sessions(self.dataset, self.protocol, split)
        if split == "validation" and isinstance(sessions, alkd.Sessions):
            order = np.random.default_rng(0).permutation(len(sessions))
            sessions = sessions.take(np.sort(order[:MOST_SESSIONS]))
        return baselines.target_places(
            scorer,
            self.counts,
            sessions,
            seen=self.protocol.seen,
            targets=self.protocol.targets,
            max_length=self.dataset.test.items.shape[1],
            ks=ks,
            ties_broken=True,
        )

    def quality(self, scorer: baselines.Scorer) -> dict[str, float]:
        """Returns recall@10 and NDCG@10 on validation, and their sum, by which options are chosen."""
        found = quality_of_ranks(self.places(scorer, "validation").ranks(ties=self.protocol.ties))
        return found | {"sum": sum(found.values())}

    def rules(self, recipe: TableRecipe) -> csr_array:
        """Returns all rules of a recipe without labels."""
        return item_rules.table_rules(self.dataset, recipe, self.neighbors)

    @functools.cached_property
    def sharpened_labels(self) -> Callable[[float, int], csr_array]:
        """Labels by temperature and number of places, each computed once for all sizes."""
        labels = self.labels
        assert labels is not None

        @functools.cache
        def sharpened(temperature: float, places: int) -> csr_array:
            return item_rules.sharpened(labels, temperature=temperature, places=places)

        return sharpened

    def tried(self, start: TableRecipe, grid: Mapping[str, Sequence[float]]) -> tuple[TableRecipe, dict[str, float]]:
        """Returns the best recipe for uncompressed rules, see :func:`best_of_grid`, and its quality."""
        read = {name: values for name, values in grid.items() if name != "titles" or self.neighbors is not None}
        return best_of_grid(
            start, read, lambda recipe: self.quality(rules_scorer(self.counts, self.rules(recipe), recipe.recency))
        )

    def with_title_places(self, recipe: TableRecipe) -> list[tuple[TableRecipe, csr_array]]:
        """Returns the recipe with each number of title neighbors, where it reads titles, and all rules of each."""
        all_places = TITLE_PLACES if recipe.titles else (recipe.title_places,)
        recipes = [dataclasses.replace(recipe, title_places=places) for places in all_places]
        return [(variant, self.rules(variant)) for variant in recipes]

    def tables_of_size(
        self, variants: Sequence[tuple[TableRecipe, csr_array]], kilobytes: int
    ) -> tuple[list[Found], list[Found]]:
        """Returns the sparse tables that fit into a size, and the counted ones."""
        found: tuple[list[Found], list[Found]] = [], []
        most = 1000 * kilobytes - FILE_OVERHEAD
        for recipe, rules in variants:
            for use in USES:
                tried = dataclasses.replace(recipe, use=use)
                table = item_rules.table_student(self.dataset, tried, max_bytes=most, rules=rules)
                counted = item_rules.counted_student(self.dataset, tried, max_bytes=most, neighbors=self.neighbors)
                for student, of_kind in zip((table, counted), found, strict=True):
                    if student is not None:
                        of_kind.append((student, tried, self.quality(baselines.packed_scorer(student))))
        return found

    def best_recency(self, found: Found) -> Found:
        """Returns a student with the best recency, which only its scores read."""
        student, recipe, _ = found
        others = [found]
        for recency in GRID["recency"]:
            if recency != recipe.recency:
                other = dataclasses.replace(student, options={**student.options, "recency": recency})
                quality = self.quality(baselines.packed_scorer(other))
                others.append((other, dataclasses.replace(recipe, recency=recency), quality))
        return _best(others)

    def sparse_table_of_size(
        self,
        start: TableRecipe,
        variants: Sequence[tuple[TableRecipe, csr_array]],
        kilobytes: int,
        grid: Mapping[str, Sequence[float]],
    ) -> Found:
        """Returns the best sparse table that fits into a size, by :func:`best_of_grid`.

        Args:
            start: where the search starts; with labels where they are not 0.
            variants: the recipes with each number of title neighbors, and all rules of each, without labels.
            kilobytes: the size.
            grid: options that are tried besides those that tables without labels have, too: the number of title
                neighbors, `use` and the recency.
        """
        without = {recipe.title_places: rules for recipe, rules in variants}

        def table(recipe: TableRecipe) -> PackedStudent:
            rules = without[recipe.title_places]
            if recipe.labels:
                kept = self.sharpened_labels(recipe.temperature, recipe.label_places)
                rules = item_rules.add_labels(rules, kept, recipe.labels)
            return item_rules.table_student(
                self.dataset, recipe, max_bytes=1000 * kilobytes - FILE_OVERHEAD, rules=rules
            )

        recipe, quality = best_of_grid(
            start,
            {**grid, "title_places": tuple(without), "use": USES, "recency": GRID["recency"]},
            lambda recipe: self.quality(baselines.packed_scorer(table(recipe))),
        )
        return table(recipe), recipe, quality


def best_of_grid(
    start: TableRecipe, grid: Mapping[str, Sequence[float]], quality: Callable[[TableRecipe], dict[str, float]]
) -> tuple[TableRecipe, dict[str, float]]:
    """Returns the recipe of the highest sum of metrics, and its quality: one option is tried at a time, each twice."""
    best, found = start, quality(start)
    known = {start}
    for name, values in [*grid.items(), *grid.items()]:
        for value in values:
            option: dict[str, Any] = {name: value}
            recipe = dataclasses.replace(best, **option)
            if recipe in known:
                continue
            known.add(recipe)
            of_recipe = quality(recipe)
            if of_recipe["sum"] > found["sum"]:
                best, found = recipe, of_recipe
    return best, found


def quality_of_ranks(ranks: Int[np.ndarray, " P"]) -> dict[str, float]:
    """Returns the :data:`METRICS` of ranks with six decimals."""
    values = metrics.from_ranks(ranks)
    return {name: round(float(values[name]), 6) for name in METRICS}


def rules_scorer(counts: baselines.Counts, rules: csr_array, recency: float) -> baselines.Scorer:
    """Returns the scorer of uncompressed rules: ``Σ_j λʲ R[x_j, v]``, and a millionth for the most popular item."""
    tie_break = 1e-6 * counts.popularity / counts.popularity.max()

    def scores(histories: baselines.Histories) -> Float[np.ndarray, "B V1"]:
        weights = recency ** baselines.steps_to_end(histories.mask)
        return (baselines.query_matrix(counts, histories, weights) @ rules).toarray() + tie_break

    return scores


def compact_students(search: Search) -> Iterator[tuple[str, PackedStudent, dict[str, Any]]]:
    """Yields the name of each student, the student, and what was chosen for it and how good it is on validation."""
    without_titles = {name: values for name, values in GRID.items() if name != "titles"}
    recipe, _ = search.tried(TableRecipe(damping=0.3, repeats=search.protocol.seen == "keep"), without_titles)
    options = {name: getattr(recipe, name) for name in ("decay", "recency", "backward", "damping")}
    stored = packed_sessions(search.dataset.train_sequences, search.dataset.num_items, **options)
    yield STORED, stored, {"options": options} | search.quality(baselines.packed_scorer(stored))
    if search.neighbors is not None:
        # Damping makes rules small beside titles, so that the best weights with and without it lie far apart.
        starts = {dataclasses.replace(recipe, titles=1.5, damping=damping) for damping in (0.0, recipe.damping)}
        ends = [search.tried(start, GRID) for start in sorted(starts, key=lambda start: start.damping)]
        recipe, _ = max(ends, key=lambda end: end[1]["sum"])
    variants = search.with_title_places(recipe)
    with stage_bar("students by size", total=len(BUDGETS_KB)) as bar:
        of_sizes = []
        for kilobytes in BUDGETS_KB:
            of_sizes.append(_students_of_size(search, variants, kilobytes))
            bar.update(len(of_sizes))
    students = list(_up_to_size(student_name, [_best(of_size) for of_size in of_sizes]))
    yield from students
    for student, untaught in zip(
        students, _up_to_size(untaught_name, [of_size[0] for of_size in of_sizes]), strict=True
    ):
        if student[2] != untaught[2]:
            yield untaught


def _students_of_size(
    search: Search, variants: Sequence[tuple[TableRecipe, csr_array]], kilobytes: int
) -> tuple[Found, ...]:
    """Returns the best student of a size without labels, and where there are labels the best one with them."""
    sparse, counted = search.tables_of_size(variants, kilobytes)
    start = _best(sparse)[1]
    without = [search.sparse_table_of_size(start, variants, kilobytes, {})]
    if counted:
        without.append(search.best_recency(_best(counted)))
    if search.labels is None:
        return (_best(without),)
    # A counted table has no labels.
    first: dict[str, Any] = {name: values[0] for name, values in LABEL_GRID.items()}
    start = dataclasses.replace(start, **first)
    return _best(without), search.sparse_table_of_size(start, variants, kilobytes, LABEL_GRID)


def _best(found: Sequence[Found]) -> Found:
    """Returns the one with the highest sum of metrics, the first of several."""
    return max(found, key=lambda each: each[2]["sum"])


def _up_to_size(
    name: Callable[[int], str], found: Sequence[Found]
) -> Iterator[tuple[str, PackedStudent, dict[str, Any]]]:
    """Yields the best student of at most each size: a larger one is not always better, and a smaller one fits too."""
    for place, kilobytes in enumerate(BUDGETS_KB):
        student, recipe, quality = _best(found[: place + 1])
        yield name(kilobytes), student, {"options": dataclasses.asdict(recipe)} | quality


_STUDENT, _UNTAUGHT = "Best student (<= ", "Without labels (<= "


def student_name(kilobytes: int) -> str:
    """Returns the name of the best student of at most this size."""
    return f"{_STUDENT}{kilobytes} KB)"


def untaught_name(kilobytes: int) -> str:
    """Returns the name of the best student of at most this size that has no labels, where others have them."""
    return f"{_UNTAUGHT}{kilobytes} KB)"


def is_student(name: str) -> bool:
    """Whether a row is that of the best student of a size, with or without labels."""
    return name.startswith((_STUDENT, _UNTAUGHT))


def is_untaught(name: str) -> bool:
    """Whether a row is that of a student without labels, where others have them."""
    return name.startswith(_UNTAUGHT)
