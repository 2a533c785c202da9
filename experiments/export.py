"""Exports one student of a finished run to a folder for `experiments.serve`.

    python -m experiments.export --run runs/ml-fpmc --method ALKDRec --out student
    python -m experiments.export --model runs/beauty --dtype float16 --out student
    python -m experiments.export --run runs/ml-fpmc --out student --web

By default it exports the seed with the best validation metric. With `--web` the folder also has `student.html`, a page
that holds the student, its teacher and a counting method, and shows their lists for the titles that a reader picks.
"""

import dataclasses
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

import jax
import numpy as np

from alkd_jax.io import read_object, write_texts
from alkd_jax.models import Encoder, Params
from alkd_jax.serving import export, shipped_folder
from alkd_jax.types import Dataset

from .pipeline import calls, light_options, options
from .pipeline.command_line import parse
from .pipeline.console import cli_errors, print_line
from .pipeline.methods import METHODS, role_of, trained_methods
from .pipeline.rules import STOPPING
from .pipeline.run import RunContext
from .pipeline.single_run import SingleRun
from .pipeline.stage_records import checked_output
from .pipeline.teachers import TEACHERS
from .reporting import student_page
from .reporting.results import TIED_COUNT

_REPORT = "rankings.report.json"
_FORMER_PROTOCOL = "the last item, ranked among all items that are not in its session"


@dataclasses.dataclass(frozen=True)
class ExportSettings:
    """Options of the command.

    Attributes:
        out: folder to write; it must not exist, unless it may be overwritten.
        model: folder of a run of `train`, in place of one of `reproduce`.
        method: method of the student: Student, Teacher, or a distillation method of the run.
        seed_index: index of the seed, from 0; default the best on validation.
        list_length: number of items that the compiled forms return.
        web: write a web page, too, in which a reader picks titles and sees the lists; it needs no server.
        overwrite: replace a shipped student that is there, once the new one is whole.
    """

    out: pathlib.Path
    run: Annotated[pathlib.Path | None, light_options.RUN_FOLDER] = None
    model: pathlib.Path | None = None
    method: str = "ALKDRec"
    seed_index: int | None = None
    dtype: options.WeightsType = "float32"
    list_length: int = 100
    web: bool = False
    overwrite: bool = False


def export_run(args: ExportSettings) -> None:
    """Exports a student of a run.

    Raises:
        ValueError: the run is not in clean mode, it has no such method or seed, or the output folder exists.
    """
    if (args.run is None) == (args.model is None):
        raise ValueError(f"--run is {args.run} and --model {args.model}; expected one of them")
    shipped_folder.check_target(args.out, overwrite=args.overwrite)
    if args.run is None:
        export_trained(args, SingleRun.reopen(pathlib.Path(str(args.model))))
    else:
        export_method(args, RunContext.reopen(args.run, readonly=True))


def export_method(args: ExportSettings, run: RunContext) -> None:
    """Exports a student of a run of `reproduce`.

    Raises:
        ValueError: as of :func:`export_run`.
    """
    if "padding" in run.settings.rules:
        raise ValueError(
            f"mode of {args.run} is {run.settings.mode}, whose students read item 1 as padding; expected a run in "
            "clean mode"
        )
    if STOPPING in run.settings.rules:
        raise ValueError(f"mode of {args.run} is {run.settings.mode}, chosen on the test; expected a run in clean mode")
    method_folders = trained_methods(run.settings.method_names)
    if args.method not in method_folders:
        raise ValueError(f"--method is {args.method!r}; expected one of the run's: {', '.join(method_folders)}")
    method_folder = method_folders[args.method]
    best_metric = run.load_array(f"{method_folder}.history.npz", "best_metric")
    index = chosen_seed(args, best_metric)
    params = jax.tree.map(lambda leaf: leaf[index], run.params(method_folder))
    description = f"{args.method}, seed {index} (validation recall {best_metric[index]:.4f})"
    model = run.model(role_of(args.method))
    card = model_card(run, args.method, f"{args.method}, seed {index}", index)
    others = [] if args.method == "Teacher" else [teacher_of(run)]
    pages = web_pages(args, f"{args.method}, seed {index}", model, params, run.dataset, others)
    export_options = {"dtype": args.dtype, "list_length": args.list_length, "overwrite": args.overwrite, "card": card}
    write_student(args.out, description, model, params, run.dataset, pages=pages, **export_options)


def web_pages(
    args: ExportSettings,
    name: str,
    model: Encoder,
    params: Params,
    dataset: Dataset,
    others: Sequence[student_page.Other],
) -> dict[str, str]:
    """Returns the web page of a student, if one was asked for, as file name → content.

    Raises:
        ValueError: the page cannot score the student, or it would be too large.
    """
    if not args.web:
        return {}
    student = export.recommender(model, params, dataset, dtype=args.dtype)
    return {student_page.FILE: student_page.student_page(name, student, others, dataset)}


