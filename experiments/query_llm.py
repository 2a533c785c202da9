"""Has a language model rank the candidates of a run's selected sessions, within a budget.

    python -m experiments.query_llm estimate --run DIR --model NAME
    python -m experiments.query_llm run --run DIR --base-url URL --model NAME --budget-usd 1.00

`run` asks one question first, then 16, estimates the cost again, and then asks the rest. Every answer is written to
the disk before it is parsed: a run that was stopped, by Ctrl-C or by the budget, continues with the same command and
asks again only where an answer is missing or unusable. The API key is read from the environment and nowhere else.
"""

import datetime
import os
import pathlib
import signal
import sys
from collections.abc import Callable
from typing import Any

from alkd_jax.checks import check_count
from alkd_jax.io import write_json
from alkd_jax.llm import exchange
from alkd_jax.llm.calibration import calibrate
from alkd_jax.llm.ledger import Budget, Ledger
from alkd_jax.llm.pricing import PICO, Estimate, Price, dollars
from alkd_jax.llm.salvage import salvage as salvage_store
from alkd_jax.llm.store import Store
from alkd_jax.llm.usage import UsageReport

from .pipeline import light_options, llm_account, llm_files, llm_show
from .pipeline.command_line import parse_subcommand
from .pipeline.console import console, llm_progress_bar, print_line, print_lines
from .pipeline.exits import one_line_errors
from .pipeline.llm_batches import ask_in_batches, batch
from .pipeline.llm_options import LLMSettings, SettingsArg
from .pipeline.llm_status import summarize


def print_estimate(settings: LLMSettings, estimate: Estimate) -> None:
    """Prints what the answers will cost."""
    price = settings.price
    questions = f"{estimate.questions} questions, {estimate.answered} answered before"
    print_line(f"{settings.model} at {settings.endpoint.base_url}: {questions}")
    for notice in settings.notices(datetime.date.today()):
        print_line(f"warning: {notice}")
    if price is None:
        cost = "price unknown: give --price-input and --price-output, or cap tokens or requests"
    elif price.is_free:
        cost = "free: a server on this machine, or a price of 0"
    else:
        cost = (
            f"{dollars(estimate.low)} at least, {dollars(estimate.expected)} expected, "
            f"{dollars(estimate.worst)} at worst (prices: {price.source})"
        )
    print_line(f"{cost}; about {estimate.tokens:,} tokens ({estimate.basis})")


def print_usage(usage: UsageReport, ledger: Ledger, price: Price | None, *, about: str = "sessions") -> None:
    """Prints what a collection of questions about sessions, or items, did, and the totals of the store."""
    statuses = ", ".join(f"{count} {status}" for status, count in sorted(usage.statuses.items())) or "none"
    print_line(f"{usage.asked} questions: {statuses}; {usage.cached} from the store; {usage.requests} requests sent")
    if usage.repairs:
        print_line("repairs: " + ", ".join(f"{count} {kind}" for kind, count in sorted(usage.repairs.items())))
    cost = "cost unknown" if price is None else llm_files.cost_so_far(ledger)
    print_line(f"in all: {cost}, {ledger.tokens:,} tokens, {ledger.requests} requests; {usage.seconds:.1f} s this time")
    for warning in usage.warnings:
        print_line(f"warning: {warning}")
    if usage.stopped:
        print_line(f"stopped: {usage.stopped}")
    if usage.missing:
        # A session occurs once for each of its questions.
        sessions = list(dict.fromkeys(usage.missing))
        first = ", ".join(map(str, sessions[:10])) + (", …" if len(sessions) > 10 else "")
        lists = "a usable list" if len(sessions) == len(usage.missing) else "all their lists"
        print_line(f"missing: {len(sessions)} {about} without {lists} ({first})")


def estimate(settings: SettingsArg) -> None:
    """Estimates the cost of the answers; sends nothing."""
    from .pipeline.llm_runs import open_run

    with open_run(settings, budget=Budget(requests=0)) as run:
        print_estimate(settings, run.teacher.estimate(run.sessions, run.candidates))


