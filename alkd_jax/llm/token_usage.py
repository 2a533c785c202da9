"""Tokens of an answer as the server counted them, read so that no count is below what may be billed.

Servers name the counts differently, bill reasoning apart from the completion, and send zeros where they count nothing.
"""

import dataclasses
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

_MAX_TOKENS = 10**9
_PICO = 10**12


@dataclasses.dataclass(frozen=True)
class Usage:
    """Tokens of one answer, as counted by the server.

    Attributes:
        prompt: prompt tokens.
        cached: of these, tokens that the server had cached.
        completion: completion tokens, reasoning included.
        cache_write: of the prompt tokens, those that the server has put into its cache now.
        charged: pico-dollars that the server says it has charged; 0 where it says nothing.
    """

    prompt: int
    cached: int
    completion: int
    cache_write: int = 0
    charged: int = 0


def read_usage(value: Any, *, has_text: bool = True) -> Usage | None:
    """Reads the JSON field `usage` of an answer.

    Args:
        value: the field.
        has_text: whether the answer has a text, which cannot have taken no token.

    Returns:
        The tokens; None where a count is missing, negative, no integer, or zero where it cannot be.
    """
    if not isinstance(value, dict):
        return None
    prompt = _first_count(value, "prompt_tokens", "input_tokens")
    completion = _first_count(value, "completion_tokens", "output_tokens")
    if prompt is None or completion is None:
        return None
    details = _member(value, "prompt_tokens_details", "input_tokens_details")
    cached = _detail(details, "cached_tokens") or _detail(value, "prompt_cache_hit_tokens", "cache_read_input_tokens")
    cache_write = _detail(details, "cache_write_tokens", "cache_creation_tokens") or _detail(
        value, "cache_creation_input_tokens"
    )
    reasoning = _detail(_member(value, "completion_tokens_details", "output_tokens_details"), "reasoning_tokens")
    reasoning = max(reasoning or 0, _detail(value, "reasoning_tokens") or 0)
    if cached is None or cache_write is None:
        return None
    total = _count(value.get("total_tokens")) or 0
    if total < prompt + completion or reasoning > completion:
        # Without a total nobody can tell whether the completion includes the reasoning; a smaller one does not.
        completion += reasoning
    completion = max(completion, total - prompt)
    if not prompt or (has_text and not completion):
        return None
    if cached + cache_write > prompt:
        # Some servers count cached tokens beside the prompt's.
        prompt += cached + cache_write
    return Usage(prompt, cached, completion, cache_write, _charged(value.get("cost")))


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= _MAX_TOKENS else None


def _first_count(value: Mapping[str, Any], *names: str) -> int | None:
    """Returns the count under the first of some names that is there."""
    return next((_count(value[name]) for name in names if value.get(name) is not None), None)


def _member(value: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """Returns the object under the first of some names that holds one, else an empty one."""
    return next((value[name] for name in names if isinstance(value.get(name), dict)), {})


def _detail(value: Mapping[str, Any], *names: str) -> int | None:
    """Returns the count under the first of some names; 0 where there is none, None where it is no count."""
    found = next((value[name] for name in names if value.get(name) is not None), 0)
    return _count(found)


def _charged(value: Any) -> int:
    """Returns dollars as pico-dollars, rounded up; 0 where they are no amount."""
    try:
        amount = Decimal(0) if isinstance(value, bool) else Decimal(str(value))
        return -int(-amount * _PICO // 1) if 0 < amount < 10**6 else 0
    except ArithmeticError:
        return 0
