"""What may be spent and what was: caps and totals in exact integers."""

import dataclasses
import math
from decimal import Decimal

from alkd_jax.llm.pricing import PICO, Price


@dataclasses.dataclass(frozen=True)
class Budget:
    """Caps on everything a store ever paid or may have paid; None for no cap.

    Attributes:
        usd: dollars.
        tokens: prompt and completion.
        requests: sent and answered, or perhaps billed.
    """

    usd: Decimal | None = None
    tokens: int | None = None
    requests: int | None = None

    def __post_init__(self) -> None:
        if self.usd is not None and (not isinstance(self.usd, Decimal) or not self.usd.is_finite() or self.usd < 0):
            raise ValueError(f"budget usd: {self.usd!r}, expected a Decimal of at least 0")
        for name, number in (("tokens", self.tokens), ("requests", self.requests)):
            if number is not None and number < 0:
                raise ValueError(f"budget {name}: {number}, expected at least 0")

    @property
    def pico(self) -> int | None:
        """The cap on money in pico-dollars, rounded down."""
        return None if self.usd is None else math.floor(self.usd * PICO)

    def check(self, price: Price | None) -> None:
        """Raises ValueError when a cap on money stands beside an unknown price, or when nothing is capped."""
        if price is None and self.usd is not None:
            raise ValueError("budget usd: the model's price is unknown, so money cannot be capped; give its price")
        if self == Budget():
            raise ValueError("budget: nothing is capped; give dollars, tokens or requests")

    def allows(self, pico: int, tokens: int, requests: int) -> bool:
        """Whether totals stay within all caps."""
        pairs = ((self.pico, pico), (self.tokens, tokens), (self.requests, requests))
        return all(cap is None or total <= cap for cap, total in pairs)


@dataclasses.dataclass
class Ledger:
    """Pico-dollars, tokens and requests: paid, perhaps paid, and reserved for what is on its way."""

    confirmed: int = 0
    possible: int = 0
    reserved: int = 0
    tokens: int = 0
    requests: int = 0
    open: int = 0

    @property
    def committed(self) -> int:
        """What may have been spent when all that is on its way has come back, at most."""
        return self.confirmed + self.possible + self.reserved
