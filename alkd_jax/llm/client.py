"""What is asked at one endpoint, at what price and within which budget; knows the costs and reads the answers."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from alkd_jax.llm import pricing
from alkd_jax.llm.endpoint import Endpoint, Reply
from alkd_jax.llm.ledger import Budget
from alkd_jax.llm.parsing import Reading, read_answer
from alkd_jax.llm.pricing import Price
from alkd_jax.llm.prompts import Question
from alkd_jax.llm.rate_limits import Limits
from alkd_jax.llm.store import AnswerRecord, Store

_MAX_ANSWERS = 2


class Client:
    """Asks questions at one endpoint and keeps everything in one store.

    Attributes:
        endpoint: where, and which model.
        store: open, and this process's own.
        price: of the model; None where unknown, which no cap on money goes with.
        budget: caps on the store's totals.
        limits: how fast.
        min_valid: entries from which a short list is usable.
        min_valid_rate: share of usable answers under which a pilot ends the run.
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

    def worst(self, request: Mapping[str, Any], *, batch: bool = False) -> tuple[int, int]:
        """Pico-dollars and tokens that one request can cost at most."""
        pico = 0 if self.price is None else self.price.worst(request["size"], request["output"], batch=batch)
        return pico, request["size"] + request["output"]

    def estimate(self, questions: Iterable[Question]) -> pricing.Estimate:
        """Estimates what the questions not answered yet will cost; all zero where the price is unknown."""
        known, wordings = self.store.answered(), self.store.wordings()
        count = pricing.token_counter(self.endpoint.model)
        bounds: list[tuple[int, int | None]] = []
        answered, output = 0, self.endpoint.max_output_tokens
        for question in questions:
            key, request = self.look_up(question, wordings)
            if is_final(known.get(key)):
                answered += 1
            else:
                request = request or self.endpoint.request(question)
                output = request["output"]
                words = "".join(message["content"] for message in question.messages)
                bounds.append((request["size"], count(words) if count else None))
        measured = self.store.calibration(self.endpoint.normal_url, self.endpoint.model)
        price = self.price or Price.free()
        return pricing.estimate(bounds, price, max_output_tokens=output, answered=answered, measured=measured)

    def look_up(self, question: Question, wordings: dict[bytes, str]) -> tuple[str, dict[str, Any] | None]:
        """Key of a question, and its request where it had to be worded for that: it then joins those worded before."""
        mark = self.endpoint.mark(question)
        if mark in wordings:
            return wordings[mark], None
        request = self.endpoint.request(question)
        wordings[mark] = request["key"]
        return request["key"], request

    def cost(self, reply: Reply, request: Mapping[str, Any], *, batch: bool = False) -> tuple[int, int, str]:
        """Pico-dollars and tokens of an answer, and what that rests on."""
        assert reply.answer is not None
        usage = reply.answer.usage
        if usage is None:
            return *self.worst(request, batch=batch), "assumed worst"
        pico = 0 if self.price is None else self.price.cost(usage, tier=reply.answer.tier, batch=batch)
        return pico, usage.prompt + usage.completion, "usage"

    def read(self, question: Question, attempt: int) -> Reading:
        """Reads a stored answer and keeps the reading."""
        content, finish_reason, refusal = self.store.content(attempt)
        reading = read_answer(question, content, finish_reason=finish_reason, refusal=refusal, min_valid=self.min_valid)
        self.store.record_parse(attempt, reading)
        return reading

    def readings(self, questions: Iterable[Question]) -> Iterator[tuple[Question, str, Reading | None]]:
        """Yields each question, its key, and the reading of its stored answer, if there is one."""
        known, wordings = self.store.answered(), self.store.wordings()
        for question in questions:
            key, _ = self.look_up(question, wordings)
            found = known.get(key)
            if found is None:
                yield question, key, None
            else:
                read = self.store.reading(found.attempt) if found.status else self.read(question, found.attempt)
                yield question, key, read


def is_final(known: AnswerRecord | None) -> bool:
    """Whether nothing is to be bought for a key any more: an invalid answer is asked for once more, no other."""
    return known is not None and (known.status != "invalid" or known.answers >= _MAX_ANSWERS)
