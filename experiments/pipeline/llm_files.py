"""The folder `llm` of a run: its store of answers, and the settings of the models that were asked; without JAX."""

import dataclasses
import pathlib
import re

from alkd_jax.io import read_object, write_json, write_text
from alkd_jax.llm.client import Client
from alkd_jax.llm.ledger import Ledger
from alkd_jax.llm.pricing import dollars
from alkd_jax.llm.store import Store

from . import calls, llm_account
from .llm_options import LLMSettings
from .stored_values import check_fields


class UnansweredError(ValueError):
    """A run stops before its paid stage, as it should, because no model was asked yet or answers are missing."""


def open_store(run: pathlib.Path, *, readonly: bool = False) -> Store:
    """Opens the store of a run's answers, `llm/answers.sqlite`; unless it is only read, it is created if needed.

    Raises:
        FileNotFoundError: the store is to be read only and does not exist.
        ValueError: the store is damaged, in use, or has lost answers that were paid.
    """
    path = run / "llm" / llm_account.STORE
    if not path.exists() or path.stat().st_size == 0:
        llm_account.check_store(run, None)
    if not readonly:
        path.parent.mkdir(exist_ok=True)
    store = Store.open(path, readonly=readonly)
    try:
        llm_account.check_store(run, store.ledger)
    except BaseException:
        store.close()
        raise
    return store


def save_settings(settings: LLMSettings, client: Client, *, only_first: bool = False) -> None:
    """Writes the settings, which hold no secret, to the folder `llm` of the run for the stages that read answers.

    `asking.json` holds those of the model that was asked last, `asking.MODEL.json` those of each model.

    Args:
        settings: of the model; a file of prices is copied, so that what was paid stays known.
        client: made of them; where `min_valid` was another, its store's short answers are parsed again.
        only_first: leave `asking.json` as it is where another model was asked before.
    """
    folder = settings.run / "llm"
    try:
        former = load_settings(settings.run)
    except ValueError:
        former = None
    if former is None or former.min_valid != settings.min_valid:
        client.forget_short()
    prices = None
    if settings.prices is not None:
        prices = folder / "prices.json"
        write_text(prices, settings.prices.read_text(encoding="utf-8"))
    values = dataclasses.asdict(settings) | {"run": str(settings.run), "prices": prices and str(prices)}
    write_json(_settings_file(settings.run, settings.model), values)
    if former is None or former.model == settings.model or not only_first:
        write_json(folder / "asking.json", values)


def _settings_file(run: pathlib.Path, model: str | None) -> pathlib.Path:
    """Returns the file with the settings of a model, or of the one that was asked last."""
    if model is None:
        return run / "llm" / "asking.json"
    return run / "llm" / f"asking.{re.sub('[^A-Za-z0-9._-]', '_', model)[:100]}.json"


def load_settings(run: pathlib.Path, model: str | None = None) -> LLMSettings:
    """Reads the settings that :func:`save_settings` wrote.

    Args:
        run: the run's folder.
        model: whose settings; by default the model that was asked last.

    Raises:
        UnansweredError: no model was asked in this run yet.
        ValueError: this model was not asked, or the file is damaged.
    """
    path = _settings_file(run, None)
    if not path.exists():
        raise UnansweredError(f"{run}: no model was asked yet; {usage_hint(run)}")
    if model is not None and read_object(path).get("model") != model:
        path = _settings_file(run, model)
        if not path.exists():
            raise ValueError(f"--model is {model!r}, which was not asked in {run}; expected a model that was")
    values = read_object(path) | {"run": run}
    check_fields(path, values, LLMSettings)
    if values.get("prices") is not None:
        values["prices"] = run / "llm" / "prices.json"
    return LLMSettings(**values)


def usage_hint(run: pathlib.Path) -> str:
    """Returns advice with the commands that ask a model."""
    call = calls.call_of("query_llm")
    return (
        f"run `{call} estimate --run {run} --model NAME`, then `{call} run --run {run} --model NAME --budget-usd 1.00`"
        f"; or rank the sessions that `{call} questions --run {run} --out FILE` writes by a model of your own, and "
        "continue with --teacher replay --rankings FILE"
    )


def cost_so_far(ledger: Ledger) -> str:
    """Formats what was paid and what may have been billed."""
    return f"{dollars(ledger.confirmed)} paid, {dollars(ledger.possible)} possible"
