"""Tunes the methods' options for a run by validation recall@10, with the same number of trials for every method.

    python -m experiments.tune --run runs/ml-fpmc --methods table1 --trials 8

Options are sampled from grids without replacement, in an order that the run's seed decides; the authors' defaults come
first. All trials and the options chosen are stored in the run's `tuning.json`, and `reproduce` trains with
them. A tuned method is not tuned again. `table1 --trials 8` tunes and trains every run of a table.

    python -m experiments.tune --run runs/ml-stamp --options-of runs/ml-fpmc/metrics.json

This form takes over the options that were chosen for another run, and tunes nothing.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from alkd_jax import evaluation
from alkd_jax.checks import check_at_least
from alkd_jax.io import read_json, write_json

from .pipeline import light_options, options
from .pipeline.command_line import parse
from .pipeline.console import cli_errors, print_line, training_bar
from .pipeline.methods import METHODS, lists_for, parse_methods, role_of, train_students
from .pipeline.settings import Methods
from .pipeline.stages import Run
from .pipeline.tuning_file import TUNING_FILE, check_options, read_tuning


@dataclasses.dataclass(frozen=True)
class Tuning:
    """Options of the command.

    Attributes:
        seeds: number of students trained for each trial.
        max_steps: largest number of training steps of a trial.
        options_of: results of another run, its metrics.json or a file of experiments/results; the options chosen for it
            are taken over, and nothing is tuned.
    """

    run: light_options.RunFolder
    methods: Methods = "table1"
    trials: options.Trials = 8
    seeds: int = 2
    max_steps: int = 2_000
    options_of: pathlib.Path | None = None


def sample_options(grid: Mapping[str, Sequence[Any]], trials: int, *, seed: int) -> list[dict[str, Any]]:
    """Samples points of a grid without replacement, after its first point, the defaults.

    Args:
        grid: option → values.
        trials: number of points, at least 1; a smaller grid is returned whole.
        seed: seed of the sample.

    Raises:
        ValueError: ``trials`` is below 1.
    """
    check_at_least(1, **{"--trials": trials})
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    order = np.random.default_rng(seed).permutation(np.arange(1, len(points)))[: trials - 1]
    return [points[0], *(points[number] for number in order)]


def tune(args: Tuning) -> dict[str, Any]:
    """Tunes the methods that are not tuned yet, and writes `tuning.json` after each.

    Returns:
        Method → {"chosen": options, "trials": [{"options", "recall@10"}], "seeds", "max_steps"}, or {"chosen", "from"}
        with the dataset and backbone that the options were chosen for.
    """
    run = Run.reopen(args.run)
    file, results = args.run / TUNING_FILE, read_tuning(args.run)
    for method in (name for name in parse_methods(args.methods) if METHODS.find(name).grid):
        if method not in results:
            adopted = args.options_of
            results[method] = adopted_settings(adopted, method) if adopted else tuned_settings(run, args, method)
            write_json(file, results)
        if "from" in results[method]:
            print_line(f"{method}: {results[method]['chosen']}, as chosen for {results[method]['from']}")
            continue
        trials = results[method]["trials"]
        recall = f"{max(trial['recall@10'] for trial in trials):.4f} (defaults {trials[0]['recall@10']:.4f})"
        print_line(f"{method}: {results[method]['chosen']}, validation recall@10 {recall}, {len(trials)} trials")
    return results


def adopted_settings(file: pathlib.Path, method: str) -> dict[str, Any]:
    """Returns the options that were chosen for a method of another run.

    Args:
        file: results of that run.
        method: the method.

    Raises:
        ValueError: the file holds no options of the method, or some that the method does not have.
    """
    results, grid = read_json(file), METHODS.find(method).grid
    match results:
        case {"dataset": str(dataset), "backbone": str(backbone), "tuned": {**tuned}}:
            match tuned.get(method):
                case {"chosen": {**chosen}, **rest} if chosen.keys() <= grid.keys():
                    check_options(f"{file}: {method}", method, chosen)
                    return {"chosen": chosen, "from": rest.get("from", f"{dataset} {backbone}")}
    raise ValueError(f"{file} holds no chosen options of {method}; expected results with some of {', '.join(grid)}")


def tuned_settings(run: Run, args: Tuning, method: str) -> dict[str, Any]:
    """Tunes one method; of several best trials the first is chosen.

    A trial is trained with the same early stopping as the run: recall@10 alone is too coarse to decide when to stop.

    Args:
        run: the run.
        args: options of the command.
        method: the method.
    """
    rankings = lists_for(run, method)
    fit_options = {"seeds": min(args.seeds, run.settings.seeds), "max_steps": args.max_steps}
    trials: list[dict[str, Any]] = []
    for number, tried in enumerate(sample_options(METHODS[method].grid, args.trials, seed=run.settings.seed)):
        with training_bar(f"{method}, trial {number + 1}: {tried}") as bar:
            fitted = train_students(run, method, rankings, tuned=tried, progress=bar, **fit_options)
        model, sessions = run.model(role_of(method)), run.dataset.validation
        options = {"protocol": run.settings.protocol.rules, "lists": False}
        outs = evaluation.evaluate_seeds(model, fitted.params, sessions, **options)
        trials.append({"options": tried, "recall@10": float(np.mean([out.metrics["recall@10"] for out in outs]))})
    best = max(trials, key=lambda trial: trial["recall@10"])
    return {"chosen": best["options"], "trials": trials, "seeds": fit_options["seeds"], "max_steps": args.max_steps}


def main() -> None:
    """Runs the command."""
    with cli_errors():
        tune(parse(Tuning, "tune", __doc__))


if __name__ == "__main__":
    main()
