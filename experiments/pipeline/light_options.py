"""The options of commands that start without JAX: the folder of a run, and those about a language model."""

import pathlib
from collections.abc import Iterable
from typing import Annotated, Any

import tyro

from alkd_jax.llm.presets import PRESETS

OWN = "package.module:attribute"


def choices(known: Iterable[str], *, help: str | None = None, own: bool = False, several: bool = False) -> Any:
    """Returns an annotation of an option with a closed set of values, which help lists.

    Args:
        known: the values.
        help: the option in words; by default those of the docstring.
        own: whether a part of a user's own may be named as `package.module:attribute` instead.
        several: whether the option takes several values.
    """
    metavar = f"{{{','.join(known)}}}{f'|{OWN}' if own else ''}"
    return tyro.conf.arg(metavar=f"[{metavar} ...]" if several else metavar, help=help)


def described(help: str, metavar: str | None = None) -> Any:
    """Returns an annotation of an option that says what it means, and what its value is called."""
    return tyro.conf.arg(help=help, metavar=metavar)


RUN_FOLDER = described("folder of a run, as `reproduce` or `demo` made it.", "FOLDER")
RunFolder = Annotated[pathlib.Path, RUN_FOLDER]
BaseUrl = Annotated[
    str,
    described(
        f"address of an OpenAI-compatible server, or one of {', '.join(f'{name}:' for name in PRESETS)} which another "
        "address of such a server may follow.",
        "URL",
    ),
]
ApiKeyEnv = Annotated[
    str | None, described("environment variable with the API key; by default the server's usual one.", "NAME")
]
PricesFile = Annotated[
    pathlib.Path | None,
    described(
        "file of prices, which are taken before those of ~/.config/alkd/prices.json and the built-in ones; see "
        "docs/language_model.md.",
        "FILE",
    ),
]
ReasoningEffort = Annotated[
    str | None,
    described("how much a model that reasons thinks, such as none or low; by default as much as it does.", "EFFORT"),
]
ExtraBody = Annotated[str | None, described("JSON object of further fields of every request to the model.", "JSON")]
MaxOutputTokens = Annotated[
    int | None,
    described("bound of an answer's tokens; by default 256, or 4096 for models that are known to reason.", "INT"),
]
BudgetUsd = Annotated[
    str | None, described("dollars that the run may spend on the language model, over all calls together.", "DOLLARS")
]
MinValid = Annotated[int, described("number of valid entries from which an incomplete list of the model is used.")]
