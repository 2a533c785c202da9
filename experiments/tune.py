"""Chooses the baselines' options for a run, every method with the same number of trials, on validation recall@10.

    python -m experiments.tune --run runs/ml-fpmc --methods table1 --trials 8

Options are drawn from the grids below without repeats, in an order that the run's seed decides; the authors' defaults
are tried first. What is chosen goes into the run's `tuning.json` with every trial, and `experiments.reproduce` trains
with it. A tuned method is not tuned again.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tyro

from experiments import distilling
from experiments.console import console, told_in_one_line, training_bar
from experiments.methods import BASELINES, parse_methods
from experiments.pipeline import Run
from experiments.run_folder import read_json, write_json

GRIDS: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "DE": {"weight": (0.01, 0.001, 0.005, 0.05, 0.1), "num_experts": (30, 5, 10, 20)},
    "FTD": {"weight": (0.001, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-2)},
    "HTD": {"weight": (0.001, 1e-4, 3e-4, 3e-3, 1e-2), "topology": (0.5, 0.1, 0.9), "num_groups": (30, 10, 20)},
    "unKD": {"weight": (1.0, 0.1, 0.5, 2.0), "num_groups": (4, 2)},
    "DSL": {"density": (0.1,), "every": (100, 50, 200), "initial_ratio": (0.5, 0.3, 0.7)},
    "DLLM2Rec": {"weight": (0.8, 0.1, 0.3, 2.0), "length": (10, 25)},
    "RD": {"weight": (1.0, 0.1, 0.3, 3.0), "length": (10, 25)},
}
"""Option → values, the default first."""


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
    for method in (m for m in parse_methods(asked.methods) if m in BASELINES and m not in found):
        trials = []
        for number, options in enumerate(draws(GRIDS[method], asked.trials, seed=run.settings.seed)):
            with training_bar(f"{method}, trial {number + 1}: {options}") as bar:
                fitted = distilling.from_scratch(
                    run,
                    method,
                    {"seeds": asked.seeds, "max_steps": asked.max_steps, "recall_at": 10, "progress": bar},
                    tuned=options,
                )
            trials.append({"options": options, "recall@10": float(np.mean(fitted.best_metric))})
        best = max(trials, key=lambda trial: (trial["recall@10"], -trials.index(trial)))
        found[method] = {
            "chosen": best["options"],
            "trials": trials,
            "seeds": asked.seeds,
            "max_steps": asked.max_steps,
        }
        write_json(file, found)
        reached = f"{best['recall@10']:.4f} (defaults {trials[0]['recall@10']:.4f})"
        told = f"{method}: {best['options']}, validation recall@10 {reached}"
        console.print(told, highlight=False, markup=False)
    return found


def main() -> None:
    """Entry point."""
    with told_in_one_line():
        tune(tyro.cli(Tuning, description=__doc__))


if __name__ == "__main__":
    main()
