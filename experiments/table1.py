"""Table 1: the distillation baselines, ALKDRec and the training-free recommenders on every dataset and backbone.

    python -m experiments.table1 --data released:PATH:ML released:PATH:Games --seeds 5 --out runs/paper

Every dataset and backbone is a run's folder of its own, shared with the other tables and taken up where it was left.
"""

import tyro

from .reporting import tables
from .reporting.console import cli_errors, console


def main() -> None:
    """Entry point."""
    with cli_errors():
        asked = tyro.cli(tables.Tables, description=__doc__)
        rows = tables.make(asked, "table1", "table1")
        console.print(tables.shown(rows), highlight=False, markup=False)
        console.print(f"{asked.out}/table1.md, .csv, .tex, .json", highlight=False, markup=False)


if __name__ == "__main__":
    main()
