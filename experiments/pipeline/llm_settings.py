"""Whom a run's questions go to, what they are, and where the answers lie: the folder `llm` of a run."""

import collections
import dataclasses
import os
import pathlib
import time
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

import alkd_jax as alkd
from alkd_jax.io import read_json, write_json
from alkd_jax.llm import prompts, teachers
from alkd_jax.llm.client import Client, is_final
from alkd_jax.llm.endpoint import Endpoint
from alkd_jax.llm.ledger import Budget
from alkd_jax.llm.pricing import PRICES, Price, dollars
from alkd_jax.llm.rate_limits import Limits
from alkd_jax.llm.store import Store
from alkd_jax.llm.teachers import replay
from alkd_jax.llm.usage import UsageReport

TEMPLATE_OF = {"ML": "movies", "Games": "games"}


@dataclasses.dataclass(frozen=True)
class Asking:
    """Whom to ask, how, and within which limits. The API key is read from OPENAI_API_KEY.

    Attributes:
        run: folder made by `experiments.reproduce` or `experiments.quickstart`, with a selection and a teacher.
        model: as the server calls it; a dated name where there is one.
        base_url: of any OpenAI-compatible server.
        budget_usd: dollars that this run's folder may spend in all, over every call of this command.
        budget_tokens: tokens likewise.
        budget_requests: requests likewise.
        price_input: dollars per million prompt tokens, for a model whose price is not known here.
        price_output: dollars per million completion tokens.
        price_cached: dollars per million prompt tokens that the server had cached.
        template: movies, games or items; by default what fits the data.
        structured: json_schema, json_object, or none for a server that knows neither.
        max_tokens_field: max_completion_tokens, or max_tokens for older servers.
        max_output_tokens: bound of an answer; more for models that reason.
        temperature: a number, or "none" for models that take none.
        min_valid: entries from which a short list is used.
        order_seed: of the candidates' order in the questions.
        rpm: requests a minute at most.
        tpm: tokens a minute at most.
        in_flight: requests at once at most.
        timeout: seconds for one request in all.
        pilot: questions asked first, before the rest is let go.
        allow_http: send the key unencrypted to another machine.
    """

    run: pathlib.Path
    model: str
    base_url: str = "https://api.openai.com/v1"
    budget_usd: str | None = None
    budget_tokens: int | None = None
    budget_requests: int | None = None
    price_input: str | None = None
    price_output: str | None = None
    price_cached: str | None = None
    template: str | None = None
    structured: str = "json_schema"
    max_tokens_field: str = "max_completion_tokens"
    max_output_tokens: int = 256
    temperature: str = "0"
    min_valid: int = 20
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
        temperature = None if self.temperature == "none" else float(decimal("temperature", self.temperature))
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
        """As given; else on the list; else free on this machine; else None."""
        if self.price_input is not None and self.price_output is not None:
            cached = None if self.price_cached is None else decimal("price-cached", self.price_cached)
            given = decimal("price-input", self.price_input), decimal("price-output", self.price_output)
            return Price(*given, cached)
        if self.price_input is not None or self.price_output is not None:
            raise ValueError("--price-input and --price-output go together")
        return PRICES.get(self.model) or (Price.free() if self.endpoint.is_local else None)

    @property
    def budget(self) -> Budget:
        """The caps."""
        usd = None if self.budget_usd is None else decimal("budget-usd", self.budget_usd)
        return Budget(usd, self.budget_tokens, self.budget_requests)

    @property
    def limits(self) -> Limits:
        """How fast."""
        most = self.in_flight
        in_flight = (min(4, most), min(20, most), most)
        return Limits(self.rpm, self.tpm, in_flight, total_s=self.timeout, read_s=min(120, self.timeout))

    def client(self, store: Store, *, budget: Budget | None = None) -> Client:
        """Asks on these terms."""
        if budget is None and self.price is None and self.budget.usd is not None:
            raise ValueError(
                f"no price is known for {self.model}, so dollars cannot be capped; "
                "give --price-input and --price-output in dollars per million tokens"
            )
        return Client(
            self.endpoint,
            store,
            price=self.price,
            budget=budget or self.budget,
            limits=self.limits,
            min_valid=self.min_valid,
        )


def decimal(name: str, text: str) -> Decimal:
    """Reads an option exactly."""
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"--{name} is {text!r}; expected a number") from None


def store_path(run: pathlib.Path) -> pathlib.Path:
    """Where a run keeps its answers."""
    return run / "llm" / "answers.sqlite"


def open_store(run: pathlib.Path, *, readonly: bool = False) -> Store:
    """Opens a run's store; makes it where there is none, unless only looking."""
    if not readonly:
        store_path(run).parent.mkdir(exist_ok=True)
    return Store.open(store_path(run), readonly=readonly)


