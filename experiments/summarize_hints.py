"""Has a language model summarize how the conventional teacher recommends, into hints for the rankings (Module 1).

    python -m experiments.summarize_hints --run DIR --base-url URL --model NAME --budget-usd 0.10

The command shows the model some training sessions with the teacher's top 20, prints the hints that it answers with, and
writes them to `llm/hints.json` in the run's folder, from which `experiments.query_llm` reads them. Delete the file to
use the built-in hints again.
"""

import numpy as np

from alkd_jax.checks import check_between
from alkd_jax.io import write_json
from alkd_jax.llm import prompts
from alkd_jax.llm.collection import collect_sync
from alkd_jax.types import PAD

from .pipeline import llm_files, llm_settings
from .pipeline.command_line import parse
from .pipeline.console import cli_errors, print_line
from .pipeline.llm_options import LLMSettings, SettingsArg
from .pipeline.stages import Run
from .query_llm import finish, print_estimate


def summarize(settings: SettingsArg, cases: int = 10, cases_seed: int = 0) -> None:
    """Asks for hints once and writes them.

    Args:
        settings: server, model and limits.
        cases: number of training sessions shown.
        cases_seed: of the sampling of these sessions.
    """
    run = Run.reopen(settings.run, readonly=True)
    question = hints_question(run, settings, cases, cases_seed)
    with llm_files.open_store(settings.run) as store:
        client = settings.client(store)
        settings.endpoint.api_key()
        print_estimate(settings, client.estimate([question]))
        usage = collect_sync(client, [question], pilot=0)
        finish(settings, usage, store)
        (_, key, parsed), *_ = client.parsed_answers([question])
    if parsed is None or not parsed.hints:
        raise ValueError("the model gave no usable hints; expected at least one, nothing was written")
    hints = {"hints": list(parsed.hints), "model": settings.model, "key": key, "cases": cases, "seed": cases_seed}
    write_json(settings.run / "llm" / "hints.json", hints)
    for hint in parsed.hints:
        print_line(f"- {hint}")


def hints_question(run: Run, settings: LLMSettings, cases: int, seed: int) -> prompts.Question:
    """Makes the question for hints from randomly sampled training sessions.

    Args:
        run: with a trained teacher.
        settings: for the template.
        cases: number of training sessions shown.
        seed: of the sampling.
    """
    train = run.dataset.train
    check_between(1, len(train), **{"--cases": cases})
    sampled = train.take(np.sort(np.random.default_rng(seed).choice(len(train), cases, replace=False)))
    candidates = run.candidates(sampled, num=20).items
    examples = [
        (items[mask].tolist(), row[row > PAD].tolist())
        for items, mask, row in zip(np.asarray(sampled.items), np.asarray(sampled.mask), candidates, strict=True)
    ]
    return prompts.hints_question(examples, llm_settings.prompt_template(settings, run.dataset), run.dataset.titles)


def main() -> None:
    """Entry point."""
    with cli_errors():
        parse(summarize, "summarize_hints", __doc__)


if __name__ == "__main__":
    main()
