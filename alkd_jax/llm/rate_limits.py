"""Rate limits: requests and tokens per minute, requests in flight, and one pause shared by all workers."""

import asyncio
import dataclasses
import email.utils
import math
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping

_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_LONGEST_WAIT = 366 * 86_400.0
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclasses.dataclass(frozen=True)
class Limits:
    """The client's own limits, which hold whatever the server allows.

    Attributes:
        rpm: requests per minute; None for no limit.
        tpm: prompt and completion tokens per minute; None for no limit.
        in_flight: requests in flight: the least, the number to begin with, and the most.
        connect_s: seconds to connect to the server.
        total_s: seconds for one request in all; a server sends no byte of an answer before the model has finished.
        max_attempts: attempts at one question that may fail without being billed.
        max_possibly_billed: repeats of one question whose earlier attempts may have been billed.
        max_wait_s: longest pause in seconds; a longer one ends the run.
        backoff_s: seconds of the first pause after a failure for which the server named none.
    """

    rpm: int | float | None = None
    tpm: int | float | None = None
    in_flight: tuple[int, int, int] = (4, 20, 64)
    connect_s: int | float = 10.0
    total_s: int | float = 300.0
    max_attempts: int = 6
    max_possibly_billed: int = 2
    max_wait_s: int | float = 900.0
    backoff_s: int | float = 0.5

    def __post_init__(self) -> None:
        least, first, most = self.in_flight
        if not 1 <= least <= first <= most <= 500:
            raise ValueError(f"in_flight is {self.in_flight}; expected 1 <= least <= first <= most <= 500")
        for name in ("rpm", "tpm", "connect_s", "total_s", "max_wait_s", "backoff_s"):
            number = getattr(self, name)
            if number is not None and not (math.isfinite(number) and number > 0):
                raise ValueError(f"{name} is {number}; expected a positive number")


class RateLimiter:
    """Limits an amount per minute, with a burst of one second; amounts beyond the limit wait in order."""

    def __init__(self, per_minute: int | float | None, clock: Callable[[], float]):
        self._per_second = None if per_minute is None else per_minute / 60
        self._clock = clock
        self._next = -math.inf

    def reserve(self, amount: int | float) -> float:
        """Reserves an amount and returns the seconds to wait before it may be used."""
        if self._per_second is None:
            return 0.0
        now = self._clock()
        start = max(self._next, now - 1.0)
        self._next = start + amount / self._per_second
        return max(0.0, start - now)

    def refund(self, amount: int | float) -> None:
        """Returns a reserved amount that was not used; a negative amount reserves more."""
        if self._per_second is not None:
            self._next -= amount / self._per_second


