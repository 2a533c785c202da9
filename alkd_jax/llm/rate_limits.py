"""How fast to ask: requests and tokens a minute, requests in flight, and one pause that all workers keep."""

import asyncio
import dataclasses
import email.utils
import math
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping

_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclasses.dataclass(frozen=True)
class Limits:
    """Our own limits, kept whatever the server allows.

    Attributes:
        rpm: requests a minute; None for no limit.
        tpm: tokens a minute, prompt and completion; None for no limit.
        in_flight: requests at once: at least, to begin with, at most.
        connect_s: seconds to reach the server.
        read_s: seconds without a byte.
        total_s: seconds for one request in all.
        max_attempts: sends of one question that failed free of charge.
        max_maybe_billed: repeats of one question whose earlier send may have been billed.
        max_wait_s: seconds of pause after which the run ends and says when to go on.
        backoff_s: first wait after a failure that names none.
    """

    rpm: int | float | None = None
    tpm: int | float | None = None
    in_flight: tuple[int, int, int] = (4, 20, 64)
    connect_s: int | float = 10.0
    read_s: int | float = 120.0
    total_s: int | float = 300.0
    max_attempts: int = 6
    max_maybe_billed: int = 2
    max_wait_s: int | float = 900.0
    backoff_s: int | float = 0.5

    def __post_init__(self) -> None:
        least, first, most = self.in_flight
        if not 1 <= least <= first <= most <= 500:
            raise ValueError(f"in_flight: {self.in_flight}, expected 1 <= least <= first <= most <= 500")
        for name in ("rpm", "tpm", "connect_s", "read_s", "total_s", "max_wait_s", "backoff_s"):
            number = getattr(self, name)
            if number is not None and not (math.isfinite(number) and number > 0):
                raise ValueError(f"{name}: {number}, expected a positive number")


class Rate:
    """So much a minute, with a burst of one second; what does not fit waits its turn, in order."""

    def __init__(self, per_minute: int | float | None, clock: Callable[[], float]):
        self._per_second = None if per_minute is None else per_minute / 60
        self._clock = clock
        self._next = -math.inf

    def book(self, amount: int | float) -> float:
        """Books an amount and returns the seconds until its turn."""
        if self._per_second is None:
            return 0.0
        now = self._clock()
        begin = max(self._next, now - 1.0)
        self._next = begin + amount / self._per_second
        return max(0.0, begin - now)

    def correct(self, amount: int | float) -> None:
        """Gives back what was booked and not used; a negative amount books more."""
        if self._per_second is not None:
            self._next -= amount / self._per_second


class Pacer:
    """Admits requests: a place among those in flight, the shared pause, then the rates.

    The number of places doubles with every full window until the first refusal and grows by one a window afterwards; a
    refusal halves it, once for all requests that were on their way together.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
    ):
        self._limits, self._clock, self._sleep, self._draw = limits, clock, sleep, draw
        self._requests, self._tokens = Rate(limits.rpm, clock), Rate(limits.tpm, clock)
        self._places = asyncio.Condition()
        self._growing_fast, self._cut_at, self._pauses = True, -math.inf, 0
        self._last_success = clock()
        self.width, self.in_flight, self.not_before = float(limits.in_flight[1]), 0, -math.inf
        self.refusals, self.cuts = 0, 0

    async def enter(self, tokens: int, given_up: Callable[[], bool]) -> None:
        """Waits for a place, then until it may send; `leave` gives the place back, in any case."""
        async with self._places:
            await self._places.wait_for(lambda: given_up() or self.in_flight < int(self.width))
            self.in_flight += 1
        wait = max(self._requests.book(1), self._tokens.book(tokens))
        if wait > 0 and not given_up():
            await self._sleep(wait)
        await self.wait_for_pause(given_up)

    async def wait_for_pause(self, given_up: Callable[[], bool]) -> None:
        """Returns when nobody pauses; the workers start again one after the other."""
        while (wait := self.not_before - self._clock()) > 0 and not given_up():
            await self._sleep(wait + self._draw() * min(1.0, 0.1 * wait))

    async def leave(self) -> None:
        """Gives the place back."""
        async with self._places:
            self.in_flight -= 1
            self._places.notify_all()

    async def wake(self) -> None:
        """Lets those who wait look again whether they should give up."""
        async with self._places:
            self._places.notify_all()

    def succeeded(self, unused_tokens: int) -> None:
        """Books an answer: more places, and the tokens not used back."""
        self._pauses, self._last_success = 0, self._clock()
        self.width = min(float(self._limits.in_flight[2]), self.width + (1 if self._growing_fast else 1 / self.width))
        self._tokens.correct(unused_tokens)

    def refused(self, sent_at: float, wait: float | None) -> float | None:
        """Books a refusal for too many requests: everybody pauses.

        Args:
            sent_at: when the refused request was sent, on the pacer's clock.
            wait: seconds the server asked for; None where it did not.

        Returns:
            None, or the seconds to wait where they are more than `max_wait_s` allows, counted from the last success.
        """
        self.refusals += 1
        now = self._clock()
        if sent_at >= self._cut_at:
            self.width = max(float(self._limits.in_flight[0]), self.width / 2)
            self._growing_fast, self._cut_at = False, now
            self._pauses += 1
            self.cuts += 1
        if wait is None:
            wait = self.backoff(self._pauses)
        self.not_before = max(self.not_before, now + wait)
        return wait if wait > self._limits.max_wait_s or self._overdue(now + wait) else None

    def backoff(self, failures: int) -> float:
        """Seconds before the next try: doubling up to a minute, with jitter, never zero."""
        longest = min(60.0, self._limits.backoff_s * 2 ** min(failures - 1, 20))
        return longest * (0.5 + 0.5 * self._draw())

    def _overdue(self, until: float) -> bool:
        return until - self._last_success > self._limits.max_wait_s

    @property
    def clock(self) -> Callable[[], float]:
        """Of the pacer."""
        return self._clock


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Reads from an answer's headers how long to wait.

    Args:
        headers: with names in lower case.
        now: seconds since the epoch, for dates.

    Returns:
        Seconds, from `retry-after-ms`, `retry-after` (seconds or a date), or the longest `x-ratelimit-reset-…` of what
        is used up; None where there is none or it is negative or no number.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "")
        seconds = _number(text)
        if seconds is not None:
            return seconds * unit
        if name == "retry-after" and (moment := _date(text)) is not None and moment > now:
            return moment - now
    waits = []
    for what in ("requests", "tokens"):
        if headers.get(f"x-ratelimit-remaining-{what}", "0").strip() in ("0", ""):
            waits.append(_duration(headers.get(f"x-ratelimit-reset-{what}", "")))
    return max((wait for wait in waits if wait), default=None)


def _number(text: str) -> float | None:
    """A positive finite number, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _date(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _duration(text: str) -> float | None:
    """Seconds of "12ms", "6s", "1m30s" or a bare number."""
    parts = _PART.findall(text.strip())
    if parts and "".join(number + unit for number, unit in parts) == text.strip():
        return math.fsum(float(number) * _SECONDS[unit] for number, unit in parts)
    return _number(text)
