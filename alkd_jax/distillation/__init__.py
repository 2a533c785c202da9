"""Distillation methods: each a loss or a schedule plugged into the same `fit`.

ALKDRec's own is :func:`distil`. Each baseline has a module with a ``distil`` of its own: ``de``, ``ftd``, ``htd``,
``unkd`` and ``rd`` learn from a conventional teacher, ``dllm2rec`` from an LLM's lists, ``dsl`` from nobody.
``item_rules`` makes the strongest student we know.
"""

from alkd_jax.distillation import de, dllm2rec, dsl, ftd, htd, item_rules, rd, unkd
from alkd_jax.distillation.alkdrec import distill, list_examples, position_weights, stack_examples

__all__ = [
    "de",
    "distill",
    "dllm2rec",
    "dsl",
    "ftd",
    "htd",
    "item_rules",
    "list_examples",
    "position_weights",
    "rd",
    "stack_examples",
    "unkd",
]
