"""Language models as teachers: prompts, parsing, budgets, an HTTP client, a store of paid answers, and stand-ins."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alkd_jax.llm.ranking import items_before, rank

__all__ = ["items_before", "rank"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'alkd_jax.llm' has no attribute {name!r}")
    from alkd_jax.llm import ranking

    return getattr(ranking, name)