def teacher_of(run: RunContext) -> student_page.Other:
    """Returns the recommender teacher of a run's first seed, whose lists the LLM was shown, for a page."""
    teacher = run.model("teacher")
    return "Recommender teacher", lambda: export.recommender(teacher, run.first_params("teacher"), run.dataset)


def export_trained(args: ExportSettings, run: SingleRun) -> None:
    """Exports a model of a run of `train`.

    Raises:
        ValueError: as of :func:`export_run`.
    """
    index = chosen_seed(args, run.history("fitted", "best_metric"))
    params = jax.tree.map(lambda leaf: leaf[index], run.params())
    export_options = {"dtype": args.dtype, "list_length": args.list_length, "overwrite": args.overwrite}
    title = run.title(index)
    pages = web_pages(args, title, run.model, params, run.dataset, [])
    student = run.model, params, run.dataset
    write_student(args.out, title, *student, pages=pages, card=export.Card(title), **export_options)


def chosen_seed(args: ExportSettings, best_metric: np.ndarray) -> int:
    """Returns the seed that was named, or the best one on validation.

    Raises:
        ValueError: there is no such seed.
    """
    index = int(best_metric.argmax()) if args.seed_index is None else args.seed_index
    if not 0 <= index < len(best_metric):
        raise ValueError(f"--seed-index is {index}; expected 0..{len(best_metric) - 1}")
    return index


def model_card(run: RunContext, method: str, name: str, index: int) -> export.Card:
    """Returns what the model card says of a run's student.

    Args:
        run: the run.
        method: of the student.
        name: the student in words.
        index: its seed, from 0.
    """
    numbers: dict[str, float] = {}
    protocol = ""
    if (run.folder.path / "metrics.json").exists():
        results = read_object(checked_output(run.folder.path, "metrics.json"))
        columns = results["methods"].get(method, {})
        numbers = {name: column["values"][index] for name, column in columns.items() if name != TIED_COUNT}
        # Runs of earlier versions had one protocol and did not name it.
        name_of_protocol = results.get("protocol", {}).get("name", _FORMER_PROTOCOL)
        protocol = f"On {len(run.dataset.test):,} test sessions, this seed alone: {name_of_protocol}."
        if TIED_COUNT in columns:
            protocol += f" Targets that share their score with another item: {columns[TIED_COUNT]['values'][index]:,}."
    return export.Card(name, protocol if numbers else "", numbers, language_model(run, method))


def language_model(run: RunContext, method: str) -> dict[str, str]:
    """Returns what is known of the language model whose lists a method learned; empty where none was asked."""
    if method not in METHODS or not METHODS.find(method).is_paid:
        return {}
    if not (run.folder.path / _REPORT).exists():
        return {"model": f"not known: the run has no {_REPORT}"}
    report = read_object(checked_output(run.folder.path, _REPORT))
    asks_llm = TEACHERS.find(report["teacher"]).asks_llm
    if asks_llm is None:
        return {"teacher": report["teacher"], "model": "not known: a teacher of one's own"}
    if not asks_llm:
        return {}
    recorded = "recorded by others; not known here"
    statuses = ", ".join(f"{count} {status}" for status, count in sorted(report.get("statuses", {}).items()))
    return {
        "model": report.get("model", recorded),
        "SHA-256 of the prompt's template": report.get("prompt_sha256", recorded),
        "cost": report.get("cost", recorded),
        "sessions asked": f"{report['asked']:,}",
        "answers": statuses or recorded,
        "sessions without a usable list": f"{len(report['missing']):,}",
    }


def write_student(
    out: pathlib.Path, description: str, *student: Any, pages: Mapping[str, str] = MappingProxyType({}), **options: Any
) -> None:
    """Exports a student and prints how to serve it.

    Args:
        out: folder to write.
        description: the student, in words, for the printed line.
        *student: model, parameters and dataset, as of `alkd.export.save`.
        pages: name → content of further files.
        **options: options of `alkd.export.save`.
    """
    with warnings.catch_warnings(record=True) as caught_warnings:
        warnings.simplefilter("always")
        export.save(out, *student, **options)
    write_texts({out / name: page for name, page in pages.items()})
    for warning in caught_warnings:
        print_line(str(warning.message), style="yellow")
    print_line(f"{description} in {out}; serve it with")
    print_line(f"{calls.call_of('serve')} --model {out} --port 8000")
    for name in pages:
        print_line(f"or open {out / name} in a browser, which needs no server")


def main() -> None:
    """Entry point."""
    with cli_errors():
        export_run(parse(ExportSettings, "export", __doc__))


if __name__ == "__main__":
    main()
