"""One endpoint with its price, budget, limits and store: bounds and estimates of cost, and parsed answers."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from alkd_jax.llm import pricing
from alkd_jax.llm.answers import Answer
from alkd_jax.llm.endpoint import Endpoint
from alkd_jax.llm.ledger import Budget
from alkd_jax.llm.parsing import ParsedAnswer, parse_answer
from alkd_jax.llm.pricing import Price
from alkd_jax.llm.prompts import Question
from alkd_jax.llm.rate_limits import Limits
from alkd_jax.llm.store import Store


class Client:
    """What a collection needs to send questions and to record the answers.

    Attributes:
        endpoint: server and model.
        store: of requests and answers, opened for writing by this process.
        price: of the model; None where it is unknown, and money cannot be capped.
        budget: caps on the store's totals.
        limits: rate limits and time limits.
        min_valid: number of entries from which a short list is usable.
        min_valid_rate: share of usable answers in the pilot below which the run ends.
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
        self.endpoint, self.store, self.price, self.budget = endpoint, store, price, budget
        self.limits = limits or Limits()
        self.min_valid, self.min_valid_rate = min_valid, min_valid_rate

    def max_cost(self, request: Mapping[str, Any], *, batch: bool = False) -> tuple[int, int]:
        """Returns the pico-dollars and the tokens that one request can cost at most."""
        size, max_output_tokens = request["size"], request["max_output_tokens"]
        cost = 0 if self.price is None else self.price.max_cost(size, max_output_tokens, batch=batch)
        return cost, size + max_output_tokens

    def estimate(self, questions: Iterable[Question]) -> pricing.Estimate:
        """Estimates what the answers that are not in the store will cost; all is zero where the price is unknown."""
        endpoint, store = self.endpoint, self.store
        records, request_keys = store.answer_records(), store.request_keys()
        count_tokens = pricing.token_counter(endpoint.model)
        sizes: list[tuple[int, int | None]] = []
        answered, max_output_tokens = 0, endpoint.max_output_tokens
        for question in questions:
            key, request = self.request_key(question, request_keys)
            if key in records and records[key].is_final:
                answered += 1
            else:
                request = request or endpoint.request(question)
                max_output_tokens = request["max_output_tokens"]
                text = "".join(message["content"] for message in question.messages)
                sizes.append((request["size"], count_tokens(text) if count_tokens else None))
        return pricing.estimate(
            sizes,
            self.price or Price.free(),
            max_output_tokens=max_output_tokens,
            answered=answered,
            calibration=store.calibration(endpoint.normalized_url, endpoint.model),
        )

    def request_key(self, question: Question, request_keys: dict[bytes, str]) -> tuple[str, dict[str, Any] | None]:
        """Finds the key of a question's request, which is rendered only where its prompt hash is unknown.

        Args:
            question: the question.
            request_keys: prompt hash → key; a key that had to be rendered is added.

        Returns:
            The key, and the request where it was rendered.
        """
        prompt_hash = self.endpoint.prompt_hash(question)
        if prompt_hash in request_keys:
            return request_keys[prompt_hash], None
        request = self.endpoint.request(question)
        request_keys[prompt_hash] = request["key"]
        return request["key"], request

    def cost(self, answer: Answer, request: Mapping[str, Any], *, batch: bool = False) -> tuple[int, int, str]:
        """Returns the pico-dollars and tokens of an answer, and what these rest on."""
        usage = answer.usage
        if usage is None:
            return *self.max_cost(request, batch=batch), "assumed worst"
        cost = 0 if self.price is None else self.price.cost(usage, tier=answer.tier, batch=batch)
        return cost, usage.prompt + usage.completion, "usage"

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
        records, request_keys = self.store.answer_records(), self.store.request_keys()
        for question in questions:
            key, _ = self.request_key(question, request_keys)
            record = records.get(key)
            if record is None:
                yield question, key, None
            elif record.status:
                yield question, key, self.store.parsed_answer(record.attempt)
            else:
                yield question, key, self.parse(question, record.attempt)
