"""Collects the answers to many questions within limits and a budget; asks only where the store has no usable answer."""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import functools
import gc
import json
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from alkd_jax.llm.answers import AnswerRecord
from alkd_jax.llm.attempts import Attempts
from alkd_jax.llm.calibration import calibrate
from alkd_jax.llm.client import Client
from alkd_jax.llm.connection import Connection
from alkd_jax.llm.database import StoreError
from alkd_jax.llm.ledger import Ledger
from alkd_jax.llm.parsing import ParsedAnswer
from alkd_jax.llm.prompts import Question
from alkd_jax.llm.usage import UsageReport

_T = TypeVar("_T")
_SECONDS_AFTER_SIGTERM = 20
_FIRST = 3
"""Questions that are asked one by one while each fails; where all do, it is not the questions' fault."""
_load_json = functools.lru_cache(json.loads)


async def collect(
    client: Client,
    questions: Iterable[Question],
    *,
    pilot: int = 16,
    on_progress: Callable[[UsageReport, Ledger], None] | None = None,
    after_pilot: Callable[[UsageReport], str | None] | None = None,
) -> UsageReport:
    """Asks the questions whose answers are not in the client's store.

    At the first Ctrl-C nothing new is sent and requests in flight are awaited; at the second these are abandoned and
    count as possibly billed. SIGTERM does the same, and awaits them for 20 seconds at most, because the schedulers of
    clusters kill a process soon afterwards.

    Args:
        client: endpoint, store, price, budget and limits.
        questions: consumed one by one, so that a generator keeps memory constant.
        pilot: number of unanswered questions that are asked first; the run ends there if too few answers are usable.
        on_progress: called with the usage and the store's ledger, at most twice a second and at the end.
        after_pilot: called with the usage after the pilot; returns the reason to end the run, or None to continue.

    Returns:
        The usage; it is a normal result that only a part of the questions is answered.

    Raises:
        StoreError: the store cannot be written, and nothing was sent.
        OSError: the disk has no space for the answers, and nothing was sent.
    """
    return await _Collection(client, on_progress).run(questions, pilot, after_pilot)


def collect_sync(client: Client, questions: Iterable[Question], **options: Any) -> UsageReport:
    """Does the same as :func:`collect` without an event loop, or beside one that is running, as in a notebook."""
    return _run_sync(collect(client, questions, **options))


