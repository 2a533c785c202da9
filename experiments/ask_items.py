"""Asks a language model which items go before rare or new ones, the most valuable questions first, within a budget.

    python -m experiments.ask_items --data prepared:data/own --model NAME --estimate --store answers.sqlite
    python -m experiments.ask_items --data prepared:data/own --model NAME --budget-usd 1 --store answers.sqlite
    python -m experiments.value_of_questions --data prepared:data/own --store answers.sqlite

Every answer is in the store once it is paid for: a run that was stopped, by Ctrl-C or by the budget, continues with the
same command, and more questions pay for the new ones only. The last command makes rules of the answers and says what
they are worth. The API key is read from the environment and nowhere else.
"""

import dataclasses
import pathlib
import signal
from typing import Annotated

import numpy as np

from alkd_jax import paper_settings
from alkd_jax.checks import check_at_least, check_between, check_count
from alkd_jax.data.readers import registry
from alkd_jax.errors import printable
from alkd_jax.llm import prompts
from alkd_jax.llm.collection import collect_sync
from alkd_jax.llm.ledger import Budget
from alkd_jax.llm.store import Store

from .pipeline import light_options, options
from .pipeline.command_line import parse
from .pipeline.console import cli_errors, llm_progress_bar, print_line
from .pipeline.llm_options import LLMSettings
from .pipeline.llm_settings import check_titles
from .pipeline.question_value import AMONG, ORDERS, Study
from .query_llm import print_estimate, print_usage


@dataclasses.dataclass(frozen=True)
class AskItems:
    """The options of the command.

    Attributes:
        data: source of the data, whose items need titles.
        store: file that keeps the answers.
        model: name of the model on the server; a dated name where there is one.
        questions: number of questions, at most as many as could change any traffic.
        rare: items that occur at most so often in the training sessions are asked about.
        shown: number of items that a question shows.
        named: number of items that an answer names at most.
        price_input: dollars per million prompt tokens, for a model whose price is not known here.
        price_output: dollars per million completion tokens.
        template: words of the questions: movies, games or items; by default the dataset's.
        rpm: requests per minute at most.
        in_flight: requests in flight at most.
        timeout: seconds for one request in all.
        pilot: number of questions that are asked first, before the rest.
        allow_http: allow sending the key unencrypted to another machine.
        item_seed: of the order of the items shown, and of questions that are drawn.
        estimate: print what it would cost, and send nothing.
    """

    data: options.Data
    store: pathlib.Path
    model: str
    questions: int = 500
    rare: int = 0
    among: Annotated[str, light_options.choices(AMONG, help="items that a question shows.")] = AMONG[1]
    order: Annotated[str, light_options.choices(ORDERS, help="how the questions are chosen.")] = ORDERS[0]
    shown: int = 30
    named: int = 10
    base_url: light_options.BaseUrl = "https://api.openai.com/v1"
    budget_usd: light_options.BudgetUsd = None
    api_key_env: light_options.ApiKeyEnv = None
    prices: light_options.PricesFile = None
    price_input: str | None = None
    price_output: str | None = None
    template: Annotated[str | None, light_options.choices(prompts.TEMPLATES)] = None
    reasoning_effort: light_options.ReasoningEffort = None
    max_output_tokens: light_options.MaxOutputTokens = None
    rpm: int | None = None
    in_flight: int = 64
    timeout: int = 300
    pilot: int = 16
    allow_http: bool = False
    item_seed: int = 0
    estimate: bool = False

    def check(self) -> None:
        """Raises ValueError where an option is out of range."""
        check_count(1, **{"--questions": self.questions, "--named": self.named})
        check_between(1, prompts.MAX_CANDIDATES - 1, **{"--shown": self.shown})
        check_at_least(0, **{"--rare": self.rare, "--item-seed": self.item_seed})

    @property
    def llm(self) -> LLMSettings:
        """Server, model, price and limits."""
        return LLMSettings.like(self, self.store.parent)


def ask_items(args: AskItems) -> None:
    """Asks the questions whose answers are not in the store.

    Raises:
        ValueError: an option is out of range, the items have no titles, no question has a value, money cannot be
            capped, or the run was stopped before its end.
    """
    args.check()
    dataset, settings = registry.read(args.data), args.llm
    check_titles(dataset)
    study = Study(dataset, args.rare, args.among, args.shown, args.named, args.item_seed)
    most = int((study.values > 0).sum())
    check_between(1, most, **{"--questions": args.questions})
    chosen = np.sort(study.order(args.order, args.questions))
    name = args.template or paper_settings.settings_of(dataset.name).prompt_template
    questions = list(study.questions(chosen, prompts.TEMPLATES[name]))
    print_line(f"{printable(dataset.name)}: {len(study.asked):,} items may be asked about, {most:,} with a value")
    args.store.parent.mkdir(parents=True, exist_ok=True)
    with Store.open(args.store) as store:
        client = settings.client(store, budget=Budget(requests=0) if args.estimate else None)
        print_estimate(settings, client.estimate(questions))
        if args.estimate:
            return
        settings.endpoint.api_key()
        with llm_progress_bar(len(questions)) as progress:
            usage = collect_sync(client, questions, pilot=args.pilot, on_progress=progress)
        print_usage(usage, store.ledger, settings.price, about="items")
    if usage.signal is not None:
        signal.raise_signal(usage.signal)
    if usage.stopped:
        raise ValueError(f"{len(usage.missing):,} questions have no usable answer yet; the same command goes on")


def main() -> None:
    """Entry point."""
    with cli_errors():
        ask_items(parse(AskItems, "ask_items", __doc__))


if __name__ == "__main__":
    main()
