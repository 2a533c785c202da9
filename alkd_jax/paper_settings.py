"""Settings that depend on a dataset or a backbone of the paper: the only place where such a name decides what is done.

The names are those of the authors' release: "ML" (HetRec 2011 MovieLens) and "Games" (Amazon 2018 Video Games). Every
other dataset has the defaults.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class PaperSettings:
    """Settings of one dataset.

    Attributes:
        release_counts: number of "sessions", "items" and "interactions" that the paper reports; empty if unknown.
        default_budget: number of sessions that the LLM ranks for each selection.
        budgets: the same number by backbone, where it is not the default.
        losses: name of the loss that trains teacher and student, by backbone, where it is not "bpr".
        prompt_template: name of the prompt template, see :mod:`alkd_jax.llm.prompts`.
        item_rules: options of :class:`alkd_jax.distillation.item_rules.Recipe` that differ from its defaults.
    """

    release_counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    default_budget: int = 500
    budgets: Mapping[str, int] = dataclasses.field(default_factory=dict)
    losses: Mapping[str, str] = dataclasses.field(default_factory=dict)
    prompt_template: str = "items"
    item_rules: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def budget(self, backbone: str) -> int:
        """Returns the number of sessions that the LLM ranks for each selection."""
        return self.budgets.get(backbone, self.default_budget)

    def loss(self, backbone: str) -> str:
        """Returns the name of the loss that trains teacher and student: "bpr" (in-batch) or "bce"."""
        return self.losses.get(backbone, "bpr")


SETTINGS: Mapping[str, PaperSettings] = {
    "ML": PaperSettings(
        release_counts={"sessions": 12_323, "items": 8_475, "interactions": 112_034},
        losses={"attmix": "bce"},
        prompt_template="movies",
        item_rules={"decay": 0.8, "backward": 0.5, "titles": 0.05},
    ),
    "Games": PaperSettings(
        release_counts={"sessions": 20_091, "items": 26_138, "interactions": 132_677},
        budgets={"fpmc": 750},
        prompt_template="games",
        item_rules={"titles": 0.2},
    ),
}
"""Name of a dataset → its settings."""


@dataclasses.dataclass(frozen=True)
class BackboneSettings:
    """Settings of ALKDRec's distillation of one backbone, as in the released code.

    Attributes:
        distillation_recall_at: k of the validation recall that decides when distillation stops.
        distillation_learning_rate: learning rate of distillation.
    """

    distillation_recall_at: int = 50
    distillation_learning_rate: float = 1e-3


BACKBONE_SETTINGS: Mapping[str, BackboneSettings] = {
    "stamp": BackboneSettings(distillation_recall_at=15),
    "attmix": BackboneSettings(distillation_recall_at=15, distillation_learning_rate=1e-4),
}
"""Name of a backbone → its settings, where they are not the defaults."""


def backbone_settings_of(backbone: str) -> BackboneSettings:
    """Returns the settings of a backbone, the defaults for one that the paper does not use.

    Args:
        backbone: its name.
    """
    return BACKBONE_SETTINGS.get(backbone, BackboneSettings())


def settings_of(dataset: str) -> PaperSettings:
    """Returns the settings of a dataset, the defaults for one that the paper does not use.

    Args:
        dataset: its name.
    """
    return SETTINGS.get(dataset, PaperSettings())
