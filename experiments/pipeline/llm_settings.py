"""The questions of a run to its language model, the teacher that asks them, and the lists that were answered."""

import pathlib
from typing import Any

import numpy as np

import alkd_jax as alkd
from alkd_jax import paper_settings
from alkd_jax.checks import check_count, check_one_of
from alkd_jax.errors import printable, shown
from alkd_jax.io import read_object
from alkd_jax.llm import prompts
from alkd_jax.llm.ledger import Budget
from alkd_jax.llm.store import Store
from alkd_jax.llm.teachers import OnlineTeacher
from alkd_jax.llm.teachers.replay import load_rankings

from . import llm_account
from .llm_files import cost_so_far, load_settings, open_store
from .llm_options import LLMSettings
from .stage_records import checked_output

HOW_TO_GIVE_TITLES = (
    "give titles with experiments.prepare: a title column in the table, or a second table with item and title "
    "(--source table:FILE:TITLES --columns item=NAME,title=NAME)"
)
"""Advice for data without titles."""


def prompt_template(settings: LLMSettings, dataset: alkd.Dataset) -> prompts.Template:
    """Returns the template of the questions, with the hints that `experiments.summarize_hints` wrote for the run.

    Raises:
        ValueError: the dataset has no titles, the template is unknown, or the hints are damaged.
    """
    check_titles(dataset)
    name = settings.template or paper_settings.settings_of(dataset.name).prompt_template
    check_one_of("--template", name, prompts.TEMPLATES)
    template, hints = prompts.TEMPLATES[name], settings.run / "llm" / "hints.json"
    if not hints.exists():
        return template
    texts = read_object(hints).get("hints")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{hints}: hints is {shown(texts)}; expected a list of texts, or no such file")
    return template.with_hints(texts)


def sessions_to_rank(run: pathlib.Path, dataset: alkd.Dataset) -> tuple[alkd.Sessions, np.ndarray]:
    """Reads the run's `candidates.jsonl`.

    Returns:
        The training sessions whose candidates are to be ranked, each once, and the ``[M, C]`` candidates.
    """
    candidates = load_rankings(checked_output(run, "candidates.jsonl"), num_items=dataset.num_items)
    sessions = dataset.train.take(dataset.train.rows_of(candidates.session_id))
    return sessions, np.asarray(candidates.items)


def check_titles(dataset: alkd.Dataset) -> None:
    """Refuses a dataset without titles, which is all that a language model is shown of an item.

    Raises:
        ValueError: no item has a title.
    """
    if not any(dataset.titles[1:]):
        raise ValueError(
            f"{printable(dataset.name)} has no titles, and a language model ranks items by their titles; "
            f"{HOW_TO_GIVE_TITLES}"
        )


def online_teacher(
    settings: LLMSettings, store: Store, dataset: alkd.Dataset, *, budget: Budget | None = None
) -> OnlineTeacher:
    """Makes the teacher that asks the settings' model.

    Args:
        settings: server, model and limits.
        store: for requests and answers.
        dataset: of the run.
        budget: in place of the one in the settings.

    Raises:
        ValueError: the dataset has no titles, or a setting is wrong.
    """
    template = prompt_template(settings, dataset)
    check_count(1, **{"--shuffles": settings.shuffles})
    client = settings.client(store, budget=budget)
    seed, shuffles = settings.order_seed, settings.shuffles
    return OnlineTeacher(client, dataset.titles, template, seed=seed, shuffles=shuffles)


def stored_rankings(run: pathlib.Path, dataset: alkd.Dataset) -> tuple[alkd.Rankings, dict[str, Any]]:
    """Reads the usable lists in a run's store; sends nothing and opens no connection.

    Returns:
        The rankings in the order of `candidates.jsonl`, and the report of :meth:`OnlineTeacher.rank` with "cost",
        "paid_usd" (None where the price is unknown) and "seconds" of all calls together.
    """
    settings = load_settings(run)
    with open_store(run) as store:
        teacher = online_teacher(settings, store, dataset, budget=Budget(requests=0))
        rankings, report = teacher.rank(*sessions_to_rank(run, dataset))
        ledger = store.ledger
    cost = "price unknown" if settings.price is None else cost_so_far(ledger)
    seconds = sum(call["seconds"] for call in llm_account.read_account(run)["calls"])
    paid = None if settings.price is None else llm_account.usd(ledger.confirmed)
    return rankings, report | {"cost": cost, "paid_usd": paid, "seconds": seconds}
