"""Table 2: how the sessions are chosen, the teacher's own lists, and the controls that the paper lacks.

    python -m experiments.table2 --data released:PATH:ML released:PATH:Games --seeds 5 --out runs/paper

Every dataset and backbone is a run's folder of its own, shared with the other tables and taken up where it was left.
"""

import tyro

from .reporting import tables
from .reporting.console import cli_errors, console


def main() -> None:
    """Entry point."""
    with cli_errors():
        asked = tyro.cli(tables.Tables, description=__doc__)
        rows = tables.make(asked, "table2", "table2,controls")
        console.print(tables.shown(rows), highlight=False, markup=False)
        console.print(f"{asked.out}/table2.md, .csv, .tex, .json", highlight=False, markup=False)


if __name__ == "__main__":
    main()
