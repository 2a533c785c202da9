"""Distillation methods: each adds a loss or a schedule to the same :func:`alkd_jax.training.fit`.

:func:`distill` is the method of ALKDRec, which fine-tunes a trained student on an LLM's lists. Every baseline is a
module with a frozen dataclass ``Options``, a loss, and a function with the signature of :class:`DistillationMethod`::

    distill(key, model, teacher, train, validation, *, options=Options(), **fit_options)

``de``, ``ftd``, ``htd``, ``unkd`` and ``rd`` distill a :class:`TeacherModel`; ``dllm2rec`` has an LLM's
:class:`alkd_jax.Rankings` in its place, ``profiles`` vectors of sessions; ``dsl`` trains a sparse model without a
teacher. ``item_rules`` trains the strongest narrow student.
"""

from alkd_jax.distillation import de, dllm2rec, dsl, ftd, htd, item_rules, profiles, rd, unkd
from alkd_jax.distillation.alkdrec import distill, position_weights, ranking_examples, stack_examples
from alkd_jax.distillation.method import DistillationMethod, Regularized, fit_with_distillation
from alkd_jax.distillation.teacher import TeacherModel

__all__ = [
    "DistillationMethod",
    "Regularized",
    "TeacherModel",
    "de",
    "distill",
    "dllm2rec",
    "dsl",
    "fit_with_distillation",
    "ftd",
    "htd",
    "item_rules",
    "position_weights",
    "profiles",
    "ranking_examples",
    "rd",
    "stack_examples",
    "unkd",
]
