"""What may be spent and what was spent: caps and totals in exact integers."""

import dataclasses
import math
from collections.abc import Iterable
from decimal import Decimal

from alkd_jax.checks import check_at_least
from alkd_jax.llm.pricing import PICO, Price

_MAX_USD = 10**6


@dataclasses.dataclass(frozen=True)
class Budget:
    """Caps on everything that a store has paid or may have paid; None means no cap.

    Attributes:
        usd: US dollars.
        tokens: prompt and completion tokens.
        requests: requests that were answered or may have been billed.
    """

    usd: Decimal | None = None
    tokens: int | None = None
    requests: int | None = None

    def __post_init__(self) -> None:
        if self.usd is not None and (not isinstance(self.usd, Decimal) or not self.usd.is_finite() or self.usd < 0):
            raise ValueError(f"budget usd is {self.usd!r}; expected a Decimal of at least 0")
        if self.usd is not None and self.usd > _MAX_USD:
            raise ValueError(f"budget usd is {self.usd:g}; expected at most {_MAX_USD:,}")
        for name, cap in (("tokens", self.tokens), ("requests", self.requests)):
            if cap is not None:
                check_at_least(0, **{f"budget {name}": cap})

    @property
    def pico(self) -> int | None:
        """The cap on money in pico-dollars, rounded down."""
        return None if self.usd is None else math.floor(self.usd * PICO)

    def check(self, price: Price | None) -> None:
        """Checks that the caps can be enforced.

        Args:
            price: of the model; None where it is unknown.

        Raises:
            ValueError: money is capped though the price is unknown, or nothing is capped and the model is not free.
        """
        if price is None and self.usd is not None:
            raise ValueError("budget usd: the model's price is unknown, so money cannot be capped; give its price")
        if self == Budget() and not (price is not None and price.is_free):
            raise ValueError("budget: nothing is capped; give dollars, tokens or requests")

    def allows(self, pico: int, tokens: int, requests: int) -> bool:
        """Returns whether totals of pico-dollars, tokens and requests stay within all caps."""
        pairs = ((self.pico, pico), (self.tokens, tokens), (self.requests, requests))
        return all(cap is None or total <= cap for cap, total in pairs)


@dataclasses.dataclass
class Ledger:
    """Running totals of a store.

    Attributes:
        confirmed: pico-dollars of answers that came back.
        possible: pico-dollars that may have been billed for requests without an answer, each at its upper bound.
        reserved: pico-dollars that the requests in flight can cost at most.
        tokens: tokens of all three together.
        requests: requests of all three together.
        open: requests in flight.
    """

    confirmed: int = 0
    possible: int = 0
    reserved: int = 0
    tokens: int = 0
    requests: int = 0
    open: int = 0

    @classmethod
    def add_up(cls, rows: Iterable[tuple[str, int, int, int, int]]) -> "Ledger":
        """Adds up a ledger from one row per state of attempts: state, attempts, cost, reserved cost, tokens."""
        ledger = cls()
        for state, count, cost, reserved, tokens in rows:
            ledger.confirmed += cost if state == "settled" else 0
            ledger.possible += cost if state == "possible" else 0
            ledger.reserved += reserved if state == "sent" else 0
            ledger.open += count if state == "sent" else 0
            ledger.tokens += tokens
            ledger.requests += 0 if state in ("released", "imported") else count
        return ledger

    @property
    def committed(self) -> int:
        """Pico-dollars that can have been spent at most once every request in flight has come back."""
        return self.confirmed + self.possible + self.reserved
