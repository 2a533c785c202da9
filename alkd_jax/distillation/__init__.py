"""Distillation methods: each a loss or a schedule plugged into the same `fit`.

ALKDRec's own is :func:`distil`. Each baseline has a module with a ``distil`` of its own: ``de``, ``ftd``, ``htd``,
``unkd`` and ``rd`` learn from a conventional teacher, ``dllm2rec`` from an LLM's lists, ``dsl`` from nobody. ``best``
makes the strongest student we know, ``taught`` is how.
"""

from alkd_jax.distillation import best, de, dllm2rec, dsl, ftd, htd, rd, taught, unkd
from alkd_jax.distillation.alkd import distil, list_examples, position_weights, stack_examples

__all__ = [
    "best",
    "de",
    "distil",
    "dllm2rec",
    "dsl",
    "ftd",
    "htd",
    "list_examples",
    "position_weights",
    "rd",
    "stack_examples",
    "taught",
    "unkd",
]
