"""The report of a run, one self-contained page: what the run says, its results, tests, figures, examples, and a section
in which a reader picks titles.
"""

import functools
from collections.abc import Mapping
from typing import Any

import markupsafe

from alkd_jax.io import to_json, write_texts
from alkd_jax.serving import export
from alkd_jax.serving.recommender import Recommender

from ..pipeline.methods import CONTROLS, trained_methods
from ..pipeline.stages import Run
from ..pipeline.training_free import TRAINING_FREE
from . import (
    answers,
    beyond_accuracy,
    comparisons,
    demo_seeds,
    example_sessions,
    glossary,
    report_figures,
    run_facts,
    student_page,
    teacher_quality,
)
from .pages import render_page
from .played_models import Playground
from .results import COLUMNS, format_cell, format_tied, tuning_lines
from .shown_names import shown_difference, shown_name

PLAYED = (("ALKDRec", "Student after ALKDRec"), ("Student", "Student before distillation"))
"""Methods whose students a reader can play with, and what a page calls them."""


def write_report(run: Run, results: Mapping[str, Any]) -> None:
    """Writes `report.html`, `teacher_quality.json` and the folder `figures` into the run's folder.

    Args:
        run: a finished run.
        results: as :func:`experiments.reporting.results.collect_results` returns them.
    """
    quality = teacher_quality.measure_quality(run)
    folder = run.folder.path
    figures = {
        "methods": report_figures.plot_methods(results["methods"], lists=results["lists"]),
        "learning_curves": report_figures.plot_curves(run),
        "selected_sessions": report_figures.plot_selected_sessions(run),
    }
    svg = {name: markupsafe.Markup(text) for name, text in report_figures.save_figures(folder, figures).items()}
    counts = teacher_quality.count_sentence(quality)
    examples = example_sessions.example_sessions(run)
    play = playground(run)
    page = render_page(
        "report.html.jinja",
        **opening(run, results, quality),
        **result_tables(results),
        play=play if isinstance(play, Playground) else None,
        play_note=play if isinstance(play, str) else student_page.play_note(run.dataset.train.items.shape[1]),
        seed_headings=demo_seeds.HEADINGS,
        seed_rows=demo_seeds.rows_beside(run.settings, results),
        figures=svg,
        selection_caption=report_figures.selection_caption(run, counts),
        teacher_rows=teacher_quality.quality_rows(quality),
        examples=examples,
        example_rule=example_sessions.rule_of(run, shown=len(examples)),
        stages=[(name, f"{record['seconds']:.1f}") for name, record in run.folder.finished_stages.items()],
        command=run_facts.command_of(run.settings),
        options=run_facts.option_rows(run.settings),
        fingerprint=run.dataset.fingerprint,
        written=run_facts.written_at(),
        versions=run_facts.versions(),
        terms=glossary.TERMS,
        key_of=glossary.key_of,
    )
    write_texts({folder / "report.html": page, folder / "teacher_quality.json": to_json(quality)})


def opening(run: Run, results: Mapping[str, Any], quality: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what stands at the beginning of a report: title, data, warning, and what the run says."""
    return {
        "title": f"ALKDRec on {results['dataset']}: {results['backbone']}; {results['lists']}",
        "lists": results["lists"],
        "num_train": f"{len(run.dataset.train):,}",
        "num_test": f"{len(run.dataset.test):,}",
        "num_items": f"{run.dataset.num_items:,}",
        "budget": f"{run.settings.resolved_budget:,}",
        "summary": (
            f"{len(run.dataset.train):,} training, {len(run.dataset.validation):,} validation and "
            f"{len(run.dataset.test):,} test sessions over {run.dataset.num_items:,} items; {results['seeds']} seeds; "
            f"{results['mode']} mode; {results['protocol']['name']}; {run.settings.resolved_selection} selection of "
            f"{run.settings.resolved_budget:,} sessions for each method; {results['lists']}."
        ),
        "warning": run.dataset.report.get("leak_warning", ""),
        "answers": answers.answers(results, quality),
    }


def result_tables(results: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the tables of results and of tests, in the names of a report."""
    headings, differences = comparisons.difference_rows(results["tests"], list(results["methods"]))
    kinds = dict.fromkeys(CONTROLS, "control") | dict.fromkeys(TRAINING_FREE, "training-free") | {"ALKDRec": "own"}
    return {
        "columns": ("method", *COLUMNS, "tied targets"),
        "rows": [
            [shown_name(name), *(format_cell(values[c]) for c in COLUMNS), format_tied(values)]
            for name, values in results["methods"].items()
        ],
        "kinds": [kinds.get(name, "") for name in results["methods"]],
        "protocol": results["protocol"]["name"],
        "group_headings": ("method", *results["groups"]),
        "group_rows": [
            ["queries", *(f"{part['queries']:,}" for part in results["groups"].values())],
            *(
                [shown_name(name), *(f"{part['recall@10'][name]:.4f}" for part in results["groups"].values())]
                for name in results["methods"]
            ),
        ],
        "beyond_headings": beyond_accuracy.HEADINGS,
        "beyond_rows": [
            [shown_name(name), *cells] for name, *cells in beyond_accuracy.beyond_accuracy_rows(results["methods"])
        ],
        "beyond_note": beyond_accuracy.NOTE,
        "tuned": tuning_lines(results),
        "difference_headings": ("method", *headings),
        "differences": [[shown_name(name), *cells] for name, *cells in differences],
        "difference_legend": comparisons.legend(results["tests"]),
        "test_headings": comparisons.FULL_HEADINGS,
        "tests": [[shown_difference(name), *cells] for name, *cells in comparisons.full_rows(results["tests"])],
    }


def playground(run: Run) -> Playground | str:
    """Returns the models of the first seed that a reader can play with, or why there are none."""
    if "padding" in run.settings.rules:
        return "This section is left out in released mode, whose models read item 1 as padding."
    paths = trained_methods(run.settings.method_names)

    def made(path: str) -> Recommender:
        return export.recommender(run.model_for(path), run.first_params(path), run.dataset)

    students = [(name, functools.partial(made, paths[method])) for method, name in PLAYED if method in paths]
    teacher = ("Recommender teacher", functools.partial(made, "teacher"))
    try:
        return student_page.playground(students, [teacher], run.dataset)
    except ValueError as error:
        return f"This section is left out: {error}."
