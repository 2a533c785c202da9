"""Distillation methods: each adds a loss or a schedule to the same :func:`alkd_jax.training.fit`.

:func:`distill` is the method of ALKDRec. Every baseline is a module with a function ``distill``: ``de``, ``ftd``,
``htd``, ``unkd`` and ``rd`` distill a conventional teacher, ``dllm2rec`` an LLM's lists; ``dsl`` trains a sparse model
without a teacher.
``item_rules`` trains the strongest narrow student.
"""

from alkd_jax.distillation import de, dllm2rec, dsl, ftd, htd, item_rules, rd, unkd
from alkd_jax.distillation.alkdrec import distill, position_weights, ranking_examples, stack_examples

__all__ = [
    "de",
    "distill",
    "dllm2rec",
    "dsl",
    "ftd",
    "htd",
    "item_rules",
    "position_weights",
    "ranking_examples",
    "rd",
    "stack_examples",
    "unkd",
]
