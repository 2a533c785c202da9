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
    from alkd_jax.data import load_released
    from alkd_jax.distillation import distill
    from alkd_jax.evaluation import evaluate
    from alkd_jax.maxmin import solve as solve_game
    from alkd_jax.scoring.top_k import top_k
    from alkd_jax.selection import select as select_sessions
    from alkd_jax.serving import export
    from alkd_jax.serving.recommender import Recommender
    from alkd_jax.training.fit import fit
    from alkd_jax.types import PAD, Dataset, HeldOutSequences, Rankings, Sequences, Sessions

__all__ = [
    "PAD",
    "Dataset",
    "HeldOutSequences",
    "Rankings",
    "Recommender",
    "Sequences",
    "Sessions",
    "baselines",
    "data",
    "distill",
    "distillation",
    "evaluate",
    "evaluation",
    "export",
    "fit",
    "llm",
    "load_released",
    "losses",
    "maxmin",
    "models",
    "objectives",
    "ops",
    "samplers",
    "scoring",
    "select_sessions",
    "selection",
    "serving",
    "sharding",
    "solve_game",
    "top_k",
    "training",
]

__version__ = "0.1.0"

_HOMES = {
    "PAD": "types:PAD",
    "Dataset": "types:Dataset",
    "HeldOutSequences": "types:HeldOutSequences",
    "Rankings": "types:Rankings",
    "Recommender": "serving.recommender:Recommender",
    "Sequences": "types:Sequences",
    "Sessions": "types:Sessions",
    "distill": "distillation:distill",
    "evaluate": "evaluation:evaluate",
    "fit": "training:fit",
    "load_released": "data:load_released",
    "select_sessions": "selection:select",
    "solve_game": "maxmin:solve",
    "top_k": "scoring:top_k",
}
"""Where each name lives that is not a sub-package: ``module:attribute``."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        module, attribute = _HOMES[name].split(":")
        return getattr(importlib.import_module(f"alkd_jax.{module}"), attribute)
    if name == "export":
        return importlib.import_module("alkd_jax.serving.export")
    if name in __all__:
        return importlib.import_module(f"alkd_jax.{name}")
    raise AttributeError(f"module 'alkd_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
