"""The whole ALKDRec pipeline on synthetic data: nothing to download, under three minutes on two cores.

    python -m experiments.quickstart --out runs/quickstart

It prints a table and writes `metrics.json` and `report.html`. The LLM is simulated: it reads titles and never targets.
"""

import pathlib

import tyro

from .pipeline.console import cli_errors
from .pipeline.settings import Settings
from .reproduce import run_pipeline


def main() -> None:
    """Runs the command."""

    def quickstart(out: pathlib.Path = pathlib.Path("runs/quickstart"), seeds: int = 3, accuracy: float = 0.9) -> None:
        """Runs the pipeline on synthetic data.

        Args:
            out: the run's folder.
            seeds: number of teachers and students to train, all in one program.
            accuracy: share of sessions that the simulated LLM ranks by title; it ranks the others at random.
        """
        run_pipeline(
            Settings(data="synthetic", backbone="fpmc", out=out, seeds=seeds, selection="own", accuracy=accuracy)
        )

    with cli_errors():
        tyro.cli(quickstart, description=__doc__)


if __name__ == "__main__":
    main()
