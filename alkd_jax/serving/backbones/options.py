"""Checks of the options in a shipped student's config, which come from outside."""

from collections.abc import Mapping, Sequence
from typing import Any

from alkd_jax.errors import shown


def check_choice(backbone: str, options: Mapping[str, Any], name: str, choices: Sequence[str]) -> None:
    """Refuses an option that is none of some words."""
    if options[name] not in choices:
        raise ValueError(f"{backbone}: {name} is {shown(options[name])}; expected {' or '.join(choices)}")


def check_range(backbone: str, options: Mapping[str, Any], name: str, largest: int) -> None:
    """Refuses an option that is below 1 or above a bound."""
    if not 1 <= options[name] <= largest:
        raise ValueError(f"{backbone}: {name} is {shown(options[name])}; expected 1..{largest}")
