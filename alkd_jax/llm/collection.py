"""Asks many questions within limits and a budget, and never buys an answer that is on disk.

Life of an attempt: a place among those in flight, the rates, the budget; then "sent" and its worst cost are written
down; then it is sent; then the answer and its true cost are written down; then it is read. What dies in between counts
as possible cost at its worst. So confirmed + possible + reserved cost never exceeds the cap, as long as the server
keeps to the bound of its answers, and a run ends when it does not.
"""

import asyncio
import collections
import concurrent.futures
import contextlib
import dataclasses
import json
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from alkd_jax.llm import pricing
from alkd_jax.llm.account import Account
from alkd_jax.llm.client import Client, is_final
from alkd_jax.llm.endpoint import Connection, Reply
from alkd_jax.llm.ledger import Ledger
from alkd_jax.llm.limits import Pacer
from alkd_jax.llm.parsing import Reading
from alkd_jax.llm.prompts import Question
from alkd_jax.llm.store import Known

_T = TypeVar("_T")
_HEALTH = 50


async def collect(
    client: Client,
    questions: Iterable[Question],
    *,
    pilot: int = 16,
    on_progress: Callable[..., None] | None = None,
    after_pilot: Callable[..., str | None] | None = None,
) -> Account:
    """Asks what is not answered yet.

    Args:
        client: whom to ask, and on what terms.
        questions: read one by one, so that a generator keeps memory flat where there are many.
        pilot: this many new ones are asked first; the run ends there when too few answers are usable.
        on_progress: told the account and the store's ledger, at most twice a second and at the end.
        after_pilot: told the account; returns why to end there, or None to go on.

    Returns:
        The account; a part of the answers is a normal result. Ctrl-C once: nothing new is sent, what is on its way
        comes in. Twice: what is on its way is given up and counts as possible cost.
    """
    return await _Collection(client, on_progress).run(questions, pilot, after_pilot)


def collect_sync(client: Client, questions: Iterable[Question], **options: Any) -> Account:
    """As `collect`, where no event loop is wanted, or one runs already."""
    return run_sync(collect(client, questions, **options))