def template_of(asking: Asking, dataset: alkd.Dataset) -> prompts.Template:
    """The wording, with the run's own hints where `summarize_hints` made some."""
    name = asking.template or TEMPLATE_OF.get(dataset.name, "items")
    if name not in prompts.TEMPLATES:
        raise ValueError(f"--template is {name!r}; expected {', '.join(prompts.TEMPLATES)}")
    hints = asking.run / "llm" / "hints.json"
    template = prompts.TEMPLATES[name]
    return template.with_hints(read_json(hints)["hints"]) if hints.exists() else template


def asked_sessions(run: pathlib.Path, dataset: alkd.Dataset) -> tuple[alkd.Sessions, Any]:
    """The training sessions to ask about, each once, and their candidates, in the order of `candidates.jsonl`."""
    candidates = replay.load_rankings(run / "candidates.jsonl", num_items=dataset.num_items)
    row_of = {session: row for row, session in enumerate(dataset.train.session_id.tolist())}
    rows = [row_of[session] for session in candidates.session_id.tolist()]
    train = dataset.train
    sessions = alkd.Sessions(train.items[rows], train.mask[rows], train.target[rows], train.session_id[rows])
    return sessions, candidates.items


def questions(asking: Asking, dataset: alkd.Dataset) -> Iterator[prompts.Question]:
    """The run's questions, one by one."""
    sessions, candidates = asked_sessions(asking.run, dataset)
    template = template_of(asking, dataset)
    return teachers.build_questions(sessions, candidates, dataset.titles, template, seed=asking.order_seed)


def keep_asking(asking: Asking) -> None:
    """Writes down what was asked of whom, so that later hops find the answers; no secret is in it."""
    plain = {name: str(value) if name == "run" else value for name, value in dataclasses.asdict(asking).items()}
    write_json(asking.run / "llm" / "asking.json", plain)


def kept_asking(run: pathlib.Path) -> Asking:
    """What `keep_asking` wrote.

    Raises:
        ValueError: nothing was asked in this run yet.
    """
    path = run / "llm" / "asking.json"
    if not path.exists():
        raise ValueError(f"{run}: no model was asked yet; {command(run)}")
    return dataclasses.replace(Asking(**read_json(path)), run=run)


def command(run: pathlib.Path) -> str:
    """How to ask, for people."""
    return (
        f"run `python -m experiments.query_llm estimate --run {run} --model NAME`, "
        f"then `… run --run {run} --model NAME --budget-usd 1.00`"
    )


def keep_account(run: pathlib.Path, account: UsageReport, store: Store) -> None:
    """Adds a call's account to the run's, with the totals of the store."""
    path = run / "llm" / "account.json"
    calls = read_json(path)["calls"] if path.exists() else []
    plain = account.as_json() | {"ended": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    write_json(path, {"calls": [*calls, plain], "store": dataclasses.asdict(store.ledger)})


def answered_lists(run: pathlib.Path, dataset: alkd.Dataset) -> tuple[alkd.Rankings, dict[str, Any]]:
    """The usable lists of a run's store; asks nothing and opens no connection.

    Returns:
        Rankings in the order of `candidates.jsonl`, and a report with "asked", "missing" (no usable answer), "open" (of
        these, not asked to the end yet), what the answers were like, and what they cost, all calls together.
    """
    asking = kept_asking(run)
    with open_store(run) as store:
        client = asking.client(store, budget=Budget(requests=0))
        known = store.answered()
        lists, asked, left = {}, [], []
        statuses: collections.Counter[str] = collections.Counter()
        repairs: collections.Counter[str] = collections.Counter()
        for question, key, reading in client.readings(questions(asking, dataset)):
            asked.append(question.session_id)
            if reading is not None:
                statuses[reading.status] += 1
                repairs.update(set(reading.repairs))
            if reading is not None and reading.usable:
                lists[question.session_id] = reading.items
            elif not is_final(known.get(key)):
                left.append(question.session_id)
        ledger = store.ledger
    missing = [session for session in asked if session not in lists]
    spent = f"{dollars(ledger.confirmed)} paid, {dollars(ledger.possible)} possible"
    report = {
        "asked": len(asked),
        "missing": missing,
        "open": left,
        "model": asking.model,
        "statuses": dict(statuses),
        "repairs": dict(repairs),
        "requests": ledger.requests,
        "tokens": ledger.tokens,
        "cost": spent if asking.price is not None else "price unknown",
        "seconds": sum(call["seconds"] for call in read_json(run / "llm" / "account.json")["calls"]),
    }
    return teachers.as_rankings(lists, 25), report


def is_terminal() -> bool:
    """Whether a person can press return."""
    return os.isatty(0) and os.isatty(1)
