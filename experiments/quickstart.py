"""The whole ALKDRec pipeline on synthetic data: nothing to download, 2 to 4 minutes on two cores.

    python -m experiments.quickstart --out runs/quickstart

It prints a table and writes `metrics.json`, `report.html` and the folder `figures`. The LLM is simulated: it reads
titles and never targets.
"""

import dataclasses
import pathlib

from alkd_jax.checks import check_count

from .pipeline import options
from .pipeline.command_line import parse
from .pipeline.console import cli_errors
from .pipeline.settings import Settings
from .reproduce import run_pipeline

METHODS = "short,Shuffled lists"
"""ALKDRec's sessions and random ones, and a control: the lists permuted among their sessions."""


def main() -> None:
    """Runs the command."""

    def quickstart(
        out: pathlib.Path = pathlib.Path("runs/quickstart"),
        seeds: options.Seeds = 3,
        accuracy: options.Accuracy = 0.9,
        data_seed: int = 0,
        overwrite: options.Overwrite = False,
    ) -> None:
        """Runs the pipeline on synthetic data.

        Args:
            out: the run's folder.
            data_seed: seed of the synthetic data.
        """
        check_count(0, **{"--data-seed": data_seed})
        data = f"synthetic:{data_seed}" if data_seed else "synthetic"
        settings = Settings(data=data, backbone="fpmc", out=out, seeds=seeds, selection="own", methods=METHODS)
        run_pipeline(dataclasses.replace(settings, accuracy=accuracy, overwrite=overwrite))

    with cli_errors():
        parse(quickstart, "quickstart", __doc__)


if __name__ == "__main__":
    main()
