"""Has a language model summarise how the conventional teacher recommends, into hints for the rankings (Module 1).

    python -m experiments.summarize_hints --run DIR --base-url URL --model NAME --budget-usd 0.10

Shows the model some training sessions with the teacher's top 20, prints the hints it writes, and keeps them as
`llm/hints.json` in the run's folder, where `experiments.query_llm` finds them. Delete the file for the built-in hints.
"""

from typing import Annotated

import numpy as np
import tyro

import alkd_jax as alkd
from alkd_jax.io import write_json
from alkd_jax.llm import prompts
from alkd_jax.llm.collection import collect_sync

from .pipeline import llm_settings as asked
from .pipeline.llm_settings import Asking
from .pipeline.stages import Run
from .query_llm import say, say_account, say_estimate
from .reporting.console import cli_errors


def summarize(options: Annotated[Asking, tyro.conf.arg(name="")], cases: int = 10, seed: int = 0) -> None:
    """Asks for hints, once.

    Args:
        options: whom, how and within which limits.
        cases: training sessions shown.
        seed: of their choice.
    """
    run = Run.reopen(options.run, readonly=True)
    question = hints_question(run, options, cases, seed)
    with asked.open_store(options.run) as store:
        client = options.client(store)
        options.endpoint.api_key()
        say_estimate(options, client.estimate([question]))
        account = collect_sync(client, [question], pilot=0)
        asked.keep_account(options.run, account, store)
        say_account(account, store.ledger, options.price)
        (_, key, reading), *_ = client.readings([question])
    if reading is None or not reading.hints:
        raise ValueError("no usable hints came back; nothing was written")
    told = {"hints": list(reading.hints), "model": options.model, "key": key, "cases": cases, "seed": seed}
    write_json(options.run / "llm" / "hints.json", told)
    for hint in reading.hints:
        say(f"- {hint}")


def hints_question(run: Run, options: Asking, cases: int, seed: int) -> prompts.Question:
    """The question, about training sessions drawn at random."""
    if not 1 <= cases <= len(run.dataset.train):
        raise ValueError(f"--cases is {cases}; expected 1 to {len(run.dataset.train)}")
    train = run.dataset.train
    rows = np.sort(np.random.default_rng(seed).choice(len(train), cases, replace=False))
    shown = alkd.Sessions(train.items[rows], train.mask[rows], train.target[rows], train.session_id[rows])
    suggested = run.candidates(shown, num=20)
    pairs = [
        (items[mask].tolist(), listed[listed > 0].tolist())
        for items, mask, listed in zip(np.asarray(shown.items), np.asarray(shown.mask), suggested, strict=True)
    ]
    return prompts.render_hints(pairs, asked.template_of(options, run.dataset), run.dataset.titles)


def main() -> None:
    """Entry point."""
    with cli_errors():
        tyro.cli(summarize, description=__doc__)


if __name__ == "__main__":
    main()
