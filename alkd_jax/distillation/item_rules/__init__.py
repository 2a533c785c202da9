"""The strongest narrow student: a late-interaction model that is trained on item-to-item rules.

:func:`train` makes it. Its parts are the rules (from counts, titles and teachers' lists), the soft labels made of them,
and the training on these.
"""

from alkd_jax.distillation.item_rules.ensembles import fuse_rankings
from alkd_jax.distillation.item_rules.recipe import (
    LIST_WEIGHTS,
    PRESETS,
    Recipe,
    build_rules,
    create_student,
    recipe_of,
    train,
    train_backbone,
)
from alkd_jax.distillation.item_rules.rules import (
    RuleTargets,
    add_rules,
    cooccurrence_rules,
    list_rules,
    random_walk_sessions,
    rule_targets,
    title_rules,
)
from alkd_jax.distillation.item_rules.targets import fit_rule_targets

__all__ = [
    "LIST_WEIGHTS",
    "PRESETS",
    "Recipe",
    "RuleTargets",
    "add_rules",
    "build_rules",
    "cooccurrence_rules",
    "create_student",
    "fit_rule_targets",
    "fuse_rankings",
    "list_rules",
    "random_walk_sessions",
    "recipe_of",
    "rule_targets",
    "title_rules",
    "train",
    "train_backbone",
]
