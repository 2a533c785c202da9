"""Settings of the language model of a run, its questions, and the folder `llm` of the run with the answers."""

import dataclasses
import pathlib
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import numpy as np
import tyro

import alkd_jax as alkd
from alkd_jax import paper_settings
from alkd_jax.checks import check_count, check_one_of
from alkd_jax.errors import printable, shown
from alkd_jax.io import read_object, write_json
from alkd_jax.llm import prompts
from alkd_jax.llm.client import Client
from alkd_jax.llm.endpoint import MAX_TOKENS_FIELDS, STRUCTURED, Endpoint
from alkd_jax.llm.ledger import Budget, Ledger
from alkd_jax.llm.pricing import PRICES, Price, dollars
from alkd_jax.llm.rate_limits import Limits
from alkd_jax.llm.store import Store
from alkd_jax.llm.teachers import OnlineTeacher
from alkd_jax.llm.teachers.replay import load_rankings

from . import calls, llm_account, options
from .stage_records import checked_output
from .stored_values import check_fields

HOW_TO_GIVE_TITLES = (
    "give titles with experiments.prepare: a title column in the table, or a second table with item and title "
    "(--source table:FILE:TITLES --columns item=NAME,title=NAME)"
)
"""Advice for data without titles."""

DEFAULT_MIN_VALID = 20


@dataclasses.dataclass(frozen=True)
class LLMSettings:
    """Server, model and limits. The API key is read from the environment variable OPENAI_API_KEY.

    Attributes:
        model: name of the model on the server; a dated name where there is one.
        budget_tokens: tokens that the run may take in all.
        budget_requests: requests that the run may send in all.
        price_input: dollars per million prompt tokens, for a model whose price is not known here.
        price_output: dollars per million completion tokens.
        price_cached: dollars per million prompt tokens that the server had cached.
        template: words of the questions: movies, games or items; by default the dataset's.
        structured: how requests ask for JSON: json_schema, json_object, or none for a server without either.
        max_tokens_field: max_completion_tokens, or max_tokens for older servers.
        max_output_tokens: bound of an answer's tokens; models that reason need more.
        temperature: a number, or "none" for models that take none.
        order_seed: seed of the candidates' order in the questions.
        rpm: requests per minute at most.
        tpm: tokens per minute at most.
        in_flight: requests in flight at most.
        timeout: seconds for one request in all.
        pilot: number of questions that are asked first, before the rest.
        allow_http: allow sending the key unencrypted to another machine.
    """

    run: options.RunFolder
    model: str
    base_url: options.BaseUrl = "https://api.openai.com/v1"
    budget_usd: options.BudgetUsd = None
    budget_tokens: int | None = None
    budget_requests: int | None = None
    price_input: str | None = None
    price_output: str | None = None
    price_cached: str | None = None
    template: Annotated[str | None, options.choices(prompts.TEMPLATES)] = None
    structured: Annotated[str, options.choices(STRUCTURED)] = "json_schema"
    max_tokens_field: Annotated[str, options.choices(MAX_TOKENS_FIELDS)] = "max_completion_tokens"
    max_output_tokens: int = 256
    temperature: str = "0"
    min_valid: options.MinValid = DEFAULT_MIN_VALID
    order_seed: int = 0
    rpm: int | None = None
    tpm: int | None = None
    in_flight: int = 64
    timeout: int = 300
    pilot: int = 16
    allow_http: bool = False

    @property
    def endpoint(self) -> Endpoint:
        """The server and the model."""
        temperature = None if self.temperature == "none" else float(parse_decimal("temperature", self.temperature))
        return Endpoint(
            self.base_url,
            self.model,
            structured=self.structured,
            max_tokens_field=self.max_tokens_field,
            max_output_tokens=self.max_output_tokens,
            temperature=temperature,
            allow_http=self.allow_http,
        )

    @property
    def price(self) -> Price | None:
        """The price in the settings, else the list price, else free where the server is on this machine, else None."""
        if self.price_input is not None and self.price_output is not None:
            return Price(
                parse_decimal("price-input", self.price_input),
                parse_decimal("price-output", self.price_output),
                None if self.price_cached is None else parse_decimal("price-cached", self.price_cached),
            )
        if self.price_input is not None or self.price_output is not None:
            raise ValueError("--price-input and --price-output go together; expected both or neither")
        return PRICES.get(self.model) or (Price.free() if self.endpoint.is_local else None)

    @property
    def budget(self) -> Budget:
        """The caps on dollars, tokens and requests."""
        usd = None if self.budget_usd is None else parse_decimal("budget-usd", self.budget_usd)
        return Budget(usd, self.budget_tokens, self.budget_requests)

    @property
    def limits(self) -> Limits:
        """The rate limits and time limits."""
        most = self.in_flight
        in_flight = (min(4, most), min(20, most), most)
        return Limits(self.rpm, self.tpm, in_flight, total_s=self.timeout, read_s=min(120, self.timeout))

    def client(self, store: Store, *, budget: Budget | None = None) -> Client:
        """Makes a client.

        Args:
            store: for requests and answers.
            budget: in place of the one in the settings.

        Raises:
            ValueError: money is capped but the price is unknown, nothing is capped, or a number is out of range.
        """
        check_count(1, **{"--min-valid": self.min_valid})
        check_count(0, **{"--pilot": self.pilot})
        own_budget = self.budget
        if budget is None and self.price is None and own_budget.usd is not None:
            raise ValueError(
                f"no price is known for {self.model}, so dollars cannot be capped; "
                "expected --price-input and --price-output in dollars per million tokens"
            )
        return Client(
            self.endpoint,
            store,
            price=self.price,
            budget=budget or own_budget,
            limits=self.limits,
            min_valid=self.min_valid,
        )


SettingsArg = Annotated[LLMSettings, tyro.conf.arg(name="")]
"""The settings as a parameter of a command, whose options they become."""


def parse_decimal(name: str, text: str) -> Decimal:
    """Parses the text of an option as a decimal number, without rounding."""
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"--{name} is {text!r}; expected a number") from None


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
    return OnlineTeacher(settings.client(store, budget=budget), dataset.titles, template, seed=settings.order_seed)


def save_settings(settings: LLMSettings, client: Client) -> None:
    """Writes the settings, which hold no secret, to `llm/asking.json` of the run for the stages that read answers.

    Args:
        settings: of the model.
        client: made of them; where `min_valid` was another, its store's short answers are parsed again.
    """
    try:
        former = load_settings(settings.run).min_valid
    except ValueError:
        former = None
    if former != settings.min_valid:
        client.forget_short()
    write_json(settings.run / "llm" / "asking.json", dataclasses.asdict(settings) | {"run": str(settings.run)})


def load_settings(run: pathlib.Path) -> LLMSettings:
    """Reads the settings that :func:`save_settings` wrote.

    Raises:
        ValueError: no model was asked in this run yet.
    """
    path = run / "llm" / "asking.json"
    if not path.exists():
        raise ValueError(f"{run}: no model was asked yet; {usage_hint(run)}")
    values = read_object(path) | {"run": run}
    check_fields(path, values, LLMSettings)
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
