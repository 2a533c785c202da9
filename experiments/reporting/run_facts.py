"""How a run was made: its command, its options, the date and the versions, as a report shows them."""

import dataclasses
import datetime
import importlib.metadata
import pathlib
import platform
import shlex
from typing import Any

from ..pipeline import calls
from ..pipeline.settings import Settings

_UNNAMED = frozenset({"overwrite", "profile", "distributed", "mesh", "tracker"})
"""Options that change no result."""
_PACKAGES = ("alkd_jax", "jax", "flax", "optax", "numpy")


def command_of(settings: Settings) -> str:
    """Returns the command of a run: `reproduce` with the options that are not the default ones.

    `quickstart` and the tables run the same with their own defaults.
    """
    words = [calls.call_of("reproduce")]
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.name in _UNNAMED or value == field.default:
            continue
        words.append(f"--{field.name.replace('_', '-')}")
        if value is not True:
            words += [shlex.quote(part) for part in _words_of(value)]
    return " ".join(words)


def _words_of(value: Any) -> list[str]:
    return [str(part) for part in value] if isinstance(value, tuple | list) else [str(value)]


def option_rows(settings: Settings) -> list[tuple[str, str]]:
    """Returns name and value of every option that changes a result, the default ones too."""
    rows = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.name not in _UNNAMED and value is not None:
            shown = value.name if isinstance(value, pathlib.Path) else " ".join(_words_of(value))
            rows.append((f"--{field.name.replace('_', '-')}", shown))
    return rows


def written_at() -> str:
    """Returns date and time of now."""
    return f"{datetime.datetime.now(datetime.UTC):%d %B %Y, %H:%M} UTC"


def versions() -> str:
    """Returns the versions of the packages and of Python in one line."""
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    return f"{packages}; Python {platform.python_version()}, {platform.machine()}."
