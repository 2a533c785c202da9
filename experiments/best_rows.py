"""The rows of the search for the strongest student: the recipe, the recipe with one part changed, and the rest."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np

import alkd_jax as alkd
from alkd_jax import neighbors, objectives, samplers
from alkd_jax.distillation import best
from alkd_jax.distillation.best import Recipe
from alkd_jax.distillation.counted import counted_labels
from alkd_jax.examples import every_prefix
from alkd_jax.llm import replay
from experiments import distilling
from experiments.sources import parse_source

GROUPS = ("student", "ablation", "widths", "lists", "backbones")
LISTED = "with 500 LLM lists"
LIST_WEIGHT = 3.0
"""Weight of a list in the rows that ask about lists, where the recipe itself reads none."""

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
    """

    name: str
    train: Train
    identity: dict[str, Any]
    test: bool = False
    compared: bool = False

    @property
    def slug(self) -> str:
        """The name as a file's."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


def rows(groups: Sequence[str], data: str, dataset: alkd.Dataset, recipe: Recipe) -> list[Row]:
    """The rows of these groups, the recipe's own first.

    Raises:
        ValueError: a group is unknown, or there are no recorded lists to ask about.
    """
    unknown = set(groups) - {*GROUPS, "all"}
    if unknown:
        raise ValueError(f"--rows has {sorted(unknown)}; expected some of {', '.join(GROUPS)}, or all")
    wanted = set(GROUPS) if "all" in groups else set(groups)
    if "all" in groups and parse_source(data).kind != "released":
        wanted -= {"lists"}
    found = [taught("recipe", recipe, test=True, compared=True)]
    if "ablation" in wanted:
        found += ablation(recipe)
    if "widths" in wanted:
        found += [taught(f"recipe, width {dim}", recipe, dim=dim, test=True) for dim in (16, 32, 64, 100)]
    if "lists" in wanted:
        found += list_rows(data, dataset, recipe)
    if "backbones" in wanted:
        found += backbones()
    return found


def taught(
    name: str,
    recipe: Recipe,
    *,
    dim: int = 10,
    rankings: alkd.Rankings | None = None,
    test: bool = False,
    compared: bool = False,
) -> Row:
    """A student taught item by item."""
    train = functools.partial(best.train, preset=recipe, dim=dim, rankings=rankings)
    lists = "" if rankings is None else distilling.digest(rankings)
    return Row(name, train, {"recipe": dataclasses.asdict(recipe), "dim": dim, "lists": lists}, test, compared)


def ablation(recipe: Recipe) -> list[Row]:
    """The recipe with one part changed."""
    changes: dict[str, dict[str, Any]] = {
        "separate tables": {"shared": False},
        "all items of a session alike": {"recency": 1.0},
        "only what comes after": {"backward": 0.0},
        "before as much as after": {"backward": 1.0},
        "adjacent items only": {"decay": 0.01},
        "no titles": {"titles": 0.0},
        "more titles": {"titles": max(0.5, 2 * recipe.titles)},
        "rules as counted": {"power": 1.0},
        "rules sharper": {"power": 2.0},
        "frequent items say as much": {"damping": 0.0},
        "16 places": {"places": 16},
        "half the steps": {"max_steps": recipe.max_steps // 2},
        "twice the steps": {"max_steps": 2 * recipe.max_steps},
    }
    made = {name: dataclasses.replace(recipe, **change) for name, change in changes.items()}
    return [taught(name, changed) for name, changed in made.items() if changed != recipe]


def list_rows(data: str, dataset: alkd.Dataset, recipe: Recipe) -> list[Row]:
    """The recipe with lists for the 500 sessions that the authors' selection names, and with others in their place."""
    source = parse_source(data)
    if source.kind != "released":
        raise ValueError("--rows lists needs --data released:PATH:NAME, which has recorded lists")
    recorded, _ = alkd.data.load_released_rankings(source.path, source.name)
    chosen = alkd.data.load_released_selection(source.path, source.name, "ALKDRec")[:500]
    llm = replay.replay(recorded, chosen)[0]
    order = np.random.default_rng(0).permutation(len(llm))
    shuffled = alkd.Rankings(llm.session_id, llm.items[order], llm.mask[order])
    counted = neighbors.held_out_lists(
        neighbors.co_occurrence, dataset.train_sequences, dataset.num_items, dataset.train, 25
    )
    asked = np.isin(counted.session_id, llm.session_id)
    same = jax.tree.map(lambda leaf: leaf[asked], counted)
    with_lists = dataclasses.replace(recipe, lists=recipe.lists or LIST_WEIGHT)
    kinds = {LISTED: llm, "with 500 shuffled LLM lists": shuffled, "with 500 co-occurrence lists": same}
    found = [taught(name, with_lists, rankings=lists, test=True, compared=True) for name, lists in kinds.items()]
    target = dict(zip(dataset.train.session_id.tolist(), dataset.train.target.tolist(), strict=True))
    hit = np.array([target[session] in row for session, row in zip(llm.session_id.tolist(), llm.items, strict=True)])
    drawn = np.random.default_rng(1).permutation(len(recorded))
    parts = {
        "with the LLM lists that hold the next item": jax.tree.map(lambda leaf: leaf[hit], llm),
        **{f"with {n:,} LLM lists": jax.tree.map(lambda leaf, n=n: leaf[drawn[:n]], recorded) for n in (50, 1500)},
        "with every recorded LLM list": recorded,
    }
    found += [taught(name, with_lists, rankings=lists) for name, lists in parts.items()]
    more = {f"{LISTED}, weight {weight:g}": weight for weight in (1.0, 10.0) if weight != with_lists.lists}
    return found + [taught(n, dataclasses.replace(recipe, lists=w), rankings=llm) for n, w in more.items()]


