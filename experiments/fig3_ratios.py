"""Figure 3: what the game reckons with, effective : similar : incorrect answers.

    python -m experiments.fig3_ratios --data released:PATH:ML --backbone fpmc --seeds 5 --out runs/fig3_ratios

Takes the options of `experiments.reproduce`; what a point shares with the first is not run again.
"""

import dataclasses
import pathlib

import tyro

from .pipeline.settings import Settings
from .reporting import sweeps
from .reporting.console import cli_errors

NAME = "fig3_ratios"
RATIOS = ((1, 5, 4), (1, 4, 5), (1, 6, 3), (1, 7, 2), (2, 5, 3), (3, 5, 2), (4, 5, 1))
"""All of games that can be won; with more incorrect answers the best policy asks about one session, the easiest."""

POINTS = {":".join(map(str, ratios)): {"ratios": ratios} for ratios in RATIOS}


def draw(base: Settings, *, start: pathlib.Path | None = None) -> None:
    """Runs all points and writes the figure into the base's folder; `start` as in `sweeps.sweep`."""
    numbers = sweeps.sweep(dataclasses.replace(base, methods="ALKDRec", selection="own"), POINTS, start=start)
    along = "effective : similar : incorrect"
    sweeps.write(base.out, NAME, numbers, along=along, methods=("Student", "ALKDRec"), ordered=False)


def main() -> None:
    """Entry point."""
    with cli_errors():
        draw(tyro.cli(Settings, description=__doc__))


if __name__ == "__main__":
    main()
