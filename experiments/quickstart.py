"""The whole of ALKDRec on the built-in world: nothing to download, under three minutes on two cores.

    python -m experiments.quickstart --out runs/quickstart

Ends with a printed table, `metrics.json` and `report.html`. The LLM is simulated: it reads titles, never targets.
"""

import pathlib

import tyro

from .pipeline.settings import Settings
from .reporting.console import cli_errors
from .reproduce import run_pipeline


def main() -> None:
    """Entry point."""

    def quickstart(out: pathlib.Path = pathlib.Path("runs/quickstart"), seeds: int = 3, accuracy: float = 0.9) -> None:
        """Runs the pipeline on the built-in world.

        Args:
            out: the run's folder.
            seeds: teachers and students trained, all in one program.
            accuracy: share of sessions that the simulated LLM answers faithfully.
        """
        run_pipeline(
            Settings(data="synthetic", backbone="fpmc", out=out, seeds=seeds, selection="own", accuracy=accuracy)
        )

    with cli_errors():
        tyro.cli(quickstart, description=__doc__)


if __name__ == "__main__":
    main()
