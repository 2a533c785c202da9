"""Chooses the methods' options for a run, every method with the same number of trials, on validation recall@10.

    python -m experiments.tune --run runs/ml-fpmc --methods table1 --trials 8

Options are drawn from the grids below without repeats, in an order that the run's seed decides; the authors' defaults
are tried first. What is chosen goes into the run's `tuning.json` with every trial, and `experiments.reproduce` trains
with it. A tuned method is not tuned again. `experiments.table1 --trials 8` does all of this for every run of a table.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tyro

from alkd_jax import evaluation
from alkd_jax.io import read_json, write_json

from .pipeline import distill_methods
from .pipeline.methods import BASELINES, TUNED, parse_methods, role_of
from .pipeline.stages import Run
from .reporting.console import cli_errors, console, training_bar

GRIDS: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "DE": {"weight": (0.01, 0.001, 0.005, 0.05, 0.1), "num_experts": (30, 5, 10, 20)},
    "FTD": {"weight": (0.001, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-2)},
    "HTD": {"weight": (0.001, 1e-4, 3e-4, 3e-3, 1e-2), "topology": (0.5, 0.1, 0.9), "num_groups": (30, 10, 20)},
    "unKD": {"weight": (1.0, 0.1, 0.5, 2.0), "num_groups": (4, 2)},
    "DSL": {"density": (0.1,), "every": (100, 50, 200), "initial_ratio": (0.5, 0.3, 0.7)},
    "DLLM2Rec": {"weight": (0.8, 0.1, 0.3, 2.0), "length": (10, 25)},
    "RD": {"weight": (1.0, 0.1, 0.3, 3.0), "length": (10, 25)},
    TUNED: {"rate": (1.0, 0.3, 3.0), "bounds": ((5, 15, 25), (10, 25), (25,))},
}
"""Option → values, the default first; `distilling.fine_tuned` tells ALKDRec's."""


@dataclasses.dataclass(frozen=True)
class Tuning:
    """What is to be tuned.

    Attributes:
        run: folder of a run with teacher and student.
        methods: names as in `experiments.reproduce --methods`; those without a grid are passed over.
        trials: option sets tried a method.
        seeds: students trained a trial.
        max_steps: training steps at most, a trial.
    """

    run: pathlib.Path
    methods: str = "table1"
    trials: int = 8
    seeds: int = 2
    max_steps: int = 2_000


def draws(grid: Mapping[str, Sequence[Any]], trials: int, *, seed: int) -> list[dict[str, Any]]:
    """Distinct option sets of a grid, the defaults first; all of it where it has no more.

    Raises:
        ValueError: trials is below 1.
    """
    if trials < 1:
        raise ValueError(f"--trials is {trials}; expected at least 1")
    every = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    order = np.random.default_rng(seed).permutation(np.arange(1, len(every)))[: trials - 1]
    return [every[0], *(every[number] for number in order)]


def tune(asked: Tuning) -> dict[str, Any]:
    """Tries what has not been tried, and writes `tuning.json` after every method.

    Returns:
        Method → {"chosen": options, "trials": [{"options", "recall@10"}], "seeds", "max_steps"}.
    """
    run = Run.reopen(asked.run)
    file = asked.run / "tuning.json"
    found: dict[str, Any] = read_json(file) if file.exists() else {}
    for method in (name for name in parse_methods(asked.methods) if name in GRIDS):
        if method not in found:
            found[method] = tuned_settings(run, asked, method)
            write_json(file, found)
        trials = found[method]["trials"]
        reached = f"{max(trial['recall@10'] for trial in trials):.4f} (defaults {trials[0]['recall@10']:.4f})"
        told = f"{method}: {found[method]['chosen']}, validation recall@10 {reached}, {len(trials)} trials"
        console.print(told, highlight=False, markup=False)
    return found


def tuned_settings(run: Run, asked: Tuning, method: str) -> dict[str, Any]:
    """Tries a method's option sets; the first of the best is chosen.

    A trial is trained as the run would train it, and stops as that does: recall@10 alone is too coarse to stop by.
    """
    lists = distill_methods.lists_of(run, method)
    train = distill_methods.from_scratch if method in BASELINES else distill_methods.fine_tuned
    fixed = {"seeds": min(asked.seeds, run.settings.seeds), "max_steps": asked.max_steps}
    trials: list[dict[str, Any]] = []
    for number, options in enumerate(draws(GRIDS[method], asked.trials, seed=run.settings.seed)):
        with training_bar(f"{method}, trial {number + 1}: {options}") as bar:
            fitted = train(run, method, lists, fixed | {"progress": bar}, tuned=options)
        model, sessions = run.model(role_of(method)), run.dataset.validation
        outs = evaluation.evaluate_seeds(model, fitted.params, sessions, protocol=run.settings.mode)
        trials.append({"options": options, "recall@10": float(np.mean([out.metrics["recall@10"] for out in outs]))})
    best = max(trials, key=lambda trial: trial["recall@10"])
    return {"chosen": best["options"], "trials": trials, "seeds": fixed["seeds"], "max_steps": asked.max_steps}


def main() -> None:
    """Entry point."""
    with cli_errors():
        tune(tyro.cli(Tuning, description=__doc__))


if __name__ == "__main__":
    main()
