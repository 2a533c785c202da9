"""The strongest narrow student: a late-interaction model that is trained on item-to-item rules.

:func:`train` makes it. Its parts are the rules (from counts, titles and teachers' lists), the soft labels made of them,
and the training on these. :func:`table_student` packs the strongest rules themselves, without training.
"""

from alkd_jax.distillation.item_rules.asked_items import (
    answer_rules,
    entry_chances,
    question_candidates,
    rare_items,
)
from alkd_jax.distillation.item_rules.ensembles import fuse_rankings
from alkd_jax.distillation.item_rules.labels import (
    add_labels,
    averaged_labels,
    item_labels,
    session_labels,
    sharpened,
)
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
from alkd_jax.distillation.item_rules.tables import TableRecipe, counted_student, table_rules, table_student
from alkd_jax.distillation.item_rules.targets import fit_rule_targets
from alkd_jax.distillation.item_rules.title_neighbors import title_neighbors, word_vectors

__all__ = [
    "LIST_WEIGHTS",
    "PRESETS",
    "Recipe",
    "RuleTargets",
    "TableRecipe",
    "add_labels",
    "add_rules",
    "answer_rules",
    "averaged_labels",
    "build_rules",
    "cooccurrence_rules",
    "counted_student",
    "create_student",
    "entry_chances",
    "fit_rule_targets",
    "fuse_rankings",
    "item_labels",
    "list_rules",
    "question_candidates",
    "random_walk_sessions",
    "rare_items",
    "recipe_of",
    "rule_targets",
    "session_labels",
    "sharpened",
    "table_rules",
    "table_student",
    "title_neighbors",
    "title_rules",
    "train",
    "train_backbone",
    "word_vectors",
]
