"""Language models as teachers: prompts, parsing, budgets, an HTTP client, a store of paid answers, and stand-ins."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alkd_jax.llm.ranking import rank

__all__ = ["rank"]


def __getattr__(name: str) -> Any:
    if name != "rank":
        raise AttributeError(f"module 'alkd_jax.llm' has no attribute {name!r}")
    from alkd_jax.llm import ranking

    return ranking.rank
