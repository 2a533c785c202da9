"""Figure 4: how many sessions to ask about.

    python -m experiments.fig4_budget --data released:PATH:ML --backbone fpmc --seeds 5 --out runs/fig4_budget

Takes the options of `experiments.reproduce`; what a point shares with the first is not run again.
"""

import dataclasses
import pathlib

import tyro

from .pipeline.settings import Settings
from .reporting import sweeps
from .reporting.console import cli_errors

NAME = "fig4_budget"
BUDGETS = (50, 100, 250, 500, 750, 1000, 2000)
POINTS = {str(budget): {"budget": budget} for budget in BUDGETS}


def draw(base: Settings, *, start: pathlib.Path | None = None) -> None:
    """Runs all points and writes the figure into the base's folder; `start` as in `sweeps.sweep`."""
    numbers = sweeps.sweep(dataclasses.replace(base, methods="short", selection="own"), POINTS, start=start)
    sweeps.write(base.out, NAME, numbers, along="sessions asked about", methods=("Student", "Random", "ALKDRec"))


def main() -> None:
    """Entry point."""
    with cli_errors():
        draw(tyro.cli(Settings, description=__doc__))


if __name__ == "__main__":
    main()
