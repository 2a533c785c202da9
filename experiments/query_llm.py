"""Has a language model rank the candidates of a run's selected sessions, within a budget.

    python -m experiments.query_llm estimate --run DIR --model NAME
    python -m experiments.query_llm run --run DIR --base-url URL --model NAME --budget-usd 1.00

`run` asks 16 questions first, estimates the cost again, and then asks the rest. Every answer is written to the disk
before it is parsed: a run that was stopped, by Ctrl-C or by the budget, continues with the same command and asks
again only where an answer is missing or unusable. The API key is read from OPENAI_API_KEY and nowhere else.
"""

import asyncio
import os
import pathlib
import signal
import sys
from collections.abc import Callable
from typing import Any

from alkd_jax.io import write_json
from alkd_jax.llm import exchange
from alkd_jax.llm.batch import Batches
from alkd_jax.llm.ledger import Budget, Ledger
from alkd_jax.llm.pricing import PICO, Estimate, Price, dollars
from alkd_jax.llm.salvage import salvage as salvage_store
from alkd_jax.llm.store import Store
from alkd_jax.llm.usage import UsageReport

from .pipeline import llm_account, llm_settings, options
from .pipeline.command_line import parse_subcommand
from .pipeline.console import cli_errors, console, llm_progress_bar, print_line
from .pipeline.llm_settings import LLMSettings, SettingsArg
from .pipeline.llm_status import summarize
from .pipeline.question_files import write_questions
from .pipeline.stages import Run


def print_estimate(settings: LLMSettings, estimate: Estimate) -> None:
    """Prints what the answers will cost."""
    price = settings.price
    questions = f"{estimate.questions} questions, {estimate.answered} answered before"
    print_line(f"{settings.model} at {settings.base_url}: {questions}")
    if price is None:
        cost = "price unknown: give --price-input and --price-output, or cap tokens or requests"
    elif price.is_free:
        cost = "free: a server on this machine, and no list price for the model"
    else:
        cost = (
            f"{dollars(estimate.low)} at least, {dollars(estimate.expected)} expected, "
            f"{dollars(estimate.worst)} at worst (prices: {price.source})"
        )
    print_line(f"{cost}; about {estimate.tokens:,} tokens ({estimate.basis})")


def print_usage(usage: UsageReport, ledger: Ledger, price: Price | None) -> None:
    """Prints what a collection did, and the totals of the store."""
    statuses = ", ".join(f"{count} {status}" for status, count in sorted(usage.statuses.items())) or "none"
    print_line(f"{usage.asked} questions: {statuses}; {usage.cached} from the store; {usage.requests} requests sent")
    if usage.repairs:
        print_line("repairs: " + ", ".join(f"{count} {kind}" for kind, count in sorted(usage.repairs.items())))
    cost = "cost unknown" if price is None else llm_settings.cost_so_far(ledger)
    print_line(f"in all: {cost}, {ledger.tokens:,} tokens, {ledger.requests} requests; {usage.seconds:.1f} s this time")
    for warning in usage.warnings:
        print_line(f"warning: {warning}")
    if usage.stopped:
        print_line(f"stopped: {usage.stopped}")
    if usage.missing:
        first = ", ".join(map(str, usage.missing[:10])) + (", …" if len(usage.missing) > 10 else "")
        print_line(f"missing: {len(usage.missing)} sessions without a usable list ({first})")


def estimate(settings: SettingsArg) -> None:
    """Estimates the cost of the answers; sends nothing."""
    run = Run.reopen(settings.run)
    run.candidates_stage()
    with llm_settings.open_store(settings.run) as store:
        teacher = llm_settings.online_teacher(settings, store, run.dataset, budget=Budget(requests=0))
        sessions, candidates = llm_settings.sessions_to_rank(settings.run, run.dataset)
        print_estimate(settings, teacher.estimate(sessions, candidates))


def pilot(settings: SettingsArg) -> None:
    """Asks the first questions only, and estimates the cost of the rest from their answers."""
    ask(settings, only_pilot=True)