def run_sync(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Runs a coroutine to its end, in a thread of its own where this one's loop is running, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


class _Collection:
    """One call of `collect`."""

    def __init__(self, client: Client, on_progress: Callable[..., None] | None):
        self.client, self.store, self.on_progress = client, client.store, on_progress
        self.account, self.known, self.handed_over = Account(), client.store.answered(), client.store.waiting()
        self.disk = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="alkd-store")
        self.stopping = asyncio.Event()
        self.settled = asyncio.Condition()
        self.pacer = Pacer(client.limits, sleep=self._sleep)
        self.booking = Ledger()
        self.in_progress: dict[str, asyncio.Event] = {}
        self.health: collections.deque[bool] = collections.deque(maxlen=_HEALTH)
        self.models: collections.Counter[str] = collections.Counter()
        self.shown_at = 0.0
        self.new = 0
        self.aborted = False

    async def run(
        self, questions: Iterable[Question], pilot: int, after_pilot: Callable[..., str | None] | None
    ) -> Account:
        began, before = time.monotonic(), dataclasses.replace(self.store.ledger)
        rows = iter(questions)
        # The lock makes this process the only owner, and nothing of its own is on its way yet.
        await self._disk(self.store.hold_lost)
        try:
            with self._signals():
                async with Connection(self.client.endpoint, self.client.limits) as connection:
                    first = self._until_new(rows, pilot) if pilot else iter(())
                    await self._work(connection, first)
                    if pilot and self.new and not self.stopping.is_set():
                        await self._judge_pilot(after_pilot)
                    await self._work(connection, rows)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self.aborted or task is None:
                raise
            task.uncancel()
        finally:
            self.disk.shutdown()
            self.store.hold_lost()
            self._close_account(began, before)
        for question in rows:
            self._not_reached(question)
        return self.account

    def _not_reached(self, question: Question) -> None:
        """Counts a row that no worker took before the run stopped."""
        self.account.asked += 1
        found = self.known.get(self.client.endpoint.request(question)["key"])
        if found is not None and found.status is not None:
            self.account.cached += 1
            self._count(question, found.status, found.usable, json.loads(found.repairs))
        else:
            self.account.missing.append(question.session_id)

    def _until_new(self, rows: Iterator[Question], pilot: int) -> Iterator[Question]:
        """Yields rows until so many new ones were begun."""
        while self.new < pilot:
            row = next(rows, None)
            if row is None:
                return
            yield row

    async def _judge_pilot(self, after_pilot: Callable[..., str | None] | None) -> None:
        account = self.account
        if account.done + len(account.failed) and account.valid_rate < self.client.min_valid_rate:
            await self._stop(f"pilot: only {account.valid_rate:.0%} of {account.done} answers are usable")
        elif not account.done and account.failed:
            await self._stop(f"pilot: no question was answered; {next(iter(account.failed.values()))}")
        elif after_pilot and (why := after_pilot(account)):
            await self._stop(why)

    async def _work(self, connection: Connection, rows: Iterator[Question]) -> None:
        """Lets workers take rows until there are none, or the run stops."""

        async def worker() -> None:
            while not self.stopping.is_set():
                question = next(rows, None)
                if question is None:
                    return
                self.account.asked += 1
                await self._row(connection, question)
                await self._show()

        async with asyncio.TaskGroup() as group:
            for _ in range(self.client.limits.in_flight[2]):
                group.create_task(worker())

    async def _row(self, connection: Connection, question: Question) -> None:
        request = self.client.endpoint.request(question)
        key = request["key"]
        while key in self.in_progress:
            await self.in_progress[key].wait()
        found = self.known.get(key)
        if found is not None and is_final(found):
            self.account.cached += 1
            if found.status is None:
                reading = await self._disk(self.client.read, question, found.attempt)
                self._count(question, reading.status, reading.usable, reading.repairs)
            else:
                self._count(question, found.status, found.usable, json.loads(found.repairs))
            if self.account.cached % 64 == 0:
                await asyncio.sleep(0)
            return
        if key in self.handed_over:
            self.account.missing.append(question.session_id)
            self.account.failed[question.session_id] = "handed to a batch that is not back"
            return
        self.new += 1
        self.in_progress[key] = asyncio.Event()
        try:
            asked = await self._ask(connection, question, request)
        except sqlite3.Error as error:
            await self._stop(f"the store cannot be written: {error}")
            asked = None
        finally:
            self.in_progress.pop(key).set()
        if asked is not None:
            self._count(question, asked.status, asked.usable, asked.repairs)
        else:
            self.account.missing.append(question.session_id)

    def _count(self, question: Question, status: str, usable: bool, repairs: Mapping[str, int]) -> None:
        """Books the reading that counts."""
        self.account.statuses[status if usable or status in ("refused", "invalid") else "unusable"] += 1
        self.account.repairs.update(set(repairs))
        if not usable:
            self.account.missing.append(question.session_id)

    async def _ask(self, connection: Connection, question: Question, request: Mapping[str, Any]) -> Reading | None:
        """Asks until there is an answer that counts, the question has failed, or the run stops."""
        failures = maybe_billed = 0
        while True:
            reply, attempt = await self._attempt(connection, request)
            if reply is None:
                return None
            if reply.outcome == "answer":
                reading = await self._disk(self.client.read, question, attempt)
                before = self.known.get(request["key"])
                repairs, times = json.dumps(dict(reading.repairs)), before.answers + 1 if before else 1
                found = Known(attempt, reading.status, reading.usable, repairs, times)
                self.known[request["key"]] = found
                if is_final(found) or self.stopping.is_set():
                    return reading
                continue
            failures += reply.outcome == "free"
            maybe_billed += reply.outcome == "maybe"
            limits = self.client.limits
            given_up = failures >= limits.max_attempts or maybe_billed > limits.max_maybe_billed
            if reply.outcome in ("row", "run") or given_up:
                self.account.failed[question.session_id] = reply.error
                return None
            if reply.outcome != "limited":
                await self._sleep(self.pacer.backoff(failures + maybe_billed))

    async def _attempt(self, connection: Connection, request: Mapping[str, Any]) -> tuple[Reply | None, int]:
        """One request, from its place in the queue to its line in the ledger."""
        pico, tokens = self.client.worst(request)
        await self.pacer.enter(tokens, self.stopping.is_set)
        try:
            if not await self._reserve(pico, tokens):
                return None, 0
            try:
                attempt = await self._disk(lambda: self.store.begin(request, reserved=pico, tokens=tokens))
            finally:
                self._unbook(pico, tokens)
            await self.pacer.wait_for_pause(self.stopping.is_set)
            if self.stopping.is_set():
                await self._disk(lambda: self.store.release(attempt, error="not sent", http_status=None))
                return None, 0
            self.account.requests += 1
            sent_at = self.pacer.clock()
            reply = await connection.send(request["body"])
            await self._book(reply, attempt, request, sent_at)
            return reply, attempt
        finally:
            await self.pacer.leave()
            async with self.settled:
                self.settled.notify_all()

    async def _reserve(self, pico: int, tokens: int) -> bool:
        """Waits until the worst case fits under the caps; False where it cannot, or the run stops."""
        async with self.settled:
            while not self.stopping.is_set():
                ledger, booking = self.store.ledger, self.booking
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
                await self.settled.wait()
        ledger = self.store.ledger
        await self._stop(
            f"budget exhausted: {pricing.dollars(ledger.committed)}, {ledger.tokens:,} tokens and {ledger.requests} "
            "requests are spent or may be, and the next request could pass the cap"
        )
        return False

    def _unbook(self, pico: int, tokens: int) -> None:
        self.booking.reserved, self.booking.tokens = self.booking.reserved - pico, self.booking.tokens - tokens
        self.booking.requests -= 1

    async def _book(self, reply: Reply, attempt: int, request: Mapping[str, Any], sent_at: float) -> None:
        """Writes down what became of an attempt, and draws what follows for the others."""
        if reply.outcome == "answer":
            await self._book_answer(reply, attempt, request)
        elif reply.outcome == "maybe":
            await self._disk(lambda: self.store.hold(attempt, error=reply.error, http_status=reply.http_status))
        else:
            await self._disk(lambda: self.store.release(attempt, error=reply.error, http_status=reply.http_status))
        if reply.outcome == "limited":
            too_long = self.pacer.refused(sent_at, reply.wait)
            if too_long is not None:
                again = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() + too_long))
                await self._stop(f"the server asks to wait until {again}; go on then ({reply.error})")
        elif reply.outcome == "run":
            await self._stop(reply.error)
        else:
            self.health.append(reply.outcome == "answer")
            if len(self.health) == _HEALTH and sum(self.health) < _HEALTH / 2:
                await self._stop(f"more than half of the last {_HEALTH} requests failed; the last: {reply.error}")

    async def _book_answer(self, reply: Reply, attempt: int, request: Mapping[str, Any]) -> None:
        answer = reply.answer
        assert answer is not None
        cost, tokens, basis = self.client.cost(reply, request)
        worst, bound = self.client.worst(request)
        await self._disk(lambda: self.store.settle(attempt, answer, cost=cost, tokens=tokens, basis=basis))
        self.pacer.succeeded(bound - tokens)
        self.models[f"{answer.model} {answer.fingerprint or ''}".strip()] += 1
        if answer.usage is not None:
            self.account.prompt_tokens += answer.usage.prompt
            self.account.cached_tokens += answer.usage.cached
            self.account.completion_tokens += answer.usage.completion
        if answer.tier not in (None, "default", "auto", "standard"):
            self._warn(f"answered in service tier {answer.tier}, priced by it")
        if cost > worst or tokens > bound:
            await self._stop(
                f"an answer took {tokens} tokens and {pricing.dollars(cost)} where at most {bound} and "
                f"{pricing.dollars(worst)} were possible: the server does not keep to "
                f"{self.client.endpoint.max_tokens_field}, so no cap can be promised"
            )

    async def _stop(self, why: str) -> None:
        if not self.stopping.is_set():
            self.account.stopped = why
            self.stopping.set()
            await self.pacer.wake()
            self._tell_settled()

    def _tell_settled(self) -> None:
        async def tell() -> None:
            async with self.settled:
                self.settled.notify_all()

        self.telling = asyncio.ensure_future(tell())

    async def _sleep(self, seconds: int | float) -> None:
        """Sleeps, but not beyond the end of the run."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)

    async def _disk(self, work: Callable[..., _T], *values: Any) -> _T:
        """Does something with the store in its own thread, to its end even when this task is cancelled."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self.disk, work, *values))

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Within: Ctrl-C or SIGTERM stops sending, and a second one gives up what is on its way."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if threading.current_thread() is not threading.main_thread() or task is None:
            yield
            return

        def interrupted() -> None:
            if self.stopping.is_set():
                self.aborted = True
                task.cancel()
            else:
                self.interrupting = asyncio.ensure_future(self._stop("interrupted"))

        former = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            former[number] = signal.getsignal(number)
            loop.add_signal_handler(number, interrupted)
        try:
            yield
        finally:
            for number, handler in former.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

    def _warn(self, text: str) -> None:
        if text not in self.account.warnings:
            self.account.warnings.append(text)

    def _close_account(self, began: float, before: Ledger) -> None:
        account, ledger = self.account, self.store.ledger
        account.seconds, account.refusals = time.monotonic() - began, self.pacer.refusals
        priced = self.client.price is not None
        account.cost = ledger.confirmed - before.confirmed if priced else None
        account.possible = ledger.possible - before.possible if priced else None
        if len(self.models) > 1:
            self._warn(f"more than one model answered: {dict(self.models)}")
        asked = self.client.endpoint.model
        if any(name.split(" ")[0] != asked for name in self.models):
            self._warn(f"asked {asked}, answered by {', '.join(sorted(self.models))}")
        if self.on_progress:
            self.on_progress(account, ledger)

    async def _show(self) -> None:
        if self.on_progress and time.monotonic() - self.shown_at > 0.5:
            self.shown_at = time.monotonic()
            self.on_progress(self.account, self.store.ledger)
