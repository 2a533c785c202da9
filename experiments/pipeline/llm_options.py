"""The options of a language model: server, model, price, budget and limits, and what they make."""

import dataclasses
import datetime
import functools
import pathlib
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Self

import tyro

from alkd_jax.checks import check_count
from alkd_jax.llm import presets, prompts
from alkd_jax.llm.client import Client
from alkd_jax.llm.endpoint import MAX_TOKENS_FIELDS, STRUCTURED, Endpoint
from alkd_jax.llm.ledger import Budget
from alkd_jax.llm.price_list import ListedModel, price_list
from alkd_jax.llm.pricing import Price
from alkd_jax.llm.rate_limits import Limits
from alkd_jax.llm.store import Store

from . import light_options

DEFAULT_MIN_VALID = 20
_REASONING_TOKENS = 4096
"""Bound of an answer's tokens for models that reason, unless one is given."""
_NO_REASONING = ("none", "minimal")


@dataclasses.dataclass(frozen=True)
class LLMSettings:
    """Server, model and limits. The API key is read from an environment variable, by default OPENAI_API_KEY.

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
        temperature: a number, or "none" for models that take none; by default 0.
        seed: of sampling, or "none" for servers that take none; by default 0.
        order_seed: seed of the candidates' order in the questions.
        shuffles: number of questions about each session, with the candidates in other orders, whose lists are fused.
        rpm: requests per minute at most.
        tpm: tokens per minute at most.
        in_flight: requests in flight at most.
        timeout: seconds for one request in all.
        pilot: number of questions that are asked first, before the rest.
        allow_http: allow sending the key unencrypted to another machine.
    """

    run: light_options.RunFolder
    model: str
    base_url: light_options.BaseUrl = "https://api.openai.com/v1"
    budget_usd: light_options.BudgetUsd = None
    budget_tokens: int | None = None
    budget_requests: int | None = None
    price_input: str | None = None
    price_output: str | None = None
    price_cached: str | None = None
    template: Annotated[str | None, light_options.choices(prompts.TEMPLATES)] = None
    structured: Annotated[str | None, light_options.choices(STRUCTURED)] = None
    max_tokens_field: Annotated[str | None, light_options.choices(MAX_TOKENS_FIELDS)] = None
    max_output_tokens: light_options.MaxOutputTokens = None
    temperature: str | None = None
    min_valid: light_options.MinValid = DEFAULT_MIN_VALID
    order_seed: int = 0
    rpm: int | None = None
    tpm: int | None = None
    in_flight: int = 64
    timeout: int = 300
    pilot: int = 16
    allow_http: bool = False
    seed: str | None = None
    reasoning_effort: light_options.ReasoningEffort = None
    extra_body: light_options.ExtraBody = None
    api_key_env: light_options.ApiKeyEnv = None
    prices: light_options.PricesFile = None
    shuffles: int = 1

    @classmethod
    def like(cls, options: Any, folder: pathlib.Path, **changes: Any) -> Self:
        """Returns the settings that another command's options of the same names make.

        Args:
            options: an instance of a dataclass.
            folder: in place of a run's.
            **changes: settings of other values.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        same = {name: value for name, value in vars(options).items() if name in names}
        return cls(folder, **same | changes)

    @property
    def preset(self) -> presets.Preset:
        """The server."""
        return presets.resolve(self.base_url)

    @property
    def listed(self) -> ListedModel | None:
        """What the lists of prices know of the model."""
        return _listed(self.prices, self.model)

    @property
    def endpoint(self) -> Endpoint:
        """The server and the model."""
        preset, listed = self.preset, self.listed
        temperature = self.temperature or ("0" if listed is None or listed.takes_temperature else "none")
        seed = self.seed or ("0" if preset.takes_seed else "none")
        bound = self.max_output_tokens
        if bound is None and listed is not None and listed.reasons and self.reasoning_effort not in _NO_REASONING:
            bound = _REASONING_TOKENS
        return Endpoint(
            preset.base_url,
            self.model,
            api_key_env=self.api_key_env or preset.api_key_env,
            structured=self.structured or preset.structured,
            max_tokens_field=self.max_tokens_field or preset.max_tokens_field,
            max_output_tokens=bound,
            temperature=None if temperature == "none" else float(parse_decimal("temperature", temperature)),
            seed=None if seed == "none" else parse_integer("seed", seed),
            reasoning_effort=self.reasoning_effort,
            extra_body=self.extra_body,
            allow_http=self.allow_http,
        )

    @property
    def price(self) -> Price | None:
        """The price in the settings, else the list price, else free where the server is on this machine, else None."""
        if (self.price_input is None) != (self.price_output is None):
            raise ValueError("--price-input and --price-output go together; expected both or neither")
        if self.price_input is not None and self.price_output is not None:
            amounts = parse_decimal("price-input", self.price_input), parse_decimal("price-output", self.price_output)
            if not any(amounts):
                return Price.free()
            cached = None if self.price_cached is None else parse_decimal("price-cached", self.price_cached)
            return Price(*amounts, cached)
        is_local, listed = self.endpoint.is_local, self.listed
        if listed is not None and not (self.preset.is_own and is_local):
            return listed.price
        return Price.free() if is_local else None

    def notices(self, today: datetime.date) -> list[str]:
        """Returns what a user should know of the model before asking it."""
        notice = None if self.listed is None else self.listed.notice(self.model, today)
        return [] if notice is None else [notice]

    @property
    def budget(self) -> Budget:
        """The caps on dollars, tokens and requests."""
        usd = None if self.budget_usd is None else parse_decimal("budget-usd", self.budget_usd)
        return Budget(usd, self.budget_tokens, self.budget_requests)

    def check_budget(self) -> None:
        """Raises ValueError where money is capped but the price is unknown, or nothing is capped and may cost."""
        budget, price = self.budget, self.price
        if price is None and budget.usd is not None:
            raise ValueError(
                f"no price is known for {self.model}, so dollars cannot be capped; expected --price-input and "
                "--price-output in dollars per million tokens, or a file of prices with --prices"
            )
        budget.check(price)

    @property
    def limits(self) -> Limits:
        """The rate limits and time limits; a server on this machine often answers one request at a time."""
        most = self.in_flight
        first = min(4 if self.endpoint.is_local else 20, most)
        return Limits(self.rpm, self.tpm, (1, first, most), total_s=self.timeout)

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
        if budget is None:
            self.check_budget()
        return Client(
            self.endpoint,
            store,
            price=self.price,
            budget=budget or self.budget,
            limits=self.limits,
            min_valid=self.min_valid,
        )


SettingsArg = Annotated[LLMSettings, tyro.conf.arg(name="")]
"""The settings as a parameter of a command, whose options they become."""


@functools.lru_cache
def _listed(prices: pathlib.Path | None, model: str) -> ListedModel | None:
    """Returns what the lists of prices know of a model."""
    return price_list([] if prices is None else [prices]).get(model)


def parse_decimal(name: str, text: str) -> Decimal:
    """Parses the text of an option as a decimal number, without rounding."""
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"--{name} is {text!r}; expected a number") from None


def parse_integer(name: str, text: str) -> int:
    """Parses the text of an option as an integer."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"--{name} is {text!r}; expected an integer, or none") from None
