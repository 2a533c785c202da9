"""What a collection of answers did."""

import collections
import dataclasses
from decimal import Decimal
from typing import Any

from alkd_jax.llm.pricing import PICO


@dataclasses.dataclass
class UsageReport:
    """What a collection did, for people and for the report.

    Attributes:
        asked: questions seen.
        cached: of these, answered before.
        statuses: status of the answer that counts → questions.
        repairs: kind of repair → questions it was needed in.
        missing: sessions without a usable answer.
        failed: sessions whose question could not be asked or answered → why.
        requests: sent this time.
        refusals: requests refused for too many of them.
        prompt_tokens: billed this time; `cached_tokens` are among them.
        completion_tokens: likewise.
        cost: pico-dollars confirmed this time; None where the price is unknown.
        possible: pico-dollars that may have been billed this time; None likewise.
        seconds: wall time.
        stopped: why it ended early; None where it did not.
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
    warnings: list[str] = dataclasses.field(default_factory=list)

    @property
    def done(self) -> int:
        """Questions with an answer, usable or not."""
        return sum(self.statuses.values())

    @property
    def valid_rate(self) -> float:
        """Share of the answered questions whose answer is usable; 1 before the first."""
        return 1 - sum(self.statuses[name] for name in ("refused", "invalid", "unusable")) / max(1, self.done)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values, money in dollars as text."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        money = {
            name: None if plain[name] is None else str(Decimal(plain[name]) / PICO) for name in ("cost", "possible")
        }
        counted = {"statuses": dict(self.statuses), "repairs": dict(self.repairs)}
        return plain | money | counted | {"failed": {str(session): why for session, why in self.failed.items()}}
