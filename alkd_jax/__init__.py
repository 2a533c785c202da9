"""Active LLM-based knowledge distillation for session-based recommendation, in JAX."""

from alkd_jax import (
    data,
    distillation,
    evaluation,
    examples,
    llm,
    losses,
    maxmin,
    metrics,
    models,
    neighbors,
    objectives,
    samplers,
    scoring,
    selection,
    training,
)
from alkd_jax.types import PAD, Dataset, Rankings, Sequences, Sessions

__all__ = [
    "PAD",
    "Dataset",
    "Rankings",
    "Sequences",
    "Sessions",
    "data",
    "distillation",
    "evaluation",
    "examples",
    "llm",
    "losses",
    "maxmin",
    "metrics",
    "models",
    "neighbors",
    "objectives",
    "samplers",
    "scoring",
    "selection",
    "training",
]

__version__ = "0.1.0"
