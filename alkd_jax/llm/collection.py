"""Asks many questions within limits and a budget, and never buys an answer that is on disk."""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import functools
import gc
import json
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from alkd_jax.llm.attempts import Attempts
from alkd_jax.llm.client import Client, is_final
from alkd_jax.llm.endpoint import Connection
from alkd_jax.llm.ledger import Ledger
from alkd_jax.llm.parsing import Reading
from alkd_jax.llm.prompts import Question
from alkd_jax.llm.store import AnswerRecord
from alkd_jax.llm.usage import UsageReport

_T = TypeVar("_T")
_plain = functools.lru_cache(json.loads)


async def collect(
    client: Client,
    questions: Iterable[Question],
    *,
    pilot: int = 16,
    on_progress: Callable[..., None] | None = None,
    after_pilot: Callable[..., str | None] | None = None,
) -> UsageReport:
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


def collect_sync(client: Client, questions: Iterable[Question], **options: Any) -> UsageReport:
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
        self.account, self.known, self.handed_over = UsageReport(), client.store.answered(), client.store.waiting()
        self.wordings, self.worded = client.store.wordings(), dict[bytes, str]()
        self.attempts = Attempts(client, self.account)
        self.in_progress: dict[str, asyncio.Event] = {}
        self.shown_at = 0.0
        self.new = 0
        self.aborted = False

    async def run(
        self, questions: Iterable[Question], pilot: int, after_pilot: Callable[..., str | None] | None
    ) -> UsageReport:
        began, before = time.monotonic(), dataclasses.replace(self.store.ledger)
        rows = iter(questions)
        # The lock makes this process the only owner, and nothing of its own is on its way yet.
        await self.attempts.disk(self.store.hold_lost)
        try:
            with self._signals():
                # The garbage collector would go through all objects of the process, and hold up the loop meanwhile.
                gc.freeze()
                opened = await asyncio.to_thread(Connection, self.client.endpoint, self.client.limits)
                async with opened as connection:
                    gc.freeze()
                    first = self._until_new(rows, pilot) if pilot else iter(())
                    await self._work(connection, first)
                    if pilot and self.new and not self.attempts.stopping.is_set():
                        await self._judge_pilot(after_pilot)
                    await self._work(connection, rows)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self.aborted or task is None:
                raise
            task.uncancel()
        finally:
            gc.unfreeze()
            self.attempts.close()
            with contextlib.suppress(sqlite3.Error):
                self.store.keep_wordings(self.worded)
            self._close_account(began, before)
        for question in rows:
            self._not_reached(question)
        return self.account

    def _not_reached(self, question: Question) -> None:
        """Counts a row that no worker took before the run stopped."""
        self.account.asked += 1
        found = self.known.get(self.client.look_up(question, self.wordings)[0])
        if found is not None and found.status is not None:
            self.account.cached += 1
            self._count(question, found.status, found.usable, _plain(found.repairs))
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
            await self.attempts.stop(f"pilot: only {account.valid_rate:.0%} of {account.done} answers are usable")
        elif not account.done and account.failed:
            await self.attempts.stop(f"pilot: no question was answered; {next(iter(account.failed.values()))}")
        elif after_pilot and (why := after_pilot(account)):
            await self.attempts.stop(why)

    async def _work(self, connection: Connection, rows: Iterator[Question]) -> None:
        """Lets workers take rows until there are none, or the run stops."""

        async def worker() -> None:
            while not self.attempts.stopping.is_set():
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
        key, request = self.client.look_up(question, self.wordings)
        while key in self.in_progress:
            await self.in_progress[key].wait()
        found = self.known.get(key)
        if found is not None and is_final(found):
            self.account.cached += 1
            if request is not None:
                self.worded[request["mark"]] = key
            if found.status is None:
                reading = await self.attempts.disk(self.client.read, question, found.attempt)
                self._count(question, reading.status, reading.usable, reading.repairs)
            else:
                self._count(question, found.status, found.usable, _plain(found.repairs))
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
            asked = await self._ask(connection, question, request or self.client.endpoint.request(question))
        except sqlite3.Error as error:
            await self.attempts.stop(f"the store cannot be written: {error}")
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
            reply, attempt = await self.attempts.make(connection, request)
            if reply is None:
                return None
            if reply.outcome == "answer":
                reading = await self.attempts.disk(self.client.read, question, attempt)
                before = self.known.get(request["key"])
                repairs, times = json.dumps(dict(reading.repairs)), before.answers + 1 if before else 1
                found = AnswerRecord(attempt, reading.status, reading.usable, repairs, times)
                self.known[request["key"]] = found
                if is_final(found) or self.attempts.stopping.is_set():
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
                await self.attempts.sleep(self.attempts.pacer.backoff(failures + maybe_billed))

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Within: Ctrl-C or SIGTERM stops sending, and a second one gives up what is on its way."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if threading.current_thread() is not threading.main_thread() or task is None:
            yield
            return

        def interrupted() -> None:
            if self.attempts.stopping.is_set():
                self.aborted = True
                task.cancel()
            else:
                self.interrupting = asyncio.ensure_future(self.attempts.stop("interrupted"))

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

    def _close_account(self, began: float, before: Ledger) -> None:
        account, ledger = self.account, self.store.ledger
        account.seconds, account.refusals = time.monotonic() - began, self.attempts.pacer.refusals
        priced = self.client.price is not None
        account.cost = ledger.confirmed - before.confirmed if priced else None
        account.possible = ledger.possible - before.possible if priced else None
        if len(self.attempts.models) > 1:
            self.attempts.warn(f"more than one model answered: {dict(self.attempts.models)}")
        asked = self.client.endpoint.model
        if any(name.split(" ")[0] != asked for name in self.attempts.models):
            self.attempts.warn(f"asked {asked}, answered by {', '.join(sorted(self.attempts.models))}")
        if self.on_progress:
            self.on_progress(account, ledger)

    async def _show(self) -> None:
        if self.on_progress and time.monotonic() - self.shown_at > 0.5:
            self.shown_at = time.monotonic()
            self.on_progress(self.account, self.store.ledger)
