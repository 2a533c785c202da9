"""ALKDRec on one dataset and one backbone, end to end, with the training-free recommenders beside it.

    python -m experiments.reproduce --data released:PATH:ML --backbone fpmc --seeds 5 --out runs/ml-fpmc

Trains teacher and students, selects sessions, replays the recorded LLM rankings, distils, and evaluates on test. A run
that was stopped goes on from its last finished hop.

With `--teacher openai` a language model is asked in place of the record: with `--model NAME --budget-usd 1.00` at once;
without, the run stops before the paid hop, `experiments.query_llm` estimates and asks, and the same command goes on.
"""

from typing import Any

import tyro

from alkd_jax.io import write_json

from . import query_llm
from .pipeline import llm_settings
from .pipeline.settings import Settings
from .pipeline.stages import Run
from .reporting import report, results
from .reporting.console import cli_errors, console


def run_pipeline(settings: Settings) -> dict[str, Any]:
    """Runs whatever is not done yet, writes `metrics.json` and `report.html`, and prints the table.

    Returns:
        What `metrics.json` holds.
    """
    run = Run.open(settings)
    run.hops_to_candidates()
    if settings.ranker == "openai" and settings.model is not None:
        asked = llm_settings.Asking(
            settings.out, settings.model, settings.base_url, settings.budget_usd, min_valid=settings.min_valid
        )
        query_llm.ask(asked)
    run.hops_from_rankings()
    numbers = results.collect(run)
    write_json(run.folder.path / "metrics.json", numbers)
    report.write_report(run, numbers)
    console.print(results.as_table(numbers))
    console.print(f"{settings.out}/metrics.json, {settings.out}/report.html", highlight=False, markup=False)
    return numbers


def main() -> None:
    """Entry point."""
    with cli_errors():
        run_pipeline(tyro.cli(Settings, description=__doc__))


if __name__ == "__main__":
    main()