def backbones() -> list[Row]:
    """The paper's backbones trained well, and late interaction trained end to end."""

    def whole(name: str, backbone: str, **options: Any) -> Row:
        identity = {"backbone": backbone, **{key: str(value) for key, value in options.items()}}
        return Row(name, functools.partial(by_sessions, backbone=backbone, **options), identity, test=True)

    return [
        whole("FPMC, every prefix, in-batch softmax", "fpmc"),
        whole("FPMC, every prefix, in-batch BPR", "fpmc", loss="bpr"),
        whole("FPMC, every prefix, sampled softmax", "fpmc", loss="sampled"),
        whole("FPMC, every prefix, full softmax", "fpmc", loss="full"),
        whole("FPMC, every prefix, half the loss on rules' lists", "fpmc", loss="taught"),
        whole("FPMC, every prefix, weight decay", "fpmc", weight_decay=0.01),
        whole("FPMC, cloze, in-batch softmax", "fpmc", targets="cloze"),
        whole("STAMP, every prefix, in-batch softmax", "stamp"),
        whole("late, every prefix, in-batch softmax", "late"),
        whole("late, every prefix, items dropped", "late", model={"item_dropout": 0.2}),
    ]


def by_sessions(
    key: jax.Array,
    dataset: alkd.Dataset,
    *,
    backbone: str,
    loss: str = "softmax",
    model: Mapping[str, Any] | None = None,
    **options: Any,
) -> tuple[Any, Any]:
    """A backbone trained on the sessions themselves."""
    made = alkd.models.create(backbone, num_items=dataset.num_items, dim=10, **(model or {}))
    sequences = dataset.train_sequences
    if loss == "bpr":
        options["loss"] = objectives.in_batch_loss(made)
    if loss == "full":
        options["loss"] = objectives.full_softmax(made)
    if loss == "sampled":
        options["loss"] = objectives.sampled_loss(made, "softmax", num_negatives=256)
        options["aside"] = {"sampler": samplers.by_popularity(np.asarray(sequences.items), dataset.num_items)}
    if loss == "taught":
        examples = every_prefix(sequences)
        items, gain = counted_labels(neighbors.sequential_rules, sequences, dataset.num_items, examples)
        options["loss"] = objectives.taught_softmax(made)
        options["aside"] = {"list_items": items, "list_gain": gain, "list_share": 0.5}
    return made, best.train_backbone(key, dataset, made, **options)
