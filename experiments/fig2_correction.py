"""Figure 2b: what it is worth to correct the lists that miss the next item.

    python -m experiments.fig2_correction --data released:PATH:ML --backbone fpmc --seeds 5 --out runs/fig2_correction

Takes the options of `experiments.reproduce`; what a point shares with the first is not run again.
"""

import dataclasses
import pathlib

import tyro

from .pipeline.settings import Settings
from .reporting import sweeps
from .reporting.console import cli_errors

NAME = "fig2_correction"
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
POINTS = {f"{share:.0%}": {"correction": share} for share in SHARES}


def draw(base: Settings, *, start: pathlib.Path | None = None) -> None:
    """Runs all points and writes the figure into the base's folder; `start` as in `sweeps.sweep`."""
    numbers = sweeps.sweep(dataclasses.replace(base, methods="ALKDRec,RAD-BC"), POINTS, start=start)
    sweeps.write(
        base.out, NAME, numbers, along="share of missing lists corrected", methods=("Student", "RAD-BC", "ALKDRec")
    )


def main() -> None:
    """Entry point."""
    with cli_errors():
        draw(tyro.cli(Settings, description=__doc__))


if __name__ == "__main__":
    main()
