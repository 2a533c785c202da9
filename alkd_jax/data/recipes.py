"""Recipes: named, complete rules by which published work made its dataset from a source, with the counts it reports."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from alkd_jax.checks import check_one_of
from alkd_jax.data.catalogue import UNTITLED_OPTIONS
from alkd_jax.data.interactions import Interactions
from alkd_jax.data.prepared import PART_NAMES, Prepared, prepare
from alkd_jax.data.session_rules import SessionRules
from alkd_jax.data.splits import SplitRules
from alkd_jax.registry import Registry


class Counts(NamedTuple):
    """Numbers that identify a dataset before it is split; what a split gives to several parts counts once."""

    sessions: int
    users: int
    items: int
    interactions: int


class PartCounts(NamedTuple):
    """Numbers of one part of a split."""

    sessions: int
    items: int
    interactions: int


class Comparison(NamedTuple):
    """A published number beside that of a dataset made here."""

    what: str
    published: int
    here: int

    def is_within(self, tolerance: float = 0.0) -> bool:
        """Whether the numbers differ by no more than a share of the published one."""
        return abs(self.here - self.published) <= tolerance * self.published

    def line(self, tolerance: float = 0.0) -> str:
        """Both numbers, and pass, or fail with the difference."""
        verdict = "pass" if self.is_within(tolerance) else f"fail ({self.here - self.published:+,})"
        return f"{self.what}: {self.published:,} published, {self.here:,} here: {verdict}"


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
        published_parts: name of a dataset → name of a part ("train", "validation" or "test") → its counts in the
            publication.
        unverified: whether the recipe was never run on the data of the publication, because they are not at hand, so
            that its counts here may differ.
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
    published_parts: Mapping[str, Mapping[str, PartCounts]] = dataclasses.field(default_factory=dict)
    unverified: bool = False

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
            ``statement``, ``reference``, ``unverified``, ``counts``, ``same_counts_as``, the name of the published
            dataset with the same numbers of users, items and interactions, None if there is none, and ``comparisons``,
            the published numbers of the dataset of this name beside those here.
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
            "unverified": self.unverified,
            "comparisons": [comparison._asdict() for comparison in self.compare(prepared)],
        }
        return dataclasses.replace(prepared, report={**prepared.report, "recipe": description})

    def compare(self, prepared: Prepared) -> tuple[Comparison, ...]:
        """Returns each published number of the dataset of this name beside that here; empty where there is none."""
        found = []
        if prepared.name in self.published:
            pairs = zip(Counts._fields, self.published[prepared.name], count(prepared), strict=True)
            found += [Comparison(name, published, here) for name, published, here in pairs]
        parts = count_parts(prepared) if prepared.name in self.published_parts else {}
        for part, known in self.published_parts.get(prepared.name, {}).items():
            pairs = zip(PartCounts._fields, known, parts[part], strict=True)
            found += [Comparison(f"{part} {name}", published, here) for name, published, here in pairs]
        return tuple(found)


def count_parts(prepared: Prepared) -> dict[str, PartCounts]:
    """Counts each part of a split: name of the part → its numbers."""
    items, length = np.asarray(prepared.sequences.items), np.diff(np.asarray(prepared.sequences.offsets))
    part = np.repeat(np.arange(len(PART_NAMES)), prepared.sizes)
    part_of_event = np.repeat(part, length)
    return {
        name: PartCounts(prepared.sizes[n], len(np.unique(items[part_of_event == n])), int(np.sum(part_of_event == n)))
        for n, name in enumerate(PART_NAMES)
    }


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


_DAY = 86_400_000
_RETAILROCKET_END = 1_442_545_200_000
"""The end of the last day of RetailRocket's events in GRU4Rec's preparation, 2015-09-18 03:00 UTC."""

_GRU4REC_SESSIONS = SessionRules(
    boundary="given",
    min_length=2,
    max_length=None,
    duplicates="adjacent",
    count_duplicates=False,
    ties="id",
    min_item_count=5,
    repeat_filter=True,
)
_GRU4REC = (
    "Hidasi, Czapp: The Effect of Third Party Implementations on Reproducibility, RecSys 2023, and its preparation of "
    "the data"
)


def _gru4rec(name: str, source: str, split: SplitRules, **sessions: Any) -> Recipe:
    """Returns the preparation of GRU4Rec's authors: no repeats in a row, then no rare items and no short sessions."""
    return Recipe(
        name=name,
        sources=(source,),
        sessions=dataclasses.replace(_GRU4REC_SESSIONS, **sessions),
        split=split,
        untitled="keep",
        seen="keep",
        targets="all",
        unverified=True,
        reference=_GRU4REC,
    )


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
        "gru4rec-yoochoose": _gru4rec(
            "gru4rec-yoochoose", "yoochoose:CLICKS:TEST", SplitRules("time-start", unseen="drop"), resolution=1000
        ),
        "gru4rec-diginetica": _gru4rec(
            "gru4rec-diginetica", "diginetica:VIEWS", SplitRules("time-start", days=7, unseen="drop")
        ),
        "gru4rec-retailrocket": _gru4rec(
            "gru4rec-retailrocket",
            "retailrocket:PATH",
            SplitRules(
                "time-start",
                test_time=_RETAILROCKET_END - 7 * _DAY,
                validation_time=_RETAILROCKET_END - 14 * _DAY,
                unseen="drop",
            ),
            boundary="gap",
            gap_minutes=60,
            events=("view",),
        ),
        "core-diginetica": Recipe(
            name="core-diginetica",
            sources=("diginetica:VIEWS",),
            sessions=SessionRules(boundary="given", min_length=2, max_length=None, duplicates="keep", min_item_count=5),
            split=SplitRules("day-order", fractions=(0.8, 0.1, 0.1), unseen="drop"),
            untitled="keep",
            seen="keep",
            targets="all",
            unverified=True,
            reference="Hou, Hu, Zhang, Zhao: CORE: Simple and Effective Session-based Recommendation within Consistent "
            "Representation Space, SIGIR 2022, and its preparation of the data",
        ),
        "session-rec": Recipe(
            name="session-rec",
            sources=("yoochoose:CLICKS",),
            sessions=SessionRules(boundary="given", min_length=2, max_length=None, duplicates="keep", min_item_count=5),
            split=SplitRules("time-end", unseen="drop"),
            untitled="keep",
            seen="keep",
            targets="all",
            published_parts={
                "Yoochoose": {
                    "train": PartCounts(7_953_885, 37_483, 31_579_006),
                    "validation": PartCounts(12_372, 6_359, 58_233),
                    "test": PartCounts(15_324, 6_751, 71_222),
                }
            },
            unverified=True,
            reference="Ludewig, Jannach: Evaluation of Session-based Recommendation Algorithms, UMUAI 2018; the counts "
            "are those of GRU4Rec's first preparation of the same rules (Hidasi et al., ICLR 2016)",
        ),
    },
    "a Recipe",
    lambda name, found: found if isinstance(found, Recipe) else None,
)
"""Name of a recipe → its rules."""
