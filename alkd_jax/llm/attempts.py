"""Every attempt waits for a slot, reserves its largest cost, is recorded as sent, and then has its answer recorded.

An attempt that is lost between these steps counts as possible cost at its upper bound. Therefore confirmed + possible +
reserved cost never exceeds the cap as long as the server respects the bound of its answers; the run ends if it does
not.
"""

import asyncio
import collections
import concurrent.futures
import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from alkd_jax.llm import pricing
from alkd_jax.llm.client import Client
from alkd_jax.llm.connection import Connection
from alkd_jax.llm.database import StoreError
from alkd_jax.llm.ledger import Ledger
from alkd_jax.llm.rate_limits import Pacer
from alkd_jax.llm.refusals import Reply
from alkd_jax.llm.usage import UsageReport

_T = TypeVar("_T")
_RECENT = 50
_RESERVED_BYTES = 16_384
"""Space that is reserved on the disk for every answer in flight; answers of 25 labels take less than a tenth."""
_IN_A_ROW = 5
"""Questions that the server may refuse one after the other, with a status that could be the run's, before it ends."""
_MIN_TOKENS_PER_BYTE = 1 / 9
"""Prompt tokens per byte of text below which a server has cut the prompt; titles take 0.32 to 0.395."""


class Attempts:
    """The requests of one collection, within its limits and its budget.

    Attributes:
        usage: updated with every request and answer.
        pacer: admits requests.
        stopping: set once nothing new may be sent; `usage.stopped` is the reason.
        models: name of a model that answered → number of answers.
    """

    def __init__(self, client: Client, usage: UsageReport, *, bytes_of_answer: int = _RESERVED_BYTES):
        self.client, self.store, self.usage = client, client.store, usage
        self.stopping = asyncio.Event()
        self.pacer = Pacer(client.limits, sleep=self.sleep)
        self._reserved_bytes = client.limits.in_flight[2] * bytes_of_answer
        self.models: collections.Counter[str] = collections.Counter()
        self._ledger_changed, self._sending = asyncio.Condition(), asyncio.Lock()
        # Reserved in memory for attempts that the store is about to record.
        self._pending = Ledger()
        self._recent: collections.deque[bool] = collections.deque(maxlen=_RECENT)
        self._answered, self._refused_in_a_row = False, 0
        self._store_thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="alkd-store")

    async def open(self) -> None:
        """Brings the store up to date, and reserves space on the disk for the answers in flight.

        Raises:
            StoreError: the store cannot be written.
            OSError: the disk is full.
        """
        # The lock makes this process the only owner of the store, and it has sent nothing yet.
        await self.in_store_thread(self.store.mark_lost_attempts)
        await self.in_store_thread(self.store.reserve.allocate, self._reserved_bytes)

    async def send(self, connection: Connection, request: Mapping[str, Any]) -> tuple[Reply | None, int]:
        """Sends one request within limits and budget, and records its outcome.

        Returns:
            The reply and the id of the attempt; None and 0 where the run stopped before the request was sent.
        """
        cost, tokens = self.client.max_cost(request)
        await self.pacer.acquire(tokens, self.stopping.is_set)
        try:
            if not await self._reserve(cost, tokens):
                return None, 0
            try:
                attempt = await self.in_store_thread(
                    lambda: self.store.begin_attempt(request, cost=cost, tokens=tokens)
                )
            finally:
                self._add_pending(-cost, -tokens, -1)
            await self.pacer.wait_for_pause(self.stopping.is_set)
            if self.stopping.is_set():
                await self.in_store_thread(
                    lambda: self.store.mark_unbilled(attempt, error="not sent", http_status=None)
                )
                return None, 0
            async with self._sending:
                # Only one worker starts to send per iteration of the event loop; many together would block it.
                await asyncio.sleep(0)
            self.usage.requests += 1
            sent_at = self.pacer.clock()
            reply = self._of_the_question(await connection.send(request["body"]))
            await self._record(reply, attempt, request, sent_at)
            return reply, attempt
        finally:
            await self.pacer.release()
            await self._notify_ledger_changed()

    async def _reserve(self, cost: int, tokens: int) -> bool:
        """Waits until a request fits under the caps at its highest cost; returns False where it never will."""
        async with self._ledger_changed:
            while not self.stopping.is_set():
                ledger, pending = self.store.ledger, self._pending
                if self.client.budget.allows(
                    ledger.committed + pending.reserved + cost,
                    ledger.tokens + pending.tokens + tokens,
                    ledger.requests + pending.requests + 1,
                ):
                    self._add_pending(cost, tokens, 1)
                    return True
                if not ledger.open and not pending.requests:
                    break
                await self._ledger_changed.wait()
        ledger = self.store.ledger
        await self.stop(
            f"budget exhausted: {pricing.dollars(ledger.committed)}, {ledger.tokens:,} tokens and {ledger.requests} "
            "requests are spent or may be, and the next request could pass the cap"
        )
        return False

    def _add_pending(self, cost: int, tokens: int, requests: int) -> None:
        self._pending.reserved += cost
        self._pending.tokens += tokens
        self._pending.requests += requests

    def _of_the_question(self, reply: Reply) -> Reply:
        """Returns a refusal that only its status calls the run's as the question's, where others were answered."""
        if reply.outcome == "answer":
            self._answered, self._refused_in_a_row = True, 0
        if reply.outcome == "fatal" and not reply.is_certain and self._answered:
            self._refused_in_a_row += 1
            if self._refused_in_a_row < _IN_A_ROW:
                return dataclasses.replace(reply, outcome="bad_request")
        return reply

    async def _record(self, reply: Reply, attempt: int, request: Mapping[str, Any], sent_at: float) -> None:
        """Records the outcome of an attempt, then pauses or stops the run where the outcome requires it."""
        if reply.outcome == "answer":
            await self._record_answer(reply, attempt, request, self.pacer.clock() - sent_at)
        else:
            is_charged = reply.outcome == "possibly_billed" or reply.is_charged
            mark = self.store.mark_possibly_billed if is_charged else self.store.mark_unbilled
            await self.in_store_thread(lambda: mark(attempt, error=reply.error, http_status=reply.http_status))
        if reply.is_timeout and reply.outcome != "rate_limited":
            self.pacer.record_timeout(sent_at)
        if reply.outcome == "rate_limited":
            wait = self.pacer.record_refusal(sent_at, reply.wait)
            if wait is not None:
                until = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() + wait))
                await self.stop(f"the server asks to wait until {until}; continue then ({reply.error})")
        elif reply.outcome == "fatal":
            await self.stop(reply.error)
        elif reply.outcome == "refused_field":
            await self._adapt(reply, request)
        else:
            self._recent.append(reply.outcome == "answer")
            if len(self._recent) == _RECENT and sum(self._recent) < _RECENT / 2:
                await self.stop(f"more than half of the last {_RECENT} requests failed; the last: {reply.error}")

    async def _adapt(self, reply: Reply, request: Mapping[str, Any]) -> None:
        """Leaves out or replaces a field that the server refuses, or stops the run where that is not possible."""
        instead = await self.in_store_thread(self.client.adapt, str(reply.field), request["body"])
        if instead is None:
            await self.stop(reply.error)
        elif instead:
            self.warn(f"the server refuses {reply.field}: {instead} ({reply.error})")

    async def _record_answer(self, reply: Reply, attempt: int, request: Mapping[str, Any], seconds: float) -> None:
        """Records an answer with its cost, and stops the run where the answer exceeds its bounds."""
        answer, endpoint = reply.answer, self.client.endpoint
        assert answer is not None
        self.client.note_tier(answer.tier)
        cost, tokens, basis = self.client.cost(answer, request)
        max_cost, max_tokens = self.client.max_cost(request)
        await self.in_store_thread(
            lambda: self.store.record_answer(attempt, answer, cost=cost, tokens=tokens, basis=basis)
        )
        self.pacer.record_success(max_tokens - tokens, seconds=seconds)
        self.models[f"{answer.model} {answer.fingerprint or ''}".strip()] += 1
        if answer.usage is not None:
            self.usage.prompt_tokens += answer.usage.prompt
            self.usage.cached_tokens += answer.usage.cached
            self.usage.completion_tokens += answer.usage.completion
            self._check_context(answer.usage.prompt, request)
        if answer.tier not in pricing.STANDARD_TIERS:
            self.warn(f"the server answered in service tier {answer.tier}, whose price was used")
        if cost > max_cost or tokens > max_tokens:
            await self.stop(
                f"an answer took {tokens} tokens and {pricing.dollars(cost)}; expected at most {max_tokens} and "
                f"{pricing.dollars(max_cost)}: the server does not respect "
                f"{endpoint.max_tokens_field} or charges more than the price says, so no cap can be guaranteed; a "
                "model that reasons needs a higher bound"
            )

    def _check_context(self, prompt_tokens: int, request: Mapping[str, Any]) -> None:
        """Warns where the server has read only a part of the prompt."""
        num_bytes = sum(len(str(message["content"]).encode()) for message in request["body"].get("messages", ()))
        if prompt_tokens < _MIN_TOKENS_PER_BYTE * num_bytes:
            self.warn(
                f"the server counted {prompt_tokens} tokens in a prompt of {num_bytes:,} bytes: it probably cuts "
                "prompts to its context; give it a longer one (Ollama: num_ctx or OLLAMA_CONTEXT_LENGTH, llama.cpp: -c)"
            )

    async def stop(self, reason: str) -> None:
        """Ends the run: nothing new is sent, and requests in flight are awaited."""
        if not self.stopping.is_set():
            self.usage.stopped = reason
            self.stopping.set()
            await self.pacer.wake()
            # In a task of its own, because the caller may hold the condition's lock.
            self.notifying = asyncio.ensure_future(self._notify_ledger_changed())

    async def _notify_ledger_changed(self) -> None:
        async with self._ledger_changed:
            self._ledger_changed.notify_all()

    async def sleep(self, seconds: int | float) -> None:
        """Sleeps, but not longer than the run lasts."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)

    async def in_store_thread(self, work: Callable[..., _T], *values: Any) -> _T:
        """Calls a function in the thread of the store; it runs to its end even where this task is cancelled."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._store_thread, work, *values))

    def warn(self, text: str) -> None:
        """Adds a warning to the usage report, once."""
        if text not in self.usage.warnings:
            self.usage.warnings.append(text)

    def close(self) -> None:
        """Waits for the thread of the store, and marks attempts that are still in flight as possibly billed.

        Where the store cannot be written, the next process that opens it does so.
        """
        self._store_thread.shutdown()
        with contextlib.suppress(StoreError):
            self.store.mark_lost_attempts()
