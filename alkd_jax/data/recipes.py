"""Recipes: named, complete rules by which published work made its dataset from a source, with the counts it reports."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from alkd_jax.checks import check_one_of
from alkd_jax.data.catalogue import UNTITLED_OPTIONS
from alkd_jax.data.interactions import Interactions
from alkd_jax.data.prepared import Prepared, prepare
from alkd_jax.data.sessionize import SessionRules
from alkd_jax.data.splits import SplitRules
from alkd_jax.registry import Registry


class Counts(NamedTuple):
    """Numbers that identify a dataset before it is split; what a split gives to several parts counts once."""

    sessions: int
    users: int
    items: int
    interactions: int


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a dataset is made from a source, and how models on it are evaluated.

    Attributes:
        name: name of the recipe.
        sources: forms of source strings that the published work used, such as ``userseq:FILE``.
        sessions: how sessions are made.
        split: how they are split; :meth:`refitted` makes the recipe that trains on validation items too.
        keep_given: whether sessions and a split that the source gives replace those of the recipe.
        untitled: "drop" or "keep" items that are not in the file of titles.
        seen: "exclude" or "keep" items of the history in rankings.
        targets: targets of an evaluated session: "last", "first" or "all".
        published: name of a dataset → its counts in the publication.
        reference: the publication.
    """

    name: str
    sources: tuple[str, ...]
    sessions: SessionRules
    split: SplitRules
    reference: str
    keep_given: bool = False
    untitled: str = "drop"
    seen: str = "exclude"
    targets: str = "last"
    published: Mapping[str, Counts] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ValueError if an option is unknown."""
        check_one_of("untitled", self.untitled, UNTITLED_OPTIONS)
        check_one_of("seen", self.seen, ("exclude", "keep"))
        check_one_of("targets", self.targets, ("last", "first", "all"))

    def refitted(self) -> "Recipe":
        """Returns the recipe whose training sessions contain the validation items, for a last fit before the test.

        Raises:
            ValueError: the split is not "leave-one-out".
        """
        return dataclasses.replace(self, split=dataclasses.replace(self.split, refit=True))

    def for_log(self, log: Interactions) -> "Recipe":
        """Returns the recipe for one source, with the sessions and the split that it gives if these replace its own."""
        if not self.keep_given:
            return self
        sessions = dataclasses.replace(self.sessions, boundary=log.default_boundary)
        split = dataclasses.replace(self.split, rule=log.default_split)
        return dataclasses.replace(self, sessions=sessions, split=split, keep_given=False)

    def described(self, prepared: Prepared) -> Prepared:
        """Adds the recipe to the report on a dataset that was made by it.

        Returns:
            The dataset with ``report["recipe"]``: ``recipe``, ``protocol`` with ``seen`` and ``targets``,
            ``statement``, ``reference``, ``counts``, and ``same_counts_as``, the name of the published dataset with the
            same numbers of users, items and interactions, None if there is none.
        """
        counts = count(prepared)
        names = [name for name, known in self.published.items() if known == counts]
        description = {
            "recipe": self.name,
            "protocol": {"seen": self.seen, "targets": self.targets},
            "statement": self.split.statement,
            "reference": self.reference,
            "counts": counts._asdict(),
            "same_counts_as": names[0] if names else None,
        }
        return dataclasses.replace(prepared, report={**prepared.report, "recipe": description})


def count(prepared: Prepared) -> Counts:
    """Counts a dataset as a whole, whatever the split."""
    rows = prepared.distinct_rows
    length = np.diff(np.asarray(prepared.sequences.offsets))[rows]
    return Counts(len(rows), len(np.unique(prepared.user)), len(prepared.item_ids) - 1, int(length.sum()))


def prepare_by(recipe: Recipe, log: Interactions) -> Prepared:
    """Makes a dataset by a recipe.

    Args:
        recipe: the rules.
        log: E interactions.

    Returns:
        The sessions in the order of the parts, with the report of :meth:`Recipe.described`.

    Raises:
        ValueError: as in :func:`alkd_jax.data.prepare`.
    """
    used = recipe.for_log(log)
    return used.described(prepare(log, used.sessions, used.split, untitled=used.untitled))


RECIPES = Registry[Recipe](
    "recipe",
    {
        "alkdrec": Recipe(
            name="alkdrec",
            sources=("hetrec2011:PATH", "amazon2018:REVIEWS:META"),
            sessions=SessionRules(),
            split=SplitRules(),
            keep_given=True,
            reference="Du et al.: Active Large Language Model-Based Knowledge Distillation for Session-Based "
            "Recommendation, AAAI 2025",
        ),
        "s3rec": Recipe(
            name="s3rec",
            sources=("userseq:FILE",),
            sessions=SessionRules(boundary="user", min_length=1, max_length=None, duplicates="keep"),
            split=SplitRules("leave-one-out"),
            untitled="keep",
            published={
                "Beauty": Counts(22_363, 22_363, 12_101, 198_502),
                "Sports_and_Outdoors": Counts(35_598, 35_598, 18_357, 296_337),
                "Toys_and_Games": Counts(19_412, 19_412, 11_924, 167_597),
            },
            reference="Zhou et al.: S3-Rec: Self-Supervised Learning for Sequential Recommendation with Mutual "
            "Information Maximization, CIKM 2020",
        ),
    },
    "a Recipe",
    lambda name, found: found if isinstance(found, Recipe) else None,
)
"""Name of a recipe → its rules."""