def run(settings: SettingsArg, batch: bool = False, partial: bool = False, yes: bool = False) -> None:
    """Asks the questions that have no answer yet. The exit status is 3 where sessions are left without a usable list.

    Args:
        settings: server, model and limits.
        batch: use the Batch API, at half the price and within a day; call again to fetch the answers.
        partial: ask as many questions as the budget allows, though it is not expected to suffice for all.
        yes: do not wait for the return key before the first request.
    """
    if batch:
        ask_in_batches(settings)
    elif ask(settings, partial=partial, wait=not yes):
        sys.exit(3)


def ask(settings: LLMSettings, *, only_pilot: bool = False, partial: bool = False, wait: bool = True) -> list[int]:
    """Asks the questions that have no answer yet, and prints cost and results.

    Args:
        settings: server, model and limits.
        only_pilot: stop after the first questions.
        partial: ask as many questions as the budget allows, though it is not expected to suffice for all.
        wait: wait for the return key before the first request, where a person is at the terminal.

    Returns:
        The ids of the sessions without a usable list.

    Raises:
        ValueError: the answers are expected to cost more than the cap, or a setting is wrong.
    """
    run = Run.reopen(settings.run)
    run.candidates_stage()
    with llm_settings.open_store(settings.run) as store:
        teacher = llm_settings.online_teacher(settings, store, run.dataset)
        sessions, candidates = llm_settings.sessions_to_rank(settings.run, run.dataset)
        settings.endpoint.api_key()
        estimate = teacher.estimate(sessions, candidates)
        print_estimate(settings, estimate)
        if wait and not only_pilot and is_terminal() and estimate.questions > estimate.answered:
            console.input("Press return to begin, Ctrl-C to leave. ")
        llm_settings.save_settings(settings, teacher.client)

        def after_pilot(usage: UsageReport) -> str | None:
            estimate = teacher.estimate(sessions, candidates)
            print_line(f"pilot: {usage.valid_rate:.0%} of {usage.done} answers usable")
            print_estimate(settings, estimate)
            return "the pilot is done" if only_pilot else None if partial else check_cap(settings, store, estimate)

        calibration = store.calibration(settings.endpoint.normalized_url, settings.model)
        if calibration.answers >= settings.pilot and not only_pilot and not partial:
            if reason := check_cap(settings, store, estimate):
                raise ValueError(f"{reason}; expected a higher cap, or --partial to ask as many as it allows")
        with llm_progress_bar(estimate.questions) as on_progress:
            usage = teacher.ask(
                sessions,
                candidates,
                pilot=settings.pilot if only_pilot or calibration.answers < settings.pilot else 0,
                on_progress=on_progress,
                after_pilot=after_pilot,
            )
        finish(settings, usage, store)
    return usage.missing


def finish(settings: LLMSettings, usage: UsageReport, store: Store) -> None:
    """Adds a collection to the run's account, prints it, and ends the command where a signal ended the collection.

    Raises:
        ValueError: the store could not be written any more, and so neither can the account.
    """
    if usage.store_failed:
        raise ValueError(usage.stopped)
    llm_account.save_usage(settings.run, usage, store)
    print_usage(usage, store.ledger, settings.price)
    if usage.signal is not None:
        signal.raise_signal(usage.signal)


def check_cap(settings: LLMSettings, store: Store, estimate: Estimate) -> str | None:
    """Returns the reason not to continue where the answers are expected to exceed the cap on money."""
    cap, cost = settings.budget.pico, store.ledger.committed + estimate.expected
    if cap is None or cost <= cap:
        return None
    return f"{dollars(cost)} expected in all, more than the cap of {dollars(cap)}"


def ask_in_batches(settings: LLMSettings) -> None:
    """Submits the questions that have no answer yet to the Batch API, and fetches the answers of finished batches."""
    run = Run.reopen(settings.run)
    run.candidates_stage()
    with llm_settings.open_store(settings.run) as store:
        teacher = llm_settings.online_teacher(settings, store, run.dataset)
        sessions, candidates = llm_settings.sessions_to_rank(settings.run, run.dataset)
        llm_settings.save_settings(settings, teacher.client)
        batches = Batches(teacher.client)
        submitted = asyncio.run(batches.submit(teacher.questions(sessions, candidates)))
        statuses = asyncio.run(batches.poll())
        ingested = asyncio.run(batches.ingest())
        print_line(f"submitted now: {submitted}; batches: {statuses}; received: {ingested or 'nothing yet'}")
        ledger = store.ledger
        print_line(f"in all: {dollars(ledger.confirmed)} paid, {dollars(ledger.reserved)} reserved")


