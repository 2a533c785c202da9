"""The options of `experiments.train`, and what stands in for those that are not given."""

import dataclasses
import json
import pathlib
from typing import Annotated, Any

from alkd_jax.checks import check_at_least, check_between, check_one_of
from alkd_jax.data.interactions import Interactions
from alkd_jax.data.readers import registry
from alkd_jax.data.recipes import RECIPES
from alkd_jax.errors import shown
from alkd_jax.evaluation import Protocol
from alkd_jax.objectives.positions import NEGATIVES
from alkd_jax.ops.precision import PRECISIONS
from alkd_jax.training.arguments import TARGETS

from . import item_channels
from . import options as shared
from .backbone_defaults import BackboneDefaults, defaults_of
from .loss_names import LOSSES, check_parallel_options

TRAIN_TARGETS = (*TARGETS, "parallel")
"""What training predicts."""
_EXAMPLE = '{"blocks": 2, "dropout": 0.1}'
_LOSS_EXAMPLE = '{"exponent": 0.5, "logq": 1.0}'


@dataclasses.dataclass(frozen=True)
class Train:
    """Options of the command. An option that is not given has the value of the backbone's publication.

    Attributes:
        out: folder of the run.
        recipe: recipe by which raw data are prepared; by default that of their kind.
        options: options of the backbone as JSON, by name, such as {"blocks": 2, "dropout": 0.1}.
        dim: width.
        max_length: number of most recent items that the backbone reads.
        num_negatives: number of sampled negatives of a target.
        loss_options: options of the loss of the targets "parallel" as JSON, by name: exponent α of sampling negatives
            by count^α, logq, repeats, and of bpr_max regularization and elu.
        corrected: correct the sampled softmax of positions for the sampling rate, so that it tends to the full softmax.
        seed: of all random numbers.
        batch_size: examples of a step; whole sessions for the targets "positions".
        learning_rate: of Adam; of Adagrad for the targets "parallel".
        momentum: of Adagrad.
        max_epochs: largest number of epochs.
        patience: epochs without a higher validation recall after which a seed stops.
        recall_at: k of the validation recall.
        refit: train again on training and validation items, for the number of steps that validation chose.
    """

    source: shared.Data
    backbone: shared.Backbone
    out: pathlib.Path
    recipe: Annotated[str | None, shared.choices(RECIPES, own=True)] = None
    loss: Annotated[str | None, shared.choices(LOSSES, help="loss; sampled negatives are uniform.")] = None
    targets: Annotated[
        str | None,
        shared.choices(
            TRAIN_TARGETS,
            help='what training predicts: the "last" item, "all" items from those before, "cloze" from all others, or '
            'all "positions" in one pass over each session, for causal backbones; "parallel" reads an item of each of '
            "many sessions in a step, for recurrent backbones.",
        ),
    ] = None
    options: str = "{}"
    dim: int | None = None
    max_length: int | None = None
    num_negatives: int | None = None
    negatives: Annotated[
        str | None, shared.choices(NEGATIVES, help="what has sampled negatives of its own, for positions.")
    ] = None
    loss_options: str = "{}"
    corrected: bool = False
    seeds: shared.Seeds = 1
    seed: int = 0
    batch_size: int | None = None
    learning_rate: float | None = None
    momentum: float | None = None
    max_epochs: int | None = None
    patience: int | None = None
    recall_at: int = 10
    refit: bool = False
    seen: Annotated[str | None, shared.choices(("exclude", "keep"), help="whether known items are ranked.")] = None
    targets_ranked: Annotated[
        str | None, shared.choices(("last", "first", "all"), help="items to predict in each test session.")
    ] = None
    item_vectors: item_channels.VectorsFile = None
    vector_channel: item_channels.Channel = "graph_pca"
    vector_scale: item_channels.Scale = 0.03
    shuffled_vectors: item_channels.Shuffled = False
    precision: shared.Precision = "float32"
    mesh: shared.Mesh = None
    distributed: shared.Distributed = None
    overwrite: shared.Overwrite = False

    @property
    def published(self) -> BackboneDefaults:
        """The settings of the backbone's publication."""
        return defaults_of(self.backbone, parallel=self.targets in (None, "parallel"))

    def resolved(self) -> "Train":
        """Returns the options with those of the publication where none were given, and with the recipe's protocol."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        names = [field.name for field in dataclasses.fields(BackboneDefaults) if field.name in given]
        chosen = {name: getattr(self.published, name) for name in names if given[name] is None}
        source = registry.parse_source(self.source)
        is_raw = source.reader.result is Interactions
        recipe = source.recipe(self.recipe) if is_raw else None
        protocol: dict[str, Any] = {
            "seen": self.seen or (recipe.seen if recipe else "exclude"),
            "targets_ranked": self.targets_ranked or (recipe.targets if recipe else "last"),
        }
        return dataclasses.replace(self, **chosen, **protocol)

    @property
    def model_options(self) -> dict[str, Any]:
        """The options of the backbone."""
        return dict(self.published.options) | json_options(self.options, _EXAMPLE)

    @property
    def parallel_options(self) -> dict[str, Any]:
        """The options of the loss of sessions in parallel."""
        return dict(self.published.loss_options) | json_options(self.loss_options, _LOSS_EXAMPLE, "--loss-options")

    @property
    def protocol(self) -> Protocol:
        """How the test sessions are evaluated; of resolved options."""
        return Protocol(seen=self.seen or "exclude", targets=self.targets_ranked or "last")

    def check(self) -> None:
        """Raises ValueError where an option is unknown or out of range, or two do not go together."""
        registry.parse_source(self.source)
        check_one_of("--loss", self.loss or LOSSES[0], LOSSES)
        check_one_of("--targets", self.targets or TRAIN_TARGETS[0], TRAIN_TARGETS)
        check_one_of("--negatives", self.negatives or NEGATIVES[0], NEGATIVES)
        check_one_of("--precision", self.precision, PRECISIONS)
        item_channels.check(self)
        json_options(self.options, _EXAMPLE)
        self._check_parallel()
        names = ("dim", "max_length", "num_negatives", "seeds", "batch_size", "max_epochs", "patience", "recall_at")
        given = {f"--{name.replace('_', '-')}": getattr(self, name) for name in names}
        check_at_least(1, **{name: value for name, value in given.items() if value is not None})
        check_between(0, 2**32 - 1, **{"--seed": self.seed})
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ValueError(f"--learning-rate is {self.learning_rate}; expected a positive number")
        is_raw = registry.parse_source(self.source).reader.result is Interactions
        if self.refit and not is_raw:
            raise ValueError(
                f"--refit with --source {shown(self.source)}, which is split already; expected raw data with a recipe"
            )

    def _check_parallel(self) -> None:
        """Raises ValueError where options of sessions in parallel are wrong, or go with other targets."""
        check_parallel_options(json_options(self.loss_options, _LOSS_EXAMPLE, "--loss-options"))
        if self.momentum is not None and not 0 <= self.momentum < 1:
            raise ValueError(f"--momentum is {self.momentum}; expected at least 0 and below 1")
        targets = self.targets or self.published.targets
        if targets == "parallel":
            own = None if self.negatives in (None, "batch") else self.negatives
            without: dict[str, Any] = {"mesh": self.mesh, "distributed": self.distributed, "negatives": own}
            without |= {"corrected": self.corrected, "item-vectors": self.item_vectors}
            for name, value in without.items():
                if value:
                    raise ValueError(f"--{name} is {value} with --targets parallel; expected other targets with it")
        elif self.momentum is not None or self.loss_options != "{}":
            name = "--loss-options" if self.momentum is None else "--momentum"
            raise ValueError(f"{name} with --targets {targets}; expected --targets parallel with it")


def json_options(text: str, example: str, name: str = "--options") -> dict[str, Any]:
    """Returns options that are given as JSON, by name.

    Args:
        text: the JSON text.
        example: an example, for the error.
        name: of the option, for the error.

    Raises:
        ValueError: the text is no JSON object.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{name} is {shown(text)}; expected a JSON object such as {example}")
    return found
