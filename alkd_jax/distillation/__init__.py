"""Distillation methods: each a loss or a schedule plugged into the same `fit`."""

from alkd_jax.distillation.alkd import distil, list_examples, position_weights, stack_examples

__all__ = ["distil", "list_examples", "position_weights", "stack_examples"]
