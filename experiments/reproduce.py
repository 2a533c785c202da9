"""ALKDRec on one dataset with one backbone, end to end, and the training-free recommenders for comparison.

    python -m experiments.reproduce --data released:PATH:ML --backbone fpmc --seeds 5 --out runs/ml-fpmc

The command trains teacher and student, selects sessions, replays the recorded LLM rankings, distills, and evaluates on
the test split. A run that was interrupted continues after its last finished stage. Options that would replace the
results of finished stages are listed and refused without `--overwrite`.

With `--teacher openai` a language model ranks the selected sessions. With `--model NAME --budget-usd 1.00` the command
calls it directly; a server on this machine, such as `--base-url ollama:`, needs no budget. Without `--model` the run
stops before the paid stage; `query_llm` then estimates the cost and calls the model, and repeating this command
continues the run.
"""

import sys
from typing import Any

from . import query_llm
from .pipeline import calls, distributed, exits
from .pipeline.command_line import parse
from .pipeline.console import cli_errors, console, print_line
from .pipeline.llm_files import UnansweredError
from .pipeline.profiles import profiling
from .pipeline.settings import Settings
from .pipeline.stages import Run, take_part
from .reporting import report, results


def run_pipeline(settings: Settings) -> dict[str, Any]:
    """Runs the unfinished stages, writes `metrics.json` and `report.html`, and prints the results.

    Args:
        settings: of the run.

    Returns:
        The content of `metrics.json`, as :func:`experiments.reporting.results.collect_results` returns it.
    """
    with profiling(settings.profile):
        return _run_pipeline(settings)


def _run_pipeline(settings: Settings) -> dict[str, Any]:
    run = Run.open(settings)
    run.stages_to_candidates()
    if settings.language_model is not None:
        query_llm.ask(settings.language_model)
    run.stages_from_rankings()
    run_results = results.collect_results(run)
    results.store_results(run, run_results)
    report.write_report(run, run_results)
    console.print(results.results_table(run_results))
    if warning := run.dataset.report.get("leak_warning"):
        print_line(f"warning: {warning}", style="yellow")
    print_line(f"{settings.out}/metrics.json, {settings.out}/report.html")
    return run_results


def main() -> None:
    """Runs the command."""

    def run(settings: Settings) -> None:
        try:
            run_pipeline(settings)
        except UnansweredError as stop:
            print(f"stopped before the paid stage: {calls.with_calls(str(stop))}", file=sys.stderr)
            sys.exit(exits.BAD_INPUT)

    with cli_errors():
        distributed.run(parse(Settings, "reproduce", __doc__), run, take_part)


if __name__ == "__main__":
    main()
