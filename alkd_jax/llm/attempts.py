"""One request after the other: its place, the budget, "sent" on disk, the answer, its cost on disk.

What dies in between counts as possible cost at its worst. So confirmed + possible + reserved cost never exceeds the
cap, as long as the server keeps to the bound of its answers, and all ends when it does not.
"""

import asyncio
import collections
import concurrent.futures
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from alkd_jax.llm import pricing
from alkd_jax.llm.client import Client
from alkd_jax.llm.endpoint import Connection, Reply
from alkd_jax.llm.ledger import Ledger
from alkd_jax.llm.rate_limits import Pacer
from alkd_jax.llm.usage import UsageReport

_T = TypeVar("_T")
_HEALTH = 50


class Attempts:
    """The requests of one collection, within its limits and its budget.

    Attributes:
        account: told what is sent and what comes back.
        pacer: admits requests.
        stopping: set where nothing new is to be sent; `account.stopped` says why.
        models: that answered, by their own account.
    """

    def __init__(self, client: Client, account: UsageReport):
        self.client, self.store, self.account = client, client.store, account
        self.stopping = asyncio.Event()
        self.pacer = Pacer(client.limits, sleep=self.sleep)
        self.models: collections.Counter[str] = collections.Counter()
        self._settled, self._turn = asyncio.Condition(), asyncio.Lock()
        self._booking = Ledger()
        self._health: collections.deque[bool] = collections.deque(maxlen=_HEALTH)
        self._threads = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="alkd-store")

    async def make(self, connection: Connection, request: Mapping[str, Any]) -> tuple[Reply | None, int]:
        """One request, from its place in the queue to its line in the ledger."""
        pico, tokens = self.client.worst(request)
        await self.pacer.enter(tokens, self.stopping.is_set)
        try:
            if not await self._reserve(pico, tokens):
                return None, 0
            try:
                attempt = await self.disk(lambda: self.store.begin(request, reserved=pico, tokens=tokens))
            finally:
                self._unbook(pico, tokens)
            await self.pacer.wait_for_pause(self.stopping.is_set)
            if self.stopping.is_set():
                await self.disk(lambda: self.store.mark_unbilled(attempt, error="not sent", http_status=None))
                return None, 0
            async with self._turn:
                # One begins to send in each round of the loop: many together would hold up all others.
                await asyncio.sleep(0)
            self.account.requests += 1
            sent_at = self.pacer.clock()
            reply = await connection.send(request["body"])
            await self._book(reply, attempt, request, sent_at)
            return reply, attempt
        finally:
            await self.pacer.leave()
            async with self._settled:
                self._settled.notify_all()

    async def _reserve(self, pico: int, tokens: int) -> bool:
        """Waits until the worst case fits under the caps; False where it cannot, or the run stops."""
        async with self._settled:
            while not self.stopping.is_set():
                ledger, booking = self.store.ledger, self._booking
                if self.client.budget.allows(
                    ledger.committed + booking.reserved + pico,
                    ledger.tokens + booking.tokens + tokens,
                    ledger.requests + booking.requests + 1,
                ):
                    booking.reserved, booking.tokens = booking.reserved + pico, booking.tokens + tokens
                    booking.requests += 1
                    return True
                if not ledger.open and not booking.requests:
                    break
                await self._settled.wait()
        ledger = self.store.ledger
        await self.stop(
            f"budget exhausted: {pricing.dollars(ledger.committed)}, {ledger.tokens:,} tokens and {ledger.requests} "
            "requests are spent or may be, and the next request could pass the cap"
        )
        return False

    def _unbook(self, pico: int, tokens: int) -> None:
        self._booking.reserved, self._booking.tokens = self._booking.reserved - pico, self._booking.tokens - tokens
        self._booking.requests -= 1

    async def _book(self, reply: Reply, attempt: int, request: Mapping[str, Any], sent_at: float) -> None:
        """Writes down what became of an attempt, and draws what follows for the others."""
        if reply.outcome == "answer":
            await self._book_answer(reply, attempt, request)
        elif reply.outcome == "maybe":
            await self.disk(
                lambda: self.store.mark_possibly_billed(attempt, error=reply.error, http_status=reply.http_status)
            )
        else:
            await self.disk(lambda: self.store.mark_unbilled(attempt, error=reply.error, http_status=reply.http_status))
        if reply.outcome == "limited":
            too_long = self.pacer.refused(sent_at, reply.wait)
            if too_long is not None:
                again = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() + too_long))
                await self.stop(f"the server asks to wait until {again}; go on then ({reply.error})")
        elif reply.outcome == "run":
            await self.stop(reply.error)
        else:
            self._health.append(reply.outcome == "answer")
            if len(self._health) == _HEALTH and sum(self._health) < _HEALTH / 2:
                await self.stop(f"more than half of the last {_HEALTH} requests failed; the last: {reply.error}")

    async def _book_answer(self, reply: Reply, attempt: int, request: Mapping[str, Any]) -> None:
        answer = reply.answer
        assert answer is not None
        cost, tokens, basis = self.client.cost(reply, request)
        worst, bound = self.client.worst(request)
        await self.disk(lambda: self.store.record_answer(attempt, answer, cost=cost, tokens=tokens, basis=basis))
        self.pacer.succeeded(bound - tokens)
        self.models[f"{answer.model} {answer.fingerprint or ''}".strip()] += 1
        if answer.usage is not None:
            self.account.prompt_tokens += answer.usage.prompt
            self.account.cached_tokens += answer.usage.cached
            self.account.completion_tokens += answer.usage.completion
        if answer.tier not in (None, "default", "auto", "standard"):
            self.warn(f"answered in service tier {answer.tier}, priced by it")
        if cost > worst or tokens > bound:
            await self.stop(
                f"an answer took {tokens} tokens and {pricing.dollars(cost)} where at most {bound} and "
                f"{pricing.dollars(worst)} were possible: the server does not keep to "
                f"{self.client.endpoint.max_tokens_field}, so no cap can be promised"
            )

    async def stop(self, why: str) -> None:
        """Sends nothing new from here on."""
        if not self.stopping.is_set():
            self.account.stopped = why
            self.stopping.set()
            await self.pacer.wake()
            self._tell_settled()

    def _tell_settled(self) -> None:
        async def tell() -> None:
            async with self._settled:
                self._settled.notify_all()

        self.telling = asyncio.ensure_future(tell())

    async def sleep(self, seconds: int | float) -> None:
        """Sleeps, but not beyond the end of the run."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)

    async def disk(self, work: Callable[..., _T], *values: Any) -> _T:
        """Does something with the store in its own thread, to its end even when this task is cancelled."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._threads, work, *values))

    def warn(self, text: str) -> None:
        """Adds what a reader of the results should know, once."""
        if text not in self.account.warnings:
            self.account.warnings.append(text)

    def close(self) -> None:
        """Waits for the disk, and books what is still on its way as lost."""
        self._threads.shutdown()
        self.store.hold_lost()
