"""Figure 2a: what the student's width does to it.

    python -m experiments.fig2_width --data released:PATH:ML --backbone fpmc --seeds 5 --out runs/fig2_width

Takes the options of `experiments.reproduce`; what a point shares with the first is not run again.
"""

import dataclasses
import pathlib

import tyro

from .pipeline.settings import Settings
from .reporting import sweeps
from .reporting.console import cli_errors

NAME = "fig2_width"
WIDTHS = (10, 20, 40, 60, 80, 100)
POINTS = {str(width): {"student_dim": width} for width in WIDTHS}


def draw(base: Settings, *, start: pathlib.Path | None = None) -> None:
    """Runs all points and writes the figure into the base's folder; `start` as in `sweeps.sweep`."""
    numbers = sweeps.sweep(dataclasses.replace(base, methods="ALKDRec"), POINTS, start=start)
    sweeps.write(base.out, NAME, numbers, along="width of the student", methods=("Teacher", "Student", "ALKDRec"))


def main() -> None:
    """Entry point."""
    with cli_errors():
        draw(tyro.cli(Settings, description=__doc__))


if __name__ == "__main__":
    main()
