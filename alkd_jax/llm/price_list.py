"""The list prices of models, from the file `prices.json` of this package and from files of the user's own.

A file holds `{"checked": DATE, "models": {NAME: {"input": "0.10", "output": "0.50", …}}}` in dollars per million
tokens; `cached_input`, `cache_write`, `batch_factor`, `tier_factors`, `long_prompt`, `reasons`, `retires`, `successor`
may be left out. A model that a provider has retired keeps its entry, so that what it has cost stays known.
"""

import dataclasses
import datetime
import functools
import os
import pathlib
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from alkd_jax.errors import shown
from alkd_jax.io import read_object
from alkd_jax.llm.pricing import LongPrompt, Price

_BUILT_IN = pathlib.Path(__file__).parent / "prices.json"
_DAYS_OF_NOTICE = 120
_OTHERS = ("tier_factors", "long_prompt", "reasons", "takes_temperature", "retires", "successor")
_AMOUNTS = ("input", "output", "cached_input", "cache_write", "batch_factor")


@dataclasses.dataclass(frozen=True)
class ListedModel:
    """What is known of a model.

    Attributes:
        price: list price.
        reasons: whether the model reasons before it answers, unless it is told not to.
        takes_temperature: whether requests may have a temperature.
        retires: day on which the provider ends the model, or has ended it.
        successor: model that the provider names in its place.
    """

    price: Price
    reasons: bool = False
    takes_temperature: bool = True
    retires: datetime.date | None = None
    successor: str | None = None

    def notice(self, name: str, today: datetime.date) -> str | None:
        """Returns a warning where the model has been retired, or will be within four months."""
        if self.retires is None or (self.retires - today).days > _DAYS_OF_NOTICE:
            return None
        verb = "was retired" if self.retires <= today else "is retired"
        instead = f"; its provider names {self.successor} in its place" if self.successor else ""
        return f"{name} {verb} on {self.retires.isoformat()}{instead}"


def read_prices(path: str | os.PathLike[str]) -> dict[str, ListedModel]:
    """Reads a file of prices.

    Args:
        path: the file.

    Returns:
        Name of a model → what is known of it.

    Raises:
        ValueError: the file is not as described above; the error names file, model and value.
    """
    content = read_object(pathlib.Path(path))
    models, checked = content.get("models"), content.get("checked")
    if not isinstance(models, dict):
        raise ValueError(f'{path}: models is {shown(models)}; expected an object {{NAME: {{"input": …, "output": …}}}}')
    source = f"{pathlib.Path(path).name}" + (f", checked {checked}" if isinstance(checked, str) else "")
    return {name: _listed(f"{path}: {shown(name)}", entry, source) for name, entry in models.items()}


def _listed(where: str, entry: Any, source: str) -> ListedModel:
    """Reads the entry of one model."""
    if not isinstance(entry, dict) or not {"input", "output"} <= entry.keys():
        raise ValueError(f"{where} is {shown(entry)}; expected an object with input and output")
    if unknown := entry.keys() - {*_AMOUNTS, *_OTHERS}:
        raise ValueError(f"{where} has {shown(min(unknown))}; expected {', '.join(_AMOUNTS)} and other known members")
    amounts = {name: _amount(f"{where}: {name}", entry[name]) for name in _AMOUNTS if name in entry}
    tiers = entry.get("tier_factors", {})
    if not isinstance(tiers, dict):
        raise ValueError(f"{where}: tier_factors is {shown(tiers)}; expected an object")
    factors = {name: _amount(f"{where}: tier_factors", factor) for name, factor in tiers.items()}
    is_free = not amounts["input"] and not amounts["output"]
    try:
        retires = None if entry.get("retires") is None else datetime.date.fromisoformat(entry["retires"])
        long_prompt = None if entry.get("long_prompt") is None else _long_prompt(entry["long_prompt"])
        price = Price(**amounts, tier_factors=factors, source=source, is_free=is_free, long_prompt=long_prompt)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from None
    successor = entry.get("successor")
    return ListedModel(
        price,
        bool(entry.get("reasons", False)),
        bool(entry.get("takes_temperature", True)),
        retires,
        successor if isinstance(successor, str) else None,
    )


def _long_prompt(value: Any) -> LongPrompt:
    """Reads what long prompts cost more."""
    if not isinstance(value, dict) or value.keys() != {"above", "input", "output"} or type(value["above"]) is not int:
        raise ValueError(
            f'long_prompt is {shown(value)}; expected {{"above": TOKENS, "input": FACTOR, "output": FACTOR}}'
        )
    return LongPrompt(value["above"], *(_amount(f"long_prompt: {name}", value[name]) for name in ("input", "output")))


def _amount(where: str, value: Any) -> Decimal:
    """Reads a decimal number without rounding, from a text or a JSON number."""
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise InvalidOperation
        return Decimal(str(value))
    except InvalidOperation:
        raise ValueError(f"{where} is {shown(value)}; expected a number") from None


@functools.cache
def _built_in() -> Mapping[str, ListedModel]:
    return read_prices(_BUILT_IN)


def price_list(files: Iterable[str | os.PathLike[str]] = ()) -> dict[str, ListedModel]:
    """Returns the models whose prices are known: the built-in ones, then those of files, which replace them.

    Args:
        files: read in this order, after the user's `~/.config/alkd/prices.json` where that exists.
    """
    models = dict(_built_in())
    for path in [*filter(pathlib.Path.exists, [user_file()]), *files]:
        models |= read_prices(path)
    return models


def user_file() -> pathlib.Path:
    """Returns the file of the user's own prices, which need not exist."""
    folder = os.environ.get("XDG_CONFIG_HOME") or pathlib.Path.home() / ".config"
    return pathlib.Path(folder) / "alkd" / "prices.json"


PRICES: Mapping[str, Price] = {name: model.price for name, model in _built_in().items()}
"""The built-in list prices; compare them with your provider's before a large run. No other price is known."""