def status(run: options.RunFolder, json: pathlib.Path | None = None) -> None:
    """Prints what is answered and what it cost; also while another process is asking.

    Args:
        json: file for the same numbers.
    """
    numbers = summarize(run)
    statuses = ", ".join(f"{count} {name}" for name, count in numbers["statuses"].items()) or "none"
    print_line(f"answers: {statuses}")
    amounts = (numbers[name] for name in ("paid_usd", "possible_usd", "reserved_usd"))
    paid, possible, reserved = (dollars(round(amount * PICO)) for amount in amounts)
    print_line(f"{paid} paid, {possible} possible, {reserved} reserved for {numbers['open']} requests in flight")
    print_line(f"{numbers['requests']} requests, {numbers['tokens']:,} tokens")
    for error, count in numbers["failures"].items():
        print_line(f"possibly billed without an answer: {count} × {error}")
    if json is not None:
        write_json(json, numbers)
        print_line(f"{json}")


def questions(run: options.RunFolder, out: pathlib.Path) -> None:
    """Writes the sessions to rank as JSON lines, with raw ids, titles and candidates; `--rankings` reads the answers.

    Args:
        out: the file.
    """
    dataset = Run.reopen(run, readonly=True).dataset
    print_line(f"{out}: {write_questions(run, dataset, out)} sessions to rank")


def export(run: options.RunFolder, out: pathlib.Path | None = None) -> None:
    """Writes the usable answers as JSON lines, which replay and other runs read.

    Args:
        out: the file; by default `llm/answers.jsonl` in the run's folder.
    """
    settings, dataset = llm_settings.load_settings(run), Run.reopen(run, readonly=True).dataset
    out = out or run / "llm" / "answers.jsonl"
    with llm_settings.open_store(run) as store:
        teacher = llm_settings.online_teacher(settings, store, dataset, budget=Budget(requests=0))
        questions = teacher.questions(*llm_settings.sessions_to_rank(run, dataset))
        sessions: dict[str, list[int]] = {}
        for question, key, _ in teacher.client.parsed_answers(questions):
            sessions.setdefault(key, []).append(question.session_id)
        lines = exchange.export_jsonl(store, out, sessions, catalogue=dataset.fingerprint)
    print_line(f"{out}: {lines} answers to {sum(map(len, sessions.values()))} questions")


def salvage(run: options.RunFolder) -> None:
    """Makes a new store of the undamaged answers of a damaged one, which is kept as `llm/answers.damaged.sqlite`.

    What was paid for the lost answers still counts against the budget.
    """
    path = run / "llm" / llm_account.STORE
    kept, partial = path.with_name("answers.damaged.sqlite"), path.with_name("answers.salvaged.sqlite")
    if kept.exists():
        raise ValueError(f"{kept} exists; expected the name to be free for {path}")
    requests, spent = llm_account.recorded_totals(run)
    partial.unlink(missing_ok=True)
    with salvage_store(path, partial, spent=spent, requests=requests) as store:
        answers, lost = len(store.answer_records()), dollars(store.ledger.possible)
    for suffix in ("", "-wal"):
        if (source := path.with_name(path.name + suffix)).exists():
            os.replace(source, f"{kept}{suffix}")
    os.replace(partial, path)
    print_line(f"{path}: {answers} answers kept, {lost} counted as possibly billed; the damaged file is {kept}")


def is_terminal() -> bool:
    """Returns whether a person at a terminal can press a key."""
    return os.isatty(0) and os.isatty(1)


def main() -> None:
    """Entry point."""
    commands: dict[str, Callable[..., Any]] = {"estimate": estimate, "pilot": pilot, "run": run, "status": status}
    commands |= {"questions": questions, "export": export, "salvage": salvage}
    with cli_errors():
        parse_subcommand(commands, "query_llm", __doc__)


if __name__ == "__main__":
    main()
