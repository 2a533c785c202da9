"""What one collection of answers did: counts, tokens, cost, and what went wrong."""

import collections
import dataclasses
from decimal import Decimal
from typing import Any

from alkd_jax.llm.pricing import PICO


@dataclasses.dataclass
class UsageReport:
    """What one collection of answers did.

    Attributes:
        asked: number of questions.
        cached: of these, questions that the store already had an answer to.
        statuses: status of a question's last answer → number of questions.
        repairs: kind of repair → number of questions whose answer needed it.
        missing: ids of the sessions without a usable answer.
        failed: id of a session whose question could not be sent or answered → reason.
        requests: requests sent by this collection.
        refusals: requests that the server refused because there were too many.
        prompt_tokens: prompt tokens billed in this collection; `cached_tokens` are among them.
        cached_tokens: prompt tokens that the server had cached.
        completion_tokens: completion tokens billed in this collection.
        cost: pico-dollars confirmed in this collection; None where the price is unknown.
        possible: pico-dollars that may have been billed in this collection; None where the price is unknown.
        seconds: wall time.
        stopped: reason for an early end; None where all questions were processed.
        store_failed: whether it stopped because the store cannot be written any more.
        signal: number of the signal that ended the collection; None where none did.
        warnings: what a reader of the results should know.
    """

    asked: int = 0
    cached: int = 0
    statuses: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    repairs: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    missing: list[int] = dataclasses.field(default_factory=list)
    failed: dict[int, str] = dataclasses.field(default_factory=dict)
    requests: int = 0
    refusals: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost: int | None = 0
    possible: int | None = 0
    seconds: float = 0.0
    stopped: str | None = None
    store_failed: bool = False
    signal: int | None = None
    warnings: list[str] = dataclasses.field(default_factory=list)

    @property
    def done(self) -> int:
        """Number of questions with an answer, usable or not."""
        return sum(self.statuses.values())

    @property
    def valid_rate(self) -> float:
        """Share of the answered questions whose answer is usable; 1 while there is none."""
        return 1 - sum(self.statuses[name] for name in ("refused", "invalid", "unusable")) / max(1, self.done)

    def as_json(self) -> dict[str, Any]:
        """Returns plain JSON values, with money in dollars as text."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("cost", "possible"):
            values[name] = None if values[name] is None else str(Decimal(values[name]) / PICO)
        values["statuses"], values["repairs"] = dict(self.statuses), dict(self.repairs)
        values["failed"] = {str(session_id): reason for session_id, reason in self.failed.items()}
        return values
