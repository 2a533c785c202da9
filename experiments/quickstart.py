"""The whole ALKDRec pipeline on synthetic data: nothing to download, under three minutes on two cores.

    python -m experiments.quickstart --out runs/quickstart

It prints a table and writes `metrics.json` and `report.html`. The LLM is simulated: it reads titles and never targets.
"""

import dataclasses
import pathlib

import tyro

from .pipeline.console import cli_errors
from .pipeline.settings import Settings
from .reproduce import run_pipeline


def main() -> None:
    """Runs the command."""

    def quickstart(
        out: pathlib.Path = pathlib.Path("runs/quickstart"),
        seeds: int = 3,
        accuracy: float = 0.9,
        overwrite: bool = False,
    ) -> None:
        """Runs the pipeline on synthetic data.

        Args:
            out: the run's folder.
            seeds: number of teachers and students to train, all in one program.
            accuracy: share of sessions that the simulated LLM ranks by title; it ranks the others at random.
            overwrite: replace finished results that were made with other options or are damaged.
        """
        settings = Settings(data="synthetic", backbone="fpmc", out=out, seeds=seeds, selection="own")
        run_pipeline(dataclasses.replace(settings, accuracy=accuracy, overwrite=overwrite))

    with cli_errors():
        tyro.cli(quickstart, description=__doc__)


if __name__ == "__main__":
    main()