class Pacer:
    """Admits requests one by one: a slot among those in flight, then the rates per minute, then the shared pause.

    The number of slots doubles with every full window of successes until the first refusal, and grows by one per window
    afterwards; it does not grow while answers take more than a quarter of the time limit. A refusal or a timeout halves
    it, once for all requests that were in flight together.

    Attributes:
        slots: requests that may be in flight now.
        in_flight: requests that hold a slot.
        paused_until: time on the pacer's clock before which nothing is sent.
        refusals: requests that the server refused.
        decreases: how often the slots were halved.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        uniform: Callable[[], float] = random.random,
    ):
        self._limits, self._sleep, self._uniform = limits, sleep, uniform
        self._requests, self._tokens = RateLimiter(limits.rpm, clock), RateLimiter(limits.tpm, clock)
        self._slots_changed = asyncio.Condition()
        self._doubling, self._decreased_at, self._pauses = True, -math.inf, 0
        self._last_success = clock()
        self.clock = clock
        self.slots, self.in_flight, self.paused_until = float(limits.in_flight[1]), 0, -math.inf
        self.refusals, self.decreases = 0, 0

    async def acquire(self, tokens: int, is_stopping: Callable[[], bool]) -> None:
        """Waits for a slot and then until the request may be sent; the caller must call `release` in any case.

        Args:
            tokens: of the request at most.
            is_stopping: ends the wait where it returns True.
        """
        async with self._slots_changed:
            await self._slots_changed.wait_for(lambda: is_stopping() or self.in_flight < int(self.slots))
            self.in_flight += 1
        wait = max(self._requests.reserve(1), self._tokens.reserve(tokens))
        if wait > 0 and not is_stopping():
            await self._sleep(wait)
        await self.wait_for_pause(is_stopping)

    async def wait_for_pause(self, is_stopping: Callable[[], bool]) -> None:
        """Waits until the shared pause is over; jitter makes the workers resume one after the other."""
        while (wait := self.paused_until - self.clock()) > 0 and not is_stopping():
            await self._sleep(wait + self._uniform() * min(1.0, 0.1 * wait))

    async def release(self) -> None:
        """Frees a slot."""
        async with self._slots_changed:
            self.in_flight -= 1
            self._slots_changed.notify_all()

    async def wake(self) -> None:
        """Makes all who wait for a slot check again whether the run is stopping."""
        async with self._slots_changed:
            self._slots_changed.notify_all()

    def record_success(self, unused_tokens: int, *, seconds: int | float = 0.0) -> None:
        """Adds slots after an answer, and returns the tokens that were reserved and not used.

        Args:
            unused_tokens: tokens to return.
            seconds: that the answer took. A server that answers one request at a time takes the longer the more are in
                flight, and answers no more of them.
        """
        self._pauses, self._last_success = 0, self.clock()
        if seconds < self._limits.total_s / 4:
            self.slots = min(float(self._limits.in_flight[2]), self.slots + (1 if self._doubling else 1 / self.slots))
        self._tokens.refund(unused_tokens)

    def record_timeout(self, sent_at: float) -> None:
        """Halves the slots after a request that the server had no time for.

        Args:
            sent_at: when the request was sent, on the pacer's clock.
        """
        if sent_at >= self._decreased_at:
            self.slots = max(float(self._limits.in_flight[0]), self.slots / 2)
            self._doubling, self._decreased_at = False, self.clock()
            self.decreases += 1

    def record_refusal(self, sent_at: float, wait: float | None) -> float | None:
        """Pauses all workers after a refusal for too many requests, and halves the slots.

        Args:
            sent_at: when the refused request was sent, on the pacer's clock.
            wait: seconds that the server asked for; None where it named none.

        Returns:
            The seconds to wait where the pause would end later than `max_wait_s` after now or after the last success;
            None otherwise.
        """
        self.refusals += 1
        now = self.clock()
        self._pauses += sent_at >= self._decreased_at
        self.record_timeout(sent_at)
        if wait is None:
            wait = self.backoff(self._pauses)
        self.paused_until = max(self.paused_until, now + wait)
        max_wait = self._limits.max_wait_s
        return wait if wait > max_wait or now + wait - self._last_success > max_wait else None

    def backoff(self, failures: int) -> float:
        """Returns the seconds before the next attempt: they double up to a minute, with jitter, and are never zero."""
        longest = min(60.0, self._limits.backoff_s * 2 ** min(failures - 1, 20))
        return longest * (0.5 + 0.5 * self._uniform())


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Reads from the headers of an HTTP answer how long to wait.

    Args:
        headers: name in lower case → text.
        now: seconds since the epoch, for dates.

    Returns:
        Seconds, from `retry-after-ms`, `retry-after` (seconds or a date), or the longest `x-ratelimit-reset-…` of a
        limit that is used up, and a year at most; None where no header holds a positive finite number.
    """
    wait = _longest_wait(headers, now)
    return None if wait is None else min(wait, _LONGEST_WAIT)


def _longest_wait(headers: Mapping[str, str], now: float) -> float | None:
    """Reads the same from the first header that holds a wait, without a bound."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "")
        seconds = _number(text)
        if seconds is not None:
            return seconds * unit
        if name == "retry-after" and (date := _date(text)) is not None and date > now:
            return date - now
    waits = []
    for limit in ("requests", "tokens"):
        if headers.get(f"x-ratelimit-remaining-{limit}", "0").strip() in ("0", ""):
            waits.append(_duration(headers.get(f"x-ratelimit-reset-{limit}", "")))
    return max((wait for wait in waits if wait), default=None)


def _number(text: str) -> float | None:
    """Reads a positive finite number; returns None for any other text."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _date(text: str) -> float | None:
    """Reads a date as seconds since the epoch; returns None for any other text."""
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _duration(text: str) -> float | None:
    """Reads seconds from "12ms", "6s", "1m30s" or a bare number; returns None for any other text."""
    parts = _DURATION_PART.findall(text.strip())
    if parts and "".join(number + unit for number, unit in parts) == text.strip():
        return math.fsum(float(number) * _SECONDS[unit] for number, unit in parts)
    return _number(text)
