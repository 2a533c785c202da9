"""Asks a run's questions by the Batch API, waits for the batches, and cancels them."""

import asyncio
from typing import Annotated, Literal

import tyro

from alkd_jax.llm.batch import Batches
from alkd_jax.llm.ledger import Budget
from alkd_jax.llm.pricing import dollars

from . import light_options, llm_files
from .console import print_line
from .llm_options import LLMSettings
from .run_folder import config_of


def ask_in_batches(settings: LLMSettings, *, wait: bool = False, again: bool = False) -> None:
    """Submits the questions that have no answer yet to the Batch API, and fetches the answers of finished batches.

    Args:
        settings: server, model and limits.
        wait: wait until the batches have ended.
        again: submit also questions of a batch that the server has called faulty.

    Raises:
        ValueError: a batch could pass the cap, or all questions were in a faulty batch.
        ConnectionError: the server has failed, or refuses the batch, whose questions are then released.
    """
    from .llm_runs import open_run

    with open_run(settings) as run:
        teacher = run.teacher
        llm_files.save_settings(settings, teacher.client)
        batches = Batches(teacher.client)
        # What has ended is recorded first, so that only what it left open is submitted.
        asyncio.run(batches.poll())
        received = asyncio.run(batches.ingest())
        submitted = asyncio.run(batches.submit(teacher.questions(run.sessions, run.candidates), again=again))
        if wait and submitted:
            print_line(f"submitted: {submitted} questions; waiting for the batches, Ctrl-C leaves them running")
        if wait:
            asyncio.run(batches.wait())
        asyncio.run(batches.poll())
        for name, count in asyncio.run(batches.ingest()).items():
            received[name] = received.get(name, 0) + count
        answers = teacher.client.parsed_answers(teacher.questions(run.sessions, run.candidates))
        usable = sum(answer is not None and answer.usable for _, _, answer in answers)
        _print_batches(batches, f"submitted now: {submitted}; usable lists: {usable}", received)


def batch(
    action: Annotated[Literal["cancel", "status"], tyro.conf.Positional],
    run: light_options.RunFolder,
    model: str | None = None,
    wait: bool = False,
) -> None:
    """Cancels the batches of a run that have not ended, or prints their status, and records what they have answered.

    Args:
        action: "cancel" or "status".
        model: whose batches; by default those of the model that was asked last.
        wait: wait until the batches have ended.
    """
    config_of(run)
    settings = llm_files.load_settings(run, model)
    with llm_files.open_store(run) as store:
        batches = Batches(settings.client(store, budget=Budget(requests=0)))
        done = ""
        if action == "cancel":
            done = f"cancelled: {asyncio.run(batches.cancel())}"
        if wait:
            asyncio.run(batches.wait())
        asyncio.run(batches.poll())
        _print_batches(batches, done, asyncio.run(batches.ingest()))


def _print_batches(batches: Batches, done: str, received: dict[str, int]) -> None:
    """Prints what was done, what was received, and what failed."""
    statuses = batches.statuses()
    print_line("; ".join(filter(None, [done, f"batches: {statuses}", f"received: {received or 'nothing yet'}"])))
    for error, count in batches.errors.most_common(5):
        print_line(f"failed: {count} × {error}")
    ledger = batches.store.ledger
    paid, possible, reserved = (dollars(amount) for amount in (ledger.confirmed, ledger.possible, ledger.reserved))
    print_line(f"in all: {paid} paid, {possible} possible, {reserved} reserved")
