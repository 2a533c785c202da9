"""Has a language model rank the candidates of a run's chosen sessions, within a budget.

    python -m experiments.query_llm estimate --run DIR --model NAME
    python -m experiments.query_llm run --run DIR --base-url URL --model NAME --budget-usd 1.00

`run` asks 16 questions first and estimates anew, then asks the rest. Every answer is on disk before it is read: a run
that was stopped, by Ctrl-C or by the budget, goes on with the same command and pays for nothing twice. The API key is
read from OPENAI_API_KEY and nowhere else.
"""

import asyncio
import collections
import pathlib
import sys
from collections.abc import Callable
from typing import Annotated, Any

import tyro

from alkd_jax.llm import exchange
from alkd_jax.llm.batch import Batches
from alkd_jax.llm.client import Client
from alkd_jax.llm.collection import collect_sync
from alkd_jax.llm.ledger import Budget, Ledger
from alkd_jax.llm.pricing import Estimate, Price, dollars
from alkd_jax.llm.usage import UsageReport

from .pipeline import llm_settings as asked
from .pipeline.llm_settings import Asking
from .pipeline.stages import Run
from .reporting.console import asking_bar, cli_errors, console

Options = Annotated[Asking, tyro.conf.arg(name="")]


def say(text: str) -> None:
    """Prints a line as it is."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def say_estimate(asking: Asking, estimate: Estimate) -> None:
    """Prints what asking will cost."""
    price = asking.price
    say(f"{asking.model} at {asking.base_url}: {estimate.asked} questions, {estimate.answered} answered before")
    if price is None:
        money = "price unknown: give --price-input and --price-output, or cap tokens or requests"
    elif price.is_free:
        money = "free: a server on this machine, and no list price for the model"
    else:
        money = (
            f"{dollars(estimate.low)} at least, {dollars(estimate.expected)} expected, "
            f"{dollars(estimate.worst)} at worst (prices: {price.source})"
        )
    say(f"{money}; about {estimate.tokens:,} tokens ({estimate.basis})")


def say_account(account: UsageReport, ledger: Ledger, price: Price | None) -> None:
    """Prints what was done."""
    statuses = ", ".join(f"{count} {name}" for name, count in sorted(account.statuses.items())) or "none"
    say(f"{account.asked} questions: {statuses}; {account.cached} from the store; {account.requests} requests sent")
    if account.repairs:
        say("repairs: " + ", ".join(f"{count} {name}" for name, count in sorted(account.repairs.items())))
    spent = (
        "money unknown" if price is None else f"{dollars(ledger.confirmed)} paid, {dollars(ledger.possible)} possible"
    )
    say(f"in all: {spent}, {ledger.tokens:,} tokens, {ledger.requests} requests; {account.seconds:.1f} s this time")
    for warning in account.warnings:
        say(f"warning: {warning}")
    if account.stopped:
        say(f"stopped: {account.stopped}")
    if account.missing:
        shown = ", ".join(map(str, account.missing[:10])) + (", …" if len(account.missing) > 10 else "")
        say(f"missing: {len(account.missing)} sessions without a usable list ({shown})")


def estimate(options: Options) -> None:
    """Tells what asking will cost; sends nothing."""
    run = Run.reopen(options.run)
    run.hop_candidates()
    with asked.open_store(options.run) as store:
        client = options.client(store, budget=Budget(requests=0))
        say_estimate(options, client.estimate(asked.questions(options, run.dataset)))


def pilot(options: Options) -> None:
    """Asks the first questions only, and estimates the rest from what they took."""
    ask(options, only_pilot=True)


def run(options: Options, batch: bool = False, partial: bool = False, yes: bool = False) -> None:
    """Asks what is not answered yet. Ends with status 3 where sessions are left without a usable list.

    Args:
        options: whom, how and within which limits.
        batch: through the Batch API, at half the price and within a day; call again to fetch the answers.
        partial: ask as many as the budget allows, though it is not expected to do for all.
        yes: do not wait for return before the first call.
    """
    if batch:
        ask_in_batches(options)
    elif ask(options, partial=partial, wait=not yes):
        sys.exit(3)


def ask(options: Asking, *, only_pilot: bool = False, partial: bool = False, wait: bool = True) -> list[int]:
    """Asks and reports; the sessions that have no usable list afterwards."""
    run = Run.reopen(options.run)
    run.hop_candidates()
    with asked.open_store(options.run) as store:
        client = options.client(store)
        options.endpoint.api_key()
        first = client.estimate(asked.questions(options, run.dataset))
        say_estimate(options, first)
        if wait and not only_pilot and asked.is_terminal() and first.asked > first.answered:
            console.input("Press return to begin, Ctrl-C to leave. ")
        asked.keep_asking(options)

        def after_pilot(account: UsageReport) -> str | None:
            anew = client.estimate(asked.questions(options, run.dataset))
            say(f"pilot: {account.valid_rate:.0%} of {account.done} answers usable")
            say_estimate(options, anew)
            return "the pilot is done" if only_pilot else None if partial else over_cap(client, anew)

        measured = store.calibration(options.endpoint.normal_url, options.model).answers
        if measured >= options.pilot and not only_pilot and not partial and (why := over_cap(client, first)):
            raise ValueError(f"{why}; give more, or --partial to ask as many as it allows")
        with asking_bar(first.asked) as show:
            account = collect_sync(
                client,
                asked.questions(options, run.dataset),
                pilot=options.pilot if only_pilot or measured < options.pilot else 0,
                on_progress=show,
                after_pilot=after_pilot,
            )
        asked.keep_account(options.run, account, store)
        say_account(account, store.ledger, options.price)
    return account.missing


def over_cap(client: Client, anew: Estimate) -> str | None:
    """Why not to go on after the pilot, if the rest is expected to pass the cap."""
    cap, spent = client.budget.pico, client.store.ledger.committed
    if cap is None or spent + anew.expected <= cap:
        return None
    return f"{dollars(spent + anew.expected)} expected in all, more than the cap of {dollars(cap)}"


def ask_in_batches(options: Asking) -> None:
    """Hands over what is not answered yet, and fetches what is done."""
    run = Run.reopen(options.run)
    run.hop_candidates()
    with asked.open_store(options.run) as store:
        client = options.client(store)
        asked.keep_asking(options)
        batches = Batches(client)
        handed_over = asyncio.run(batches.submit(asked.questions(options, run.dataset)))
        standing = asyncio.run(batches.poll())
        taken = asyncio.run(batches.ingest())
        say(f"handed over now: {handed_over}; batches: {standing}; taken in: {taken or 'nothing yet'}")
        say(f"in all: {dollars(store.ledger.confirmed)} paid, {dollars(store.ledger.reserved)} reserved")


def status(run: pathlib.Path) -> None:
    """Tells what is answered and what it cost; also while another process is asking.

    Args:
        run: the run's folder.
    """
    with asked.open_store(run, readonly=True) as store:
        counts = collections.Counter(
            (known.status or "not read yet") + ("" if known.usable else " (unusable)")
            for known in store.answered().values()
        )
        ledger = store.ledger
        say(f"answers: {', '.join(f'{count} {name}' for name, count in sorted(counts.items())) or 'none'}")
        spent = f"{dollars(ledger.confirmed)} paid, {dollars(ledger.possible)} possible"
        say(f"{spent}, {dollars(ledger.reserved)} reserved for {ledger.open} on their way")
        say(f"{ledger.requests} requests, {ledger.tokens:,} tokens")
        lost = collections.Counter(error for _, error, _ in store.failures())
        for error, count in lost.most_common(5):
            say(f"possibly billed without an answer: {count} × {error}")


def export(run: pathlib.Path, out: pathlib.Path | None = None) -> None:
    """Writes the usable answers as JSON lines, which replay and other runs read.

    Args:
        run: the run's folder.
        out: the file; by default `llm/answers.jsonl` in the run's folder.
    """
    asking, dataset = asked.kept_asking(run), Run.reopen(run, readonly=True).dataset
    out = out or run / "llm" / "answers.jsonl"
    with asked.open_store(run) as store:
        client = asking.client(store, budget=Budget(requests=0))
        sessions: dict[str, list[int]] = {}
        for question, key, _ in client.readings(asked.questions(asking, dataset)):
            sessions.setdefault(key, []).append(question.session_id)
        lines = exchange.export_jsonl(store, out, sessions, catalogue=dataset.fingerprint)
    say(f"{out}: {lines} answers to {sum(map(len, sessions.values()))} questions")


def main() -> None:
    """Entry point."""
    commands: dict[str, Callable[..., Any]] = {"estimate": estimate, "pilot": pilot, "run": run, "status": status}
    commands["export"] = export
    with cli_errors():
        tyro.extras.subcommand_cli_from_dict(commands, description=__doc__)


if __name__ == "__main__":
    main()
