"""One endpoint with its price, budget, limits and store: bounds and estimates of cost, and parsed answers."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from alkd_jax.llm import pricing
from alkd_jax.llm.answer_index import AnswerIndex
from alkd_jax.llm.answers import Answer
from alkd_jax.llm.calibration import answering_tiers, calibrate
from alkd_jax.llm.endpoint import Endpoint
from alkd_jax.llm.ledger import Budget
from alkd_jax.llm.parsing import ParsedAnswer, parse_answer
from alkd_jax.llm.price_list import price_list
from alkd_jax.llm.pricing import Price
from alkd_jax.llm.prompts import Question
from alkd_jax.llm.rate_limits import Limits
from alkd_jax.llm.store import Store


class Client:
    """What a collection needs to send questions and to record the answers.

    Attributes:
        endpoint: server and model, without what the server is known to refuse.
        store: of requests and answers, opened for writing by this process.
        price: of the model; None where it is unknown, and money cannot be capped.
        budget: caps on the store's totals.
        limits: rate limits and time limits.
        min_valid: number of entries from which a short list is usable.
        min_valid_rate: share of usable answers in the pilot below which the run ends.
        tier: the dearest service tier that has answered, in which the next answers may come too.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        store: Store,
        *,
        price: Price | None,
        budget: Budget,
        limits: Limits | None = None,
        min_valid: int = 20,
        min_valid_rate: int | float = 0.9,
    ):
        budget.check(price)
        adaptations = store.adaptations(endpoint.normalized_url, endpoint.model)
        self.endpoint, self.store, self.price, self.budget = endpoint.adapted(adaptations), store, price, budget
        self._adaptations = adaptations
        self.limits = limits or Limits()
        self.min_valid, self.min_valid_rate = min_valid, min_valid_rate
        self.tier: str | None = None
        answering = answering_tiers(store, endpoint.normalized_url, endpoint.model)
        asked = self.endpoint.extra_fields.get("service_tier")
        self.note_tier(asked if isinstance(asked, str) else None)
        # Of a server that does not name the tier of its answers, those that are dearer are believed to be as asked for.
        self._asked_tier = self.tier
        for tier in answering:
            self.note_tier(tier)

    def note_tier(self, tier: str | None) -> None:
        """Notes the service tier of an answer, so that the next requests reserve what they can cost in it."""
        if self.price is not None and self.price.factor(tier) > self.price.factor(self.tier):
            self.tier = tier

    def adapt(self, field: str, body: Mapping[str, Any]) -> str | None:
        """Leaves out or replaces a field that the server refuses, from now on and in later runs on the store.

        Args:
            field: of the body.
            body: of the refused request.

        Returns:
            What is sent instead, in words, which are empty where it was found before; None where nothing can be.
        """
        endpoint = self.endpoint
        if not endpoint.sends(field, body):
            return ""
        change = endpoint.without(field)
        if change is None:
            return None
        name, value = change
        if name == "max_tokens_field" and name in self._adaptations:
            return None
        self.store.record_adaptation(endpoint.normalized_url, endpoint.model, name, value)
        self._adaptations[name] = value
        self.endpoint = endpoint.adapted({name: value})
        if name == "max_tokens_field":
            return f"{value} is sent instead"
        if name == "system_role":
            return "the instructions stand in the user's message instead"
        if name == "structured" and value != "none":
            return f"{value} is asked for instead"
        return "it is left out"

    def max_cost(self, request: Mapping[str, Any], *, batch: bool = False) -> tuple[int, int]:
        """Returns the pico-dollars and the tokens that one request can cost at most."""
        size, max_output_tokens = request["size"], request["max_output_tokens"]
        price = self.price
        cost = 0 if price is None else price.max_cost(size, max_output_tokens, tier=self.tier, batch=batch)
        return cost, size + max_output_tokens

    def estimate(self, questions: Iterable[Question]) -> pricing.Estimate:
        """Estimates what the answers that are not in the store will cost; all is zero where the price is unknown."""
        endpoint, index = self.endpoint, self.index()
        count_tokens = pricing.token_counter(endpoint.model)
        sizes: list[tuple[int, int | None]] = []
        answered, max_output_tokens = 0, endpoint.max_tokens()
        for question in questions:
            found = index.find(question)
            if found.record is not None and found.record.is_final:
                answered += 1
            else:
                request = found.request or endpoint.request(question)
                max_output_tokens = request["max_output_tokens"]
                text = "".join(message["content"] for message in question.messages)
                sizes.append((request["size"], count_tokens(text) if count_tokens else None))
        return pricing.estimate(
            sizes,
            self.price or Price.free(),
            max_output_tokens=max_output_tokens,
            answered=answered,
            calibration=calibrate(self.store, endpoint.normalized_url, endpoint.model),
            tier=self.tier,
        )

    def index(self) -> AnswerIndex:
        """Returns an index of the stored answers by question."""
        return AnswerIndex(self.store, lambda: self.endpoint)

    def cost(self, answer: Answer, request: Mapping[str, Any], *, batch: bool = False) -> tuple[int, int, str]:
        """Returns the pico-dollars and tokens of an answer, and what these rest on."""
        usage = answer.usage
        if usage is None:
            return *self.max_cost(request, batch=batch), "assumed worst"
        tier = answer.tier or self._asked_tier
        prices = [] if self.price is None else [self.price, *self._price_of_another(answer.model)]
        cost = max((price.cost(usage, tier=tier, batch=batch) for price in prices), default=0)
        return cost, usage.prompt + usage.completion, "usage"

    def _price_of_another(self, model: str | None) -> list[Price]:
        """Returns the list price of the model that has answered in place of the one that was asked."""
        if self.price is None or not self.price.is_listed or model in (None, self.endpoint.model):
            return []
        listed = price_list().get(str(model))
        return [] if listed is None else [listed.price]

    def parse(self, question: Question, attempt: int) -> ParsedAnswer:
        """Parses a stored answer and records the result."""
        content, finish_reason, refusal = self.store.content(attempt)
        parsed = parse_answer(question, content, finish_reason=finish_reason, refusal=refusal, min_valid=self.min_valid)
        self.store.record_parse(attempt, parsed)
        return parsed

    def forget_short(self) -> None:
        """Has the short answers in the store parsed again, as is needed where ``min_valid`` was another."""
        with self.store.transaction() as connection:
            connection.execute("UPDATE answers SET parser = NULL WHERE status IN ('partial', 'truncated', 'invalid')")

    def parsed_answers(self, questions: Iterable[Question]) -> Iterator[tuple[Question, str, ParsedAnswer | None]]:
        """Yields each question, the key of its request, and its parsed answer, None where the store has no answer."""
        index = self.index()
        for question in questions:
            found = index.find(question)
            if found.record is None:
                yield question, found.key, None
            elif found.record.status:
                yield question, found.key, self.store.parsed_answer(found.record.attempt)
            else:
                yield question, found.key, self.parse(question, found.record.attempt)
