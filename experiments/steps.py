"""Why our recall is not the published one: from the rules of the authors' code to ours, one rule at a time.

    python -m experiments.steps --data released:PATH:ML --backbone fpmc --seeds 16 --out runs/steps-ML-fpmc

The first point repeats the authors' code, and the test sessions decide when training stops. Each following point leaves
one rule; the last is the mode "clean". Every point is a run with all seeds in a folder of its own. The command has the
options of `experiments.reproduce` except `--mode` and `--methods`, and writes `steps.json` and `steps.md`.

A published number may be the best of several seeds; the table shows the expected best of `--best-of` seeds beside the
mean. A checkpoint of the authors, where there is one, is placed among our students.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from alkd_jax import evaluation
from alkd_jax.checks import check_count
from alkd_jax.data.readers import registry
from alkd_jax.data.readers.released_student import load_released_student
from alkd_jax.evaluation.seeds_and_sessions import spread
from alkd_jax.io import finite_or_none, to_json, write_texts
from alkd_jax.locks import locked

from .pipeline import distributed
from .pipeline.command_line import parse
from .pipeline.console import cli_errors, print_line, print_lines
from .pipeline.methods import parse_methods
from .pipeline.ranked_samples import stored_test_ranks
from .pipeline.rules import CLEAN, RELEASED, STOPPING, mode_of, rules_of
from .pipeline.settings import Settings
from .pipeline.stages import Run, take_part
from .reporting import step_rows
from .reporting.figure_options import shared_settings
from .reporting.published import published_by_method
from .reporting.tables import backbone_title
from .reproduce import run_pipeline

DROPPED: Mapping[str, tuple[str, ...]] = {
    "validation decides when training stops": (STOPPING,),
    "padding is no item": ("padding",),
    "no row is its own negative, nor are equal targets": ("loss",),
    "weights 3, 2, 1 for 5, 10, 10 positions": ("bands",),
    "lists without repeats and items of the session": ("lists",),
    "difficulty of the teacher, the game solved exactly": ("difficulty", "policy"),
}
"""What changes at a point, in the order of the points → the rules that it leaves."""

METRICS = ("recall@10", "ndcg@10")


@dataclasses.dataclass(frozen=True)
class Steps(Settings):
    """The options of the command.

    Attributes:
        method: the method whose recall is followed.
        best_of: number of seeds whose expected best is shown.
    """

    method: str = "ALKDRec"
    best_of: int = 5


def points(selection: str) -> dict[str, str]:
    """Returns what changes at a point → the mode of its run, from the authors' rules to "clean".

    Args:
        selection: "own", or "released", which difficulty and policy do not change.
    """
    rules = rules_of(f"{RELEASED},{STOPPING}")
    modes = {"rules of the authors' code, the test decides when training stops": mode_of(rules)}
    for change, dropped in DROPPED.items():
        rules -= set(dropped)
        modes[change] = mode_of(rules)
    if selection == "released":
        del modes[list(DROPPED)[-1]]
        modes[list(DROPPED)[-2]] = CLEAN
    return modes


def make_steps(args: Steps) -> dict[str, Any]:
    """Runs all points and writes the results.

    Returns:
        The content of `steps.json`: ``{"dataset", "backbone", "method", "seeds", "best_of", "published",
        "released_student", "points"}``. A point has "change", "mode", method → metric → values of the seeds in
        "methods", and, from the second on, "step" and "step_interval", the change of the method's recall@10 and its
        interval over seeds.

    Raises:
        ValueError: an option is out of range.
    """
    check_count(2, **{"--seeds": args.seeds, "--best-of": args.best_of})
    given = {"--mode": (args.mode, Settings.mode), "--methods": (args.methods, Settings.methods)}
    for option, (value, default) in given.items():
        if value != default:
            raise ValueError(f"{option} is {value}, which the points decide; expected no such option")
    if parse_methods(args.method) != (args.method,):
        raise ValueError(f"--method is {args.method}; expected one method, not a set of several")
    if args.model is not None:
        raise ValueError(f"--model is {args.model}; expected --rankings, since every point would ask it again")
    if args.best_of > args.seeds:
        raise ValueError(f"--best-of is {args.best_of}; expected at most --seeds, {args.seeds}")
    args.out.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    former: np.ndarray | None = None
    with locked(args.out):
        for number, (change, mode) in enumerate(points(args.resolved_selection).items()):
            print_line(f"{change}: --mode {mode}")
            fixed = {"mode": mode, "methods": args.method, "out": args.out / f"{number}-{mode}"}
            settings = shared_settings(args, fixed)
            methods = run_pipeline(settings)["methods"]
            ranks = stored_test_ranks(Run.reopen_finished(settings.out))[0][args.method]
            point: dict[str, Any] = {"change": change, "mode": mode, "methods": _values(methods, args.method)}
            if former is not None:
                step = spread(ranks, former)
                point |= {"step": step.difference, "step_interval": step.interval_seeds}
            found.append(point)
            former = ranks
        result = _about(args) | {"points": finite_or_none(found)}
        if distributed.leads():
            page = step_rows.page(result)
            write_texts({args.out / "steps.json": to_json(result), args.out / "steps.md": page})
            print_lines(page)
            print_line(f"{args.out}/steps.json, .md")
    return result


def _values(methods: Mapping[str, Any], followed: str) -> dict[str, Any]:
    """Returns method → metric → the values of the seeds, of the student and of the method that is followed."""
    metrics = (*METRICS, step_rows.RELEASED_NDCG)
    return {
        name: {metric: methods[name][metric]["values"] for metric in metrics if metric in methods[name]}
        for name in ("Student", followed)
    }


def _about(args: Steps) -> dict[str, Any]:
    """Returns what the steps are of, the published numbers, and the metrics of the authors' own student."""
    source = registry.parse_source(args.data)
    about: dict[str, Any] = {"dataset": source.name, "backbone": args.backbone, "method": args.method}
    about |= {"seeds": args.seeds, "best_of": args.best_of}
    published = published_by_method(source.name, backbone_title(args.backbone))
    about["published"] = {name: published[name] for name in ("Student", args.method) if name in published}
    if not args.is_released_data:
        return about | {"released_student": None}
    file = pathlib.Path(source.path) / "best_model" / f"{source.name}+{args.backbone.upper()}_S.pt"
    if not file.is_file():
        return about | {"released_student": None}
    model, params = load_released_student(file)
    values = evaluation.evaluate(model, params, registry.read(args.data).test, protocol="released").metrics
    return about | {"released_student": {metric: values[metric] for metric in (*METRICS, step_rows.RELEASED_NDCG)}}


def main() -> None:
    """Runs the command."""
    with cli_errors():
        distributed.run(parse(Steps, "steps", __doc__), make_steps, take_part)


if __name__ == "__main__":
    main()
