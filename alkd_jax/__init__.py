"""Active LLM-based knowledge distillation for session-based recommendation, in JAX.

What it offers is loaded when it is first asked for: `alkd_jax.serving` serves a shipped student without JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alkd_jax import (
        baselines,
        data,
        distillation,
        evaluation,
        llm,
        losses,
        maxmin,
        models,
        objectives,
        ops,
        samplers,
        scoring,
        selection,
        serving,
        sharding,
        training,
    )
    from alkd_jax.serving import export
    from alkd_jax.serving.recommender import Recommender
    from alkd_jax.types import PAD, Dataset, Rankings, Sequences, Sessions

__all__ = [
    "PAD",
    "Dataset",
    "Rankings",
    "Recommender",
    "Sequences",
    "Sessions",
    "baselines",
    "data",
    "distillation",
    "evaluation",
    "export",
    "llm",
    "losses",
    "maxmin",
    "models",
    "objectives",
    "ops",
    "samplers",
    "scoring",
    "selection",
    "serving",
    "sharding",
    "training",
]

__version__ = "0.1.0"

_HOMES = {name: "types" for name in ("PAD", "Dataset", "Rankings", "Sequences", "Sessions")} | {
    "Recommender": "serving.recommender"
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"alkd_jax.{_HOMES[name]}"), name)
    if name == "export":
        return importlib.import_module("alkd_jax.serving.export")
    if name in __all__:
        return importlib.import_module(f"alkd_jax.{name}")
    raise AttributeError(f"module 'alkd_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