def _run_sync(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Runs a coroutine to its end, in another thread where this one has a running event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


class _Collection:
    """One call of `collect`.

    Attributes:
        usage: what was done so far.
        index: of the stored answers by question.
        rendered_keys: prompt hash → key of the requests that had to be rendered although the answer was in the store.
        in_progress: key of a request that a worker is sending → event that is set afterwards.
        new: number of questions that were not answered before.
        asked: keys of requests that were sent.
        cut_off: number of answers that ended at their bound.
        aborted: whether a second signal arrived.
    """

    def __init__(self, client: Client, on_progress: Callable[[UsageReport, Ledger], None] | None):
        store = client.store
        self.client, self.store, self.on_progress = client, store, on_progress
        self.usage, self.index, self.rendered_keys = UsageReport(), client.index(), dict[bytes, str]()
        self.attempts = Attempts(client, self.usage)
        self.in_progress: dict[str, asyncio.Event] = {}
        self.progress_at = 0.0
        self.new, self.asked = 0, set[str]()
        self.cut_off = 0
        self.aborted = False

    async def run(
        self,
        questions: Iterable[Question],
        pilot: int,
        after_pilot: Callable[[UsageReport], str | None] | None,
    ) -> UsageReport:
        """Asks the pilot and then the rest; see `collect`."""
        started, ledger_before = time.monotonic(), dataclasses.replace(self.store.ledger)
        remaining = iter(questions)
        try:
            await self.attempts.open()
            with self._signals():
                # The garbage collector would visit all objects of the process and block the event loop meanwhile.
                gc.freeze()
                opened = await asyncio.to_thread(Connection, self.client.endpoint, self.client.limits)
                async with opened as connection:
                    gc.freeze()
                    await self._ask_first(connection, remaining)
                    if pilot and not self.attempts.stopping.is_set():
                        await self._run_workers(connection, self._take_new(remaining, pilot))
                        if self.new and not self.attempts.stopping.is_set():
                            await self._check_pilot(after_pilot)
                    await self._run_workers(connection, remaining)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self.aborted or task is None:
                raise
            task.uncancel()
        finally:
            gc.unfreeze()
            self.attempts.close()
            with contextlib.suppress(StoreError):
                self.store.save_request_keys(self.rendered_keys)
            self._complete_usage(started, ledger_before)
        for question in remaining:
            self._count_unreached(question)
        return self.usage

    def _count_unreached(self, question: Question) -> None:
        """Counts a question that no worker took before the run stopped."""
        self.usage.asked += 1
        record = self.index.find(question).record
        if record is not None and record.status is not None:
            self.usage.cached += 1
            self._count(question, record.status, record.usable, _load_json(record.repairs))
        else:
            self.usage.missing.append(question.session_id)

    def _take_new(self, questions: Iterator[Question], num_new: int) -> Iterator[Question]:
        """Yields questions until that many of them were found to be unanswered."""
        while self.new < num_new:
            question = next(questions, None)
            if question is None:
                return
            yield question

    async def _ask_first(self, connection: Connection, questions: Iterator[Question]) -> None:
        """Asks one question alone where the model has not answered yet, so that what it refuses is met only once."""
        endpoint, usage = self.client.endpoint, self.usage
        if calibrate(self.store, endpoint.normalized_url, endpoint.model).answers:
            return
        for number in range(1, _FIRST + 1):
            await self._run_workers(connection, self._take_new(questions, number))
            if self.attempts.stopping.is_set() or self.new < number or not usage.failed:
                return
            if len(usage.failed) < self.new:
                # One was answered after another had failed.
                return
        reason = next(reversed(usage.failed.values()))
        await self.attempts.stop(f"none of the first {self.new} questions was answered: {reason}")

    async def _check_pilot(self, after_pilot: Callable[[UsageReport], str | None] | None) -> None:
        """Stops the run where the answers of the pilot are not good enough to continue."""
        usage = self.usage
        if usage.done + len(usage.failed) and usage.valid_rate < self.client.min_valid_rate:
            await self.attempts.stop(f"pilot: only {usage.valid_rate:.0%} of {usage.done} answers are usable")
        elif not usage.done and usage.failed:
            await self.attempts.stop(f"pilot: no question was answered; {next(iter(usage.failed.values()))}")
        elif after_pilot and (reason := after_pilot(usage)):
            await self.attempts.stop(reason)

    async def _run_workers(self, connection: Connection, questions: Iterator[Question]) -> None:
        """Runs workers that take questions until there are none left or the run stops."""

        async def worker() -> None:
            while not self.attempts.stopping.is_set():
                question = next(questions, None)
                if question is None:
                    return
                self.usage.asked += 1
                try:
                    await self._process(connection, question)
                except StoreError as error:
                    self.usage.missing.append(question.session_id)
                    self.usage.store_failed = True
                    await self.attempts.stop(str(error))
                self._report_progress()

        async with asyncio.TaskGroup() as group:
            for _ in range(self.client.limits.in_flight[2]):
                group.create_task(worker())

    async def _process(self, connection: Connection, question: Question) -> None:
        """Finds the answer to a question in the store, or asks it."""
        while True:
            found = self.index.find(question)
            if found.key in self.in_progress:
                await self.in_progress[found.key].wait()
                continue
            key, record = found.key, found.record
            if record is not None and record.status is None:
                stored = await self.attempts.in_store_thread(self.client.parse, question, record.attempt)
                record = self._keep_record(key, record.attempt, stored)
            if record is not None and record.is_final:
                if found.request is not None:
                    self.rendered_keys[found.request["prompt_hash"]] = key
                await self._count_stored(question, record)
                return
            if found.is_in_batch:
                self.usage.missing.append(question.session_id)
                self.usage.failed[question.session_id] = "sent in a batch whose answers are not here yet"
                return
            self.new += key not in self.asked
            self.asked.add(key)
            self.in_progress[key] = asyncio.Event()
            try:
                request = found.request or self.client.endpoint.request(question)
                is_adapted = await self._ask(connection, question, request)
            finally:
                self.in_progress.pop(key).set()
            if not is_adapted:
                return

    def _keep_record(self, key: str, attempt: int, parsed: ParsedAnswer) -> AnswerRecord:
        """Returns the record of a request's last answer, and keeps it for further questions with this request."""
        return self.index.keep(key, attempt, parsed.status, parsed.usable, dict(parsed.repairs))

    async def _count_stored(self, question: Question, record: AnswerRecord) -> None:
        """Counts a parsed answer that was in the store."""
        self.usage.cached += 1
        self._count(question, str(record.status), record.usable, _load_json(record.repairs))
        if self.usage.cached % 64 == 0:
            await asyncio.sleep(0)

    def _count(self, question: Question, status: str, usable: bool, repairs: Mapping[str, int]) -> None:
        """Counts the last answer to a question."""
        self.usage.statuses[status if usable or status in ("refused", "invalid") else "unusable"] += 1
        self.usage.repairs.update(set(repairs))
        if not usable:
            self.usage.missing.append(question.session_id)

    async def _ask(self, connection: Connection, question: Question, request: Mapping[str, Any]) -> bool:
        """Repeats a request until its answer is final, the question has failed, or the run stops, and counts it.

        Returns:
            Whether the server refuses a field of the request, so that the question is to be asked without it.
        """
        unbilled = possibly_billed = 0
        while True:
            reply, attempt = await self.attempts.send(connection, request)
            if reply is None:
                self.usage.missing.append(question.session_id)
                return False
            if reply.outcome == "answer":
                parsed = await self.attempts.in_store_thread(self.client.parse, question, attempt)
                record = self._keep_record(request["key"], attempt, parsed)
                self.cut_off += parsed.status == "truncated"
                if record.is_final or self.attempts.stopping.is_set():
                    self._count(question, parsed.status, parsed.usable, parsed.repairs)
                    return False
                continue
            if reply.outcome == "refused_field" and not self.attempts.stopping.is_set():
                return True
            unbilled += reply.outcome == "unbilled"
            possibly_billed += reply.outcome == "possibly_billed"
            limits = self.client.limits
            failed = unbilled >= limits.max_attempts or possibly_billed > limits.max_possibly_billed
            if reply.outcome in ("bad_request", "fatal", "refused_field") or failed:
                self.usage.failed[question.session_id] = reply.error
                self.usage.missing.append(question.session_id)
                return False
            if reply.outcome != "rate_limited":
                await self.attempts.sleep(self.attempts.pacer.backoff(unbilled + possibly_billed))

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Handles Ctrl-C and SIGTERM in the block: the first stops sending, the second abandons requests in flight."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if threading.current_thread() is not threading.main_thread() or task is None:
            yield
            return

        def abandon() -> None:
            self.aborted = True
            task.cancel()

        def interrupted(number: signal.Signals) -> None:
            if self.attempts.stopping.is_set():
                abandon()
                return
            self.usage.signal = number
            self.interrupting = asyncio.ensure_future(self.attempts.stop("interrupted"))
            if number == signal.SIGTERM:
                timers.append(loop.call_later(_SECONDS_AFTER_SIGTERM, abandon))

        handlers, timers = {}, list[asyncio.TimerHandle]()
        for number in (signal.SIGINT, signal.SIGTERM):
            handlers[number] = signal.getsignal(number)
            loop.add_signal_handler(number, interrupted, number)
        try:
            yield
        finally:
            for timer in timers:
                timer.cancel()
            for number, handler in handlers.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

    def _complete_usage(self, started: float, before: Ledger) -> None:
        """Fills in time, cost and warnings at the end of the run, and reports them."""
        usage, ledger, models = self.usage, self.store.ledger, self.attempts.models
        usage.seconds, usage.refusals = time.monotonic() - started, self.attempts.pacer.refusals
        is_priced = self.client.price is not None
        usage.cost = ledger.confirmed - before.confirmed if is_priced else None
        usage.possible = ledger.possible - before.possible if is_priced else None
        if len(models) > 1:
            self.attempts.warn(f"more than one model answered: {dict(models)}")
        model = self.client.endpoint.model
        if any(name.split(" ")[0] != model for name in models):
            self.attempts.warn(f"asked {model}, answered by {', '.join(sorted(models))}")
        if self.cut_off:
            self.attempts.warn(
                f"{self.cut_off} answers were cut off at {self.client.endpoint.max_tokens()} tokens; raise the bound, "
                "or have a model that reasons think less"
            )
        if self.on_progress:
            self.on_progress(usage, ledger)

    def _report_progress(self) -> None:
        """Calls `on_progress`, at most twice a second."""
        if self.on_progress and time.monotonic() - self.progress_at > 0.5:
            self.progress_at = time.monotonic()
            self.on_progress(self.usage, self.store.ledger)