def show(settings: SettingsArg, number: int = 3, session: int | None = None) -> None:
    """Shows questions as they are sent, answers beside what was read, bias, agreement and cost; sends nothing.

    Args:
        settings: server and model.
        number: how many questions to show.
        session: id of the only session to show.
    """
    from .pipeline.llm_runs import open_run

    check_count(1, **{"--number": number})
    with open_run(settings, budget=Budget(requests=0)) as run:
        questions = run.teacher.questions(run.sessions, run.candidates)
        for shown in llm_show.shown_questions(run.teacher.client, questions, number=number, session=session):
            print_lines("\n".join(shown.lines()))
        print_lines("\n".join(llm_show.judge(run.store, settings.model).lines()))
        for model, requests, tokens, cost in llm_show.costs_by_model(run.store):
            print_line(f"{model}: {requests:,} requests, {tokens:,} tokens, {dollars(cost)}")


def pilot(settings: SettingsArg) -> None:
    """Asks the first questions only, and estimates the cost of the rest from their answers."""
    ask(settings, only_pilot=True)


def run(
    settings: SettingsArg,
    batch: bool = False,
    wait: bool = False,
    again: bool = False,
    partial: bool = False,
    yes: bool = False,
) -> None:
    """Asks the questions that have no answer yet. The exit status is 3 where sessions are left without a usable list.

    Args:
        settings: server, model and limits.
        batch: use the Batch API, at half the price and within a day; call again to fetch the answers.
        wait: with --batch, wait until the batches have ended.
        again: with --batch, submit also questions of a batch that the server has called faulty.
        partial: ask as many questions as the budget allows, though it is not expected to suffice for all.
        yes: do not wait for the return key before the first request.
    """
    if (wait or again) and not batch:
        raise ValueError(f"--{'wait' if wait else 'again'} is given without --batch; expected both or neither")
    if batch:
        ask_in_batches(settings, wait=wait, again=again)
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
    from .pipeline.llm_runs import open_run

    with open_run(settings) as run:
        store, teacher, sessions, candidates = run.store, run.teacher, run.sessions, run.candidates
        settings.endpoint.api_key()
        estimate = teacher.estimate(sessions, candidates)
        print_estimate(settings, estimate)
        if wait and not only_pilot and is_terminal() and estimate.questions > estimate.answered:
            console.input("Press return to begin, Ctrl-C to leave. ")
        llm_files.save_settings(settings, teacher.client, only_first=only_pilot)

        def after_pilot(usage: UsageReport) -> str | None:
            estimate = teacher.estimate(sessions, candidates)
            print_line(f"pilot: {usage.valid_rate:.0%} of {usage.done} answers usable")
            print_estimate(settings, estimate)
            return "the pilot is done" if only_pilot else None if partial else check_cap(settings, store, estimate)

        calibration = calibrate(store, settings.endpoint.normalized_url, settings.model)
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


def status(run: light_options.RunFolder, json: pathlib.Path | None = None) -> None:
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
    for error, count in numbers["refusals"].items():
        print_line(f"refused or not done, at no cost: {count} × {error}")
    if json is not None:
        write_json(json, numbers)
        print_line(f"{json}")


def questions(run: light_options.RunFolder, out: pathlib.Path) -> None:
    """Writes the sessions to rank as JSON lines, with raw ids, titles and candidates; `--rankings` reads the answers.

    Args:
        out: the file.
    """
    from .pipeline.question_files import write_questions
    from .pipeline.run import RunContext

    dataset = RunContext.reopen(run, readonly=True).dataset
    print_line(f"{out}: {write_questions(run, dataset, out)} sessions to rank")


def export(run: light_options.RunFolder, out: pathlib.Path | None = None, model: str | None = None) -> None:
    """Writes the usable answers as JSON lines, which replay and other runs read.

    Args:
        out: the file; by default `llm/answers.jsonl` in the run's folder.
        model: whose answers; by default those of the model that was asked last.
    """
    from .pipeline.llm_runs import open_run

    settings = llm_files.load_settings(run, model)
    out = out or run / "llm" / "answers.jsonl"
    with open_run(settings, budget=Budget(requests=0), readonly=True) as asked:
        questions = asked.teacher.questions(asked.sessions, asked.candidates)
        sessions: dict[str, list[int]] = {}
        for question, key, _ in asked.teacher.client.parsed_answers(questions):
            sessions.setdefault(key, []).append(question.session_id)
        lines = exchange.export_jsonl(asked.store, out, sessions, catalogue=asked.dataset.fingerprint)
    print_line(f"{out}: {lines} answers to {sum(map(len, sessions.values()))} questions")


def salvage(run: light_options.RunFolder) -> None:
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
    commands |= {"batch": batch, "show": show, "questions": questions, "export": export, "salvage": salvage}
    with one_line_errors(continues=True):
        parse_subcommand(commands, "query_llm", __doc__)


if __name__ == "__main__":
    main()
