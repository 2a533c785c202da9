"""Everything of the paper: both tables for all data, and the four figures for each data set's FPMC.

    python -m experiments.all --data released:PATH:ML released:PATH:Games --seeds 5 --out runs/paper

What was finished before is not run again, so the command may be stopped and given once more at any time.
"""

import dataclasses

import tyro

from . import fig2_correction, fig2_width, fig3_ratios, fig4_budget
from .pipeline.sources import parse_source
from .reporting import tables
from .reporting.console import cli_errors, console

FIGURES = (fig2_width, fig2_correction, fig3_ratios, fig4_budget)


def main() -> None:
    """Entry point."""
    with cli_errors():
        asked = tyro.cli(tables.Tables, description=__doc__)
        for name, methods in (("table1", "table1,controls"), ("table2", "all")):
            rows = tables.make(asked, name, methods)
            console.print(tables.shown(rows), highlight=False, markup=False)
        for data in asked.data:
            for figure in FIGURES:
                table = asked.setting(data, "fpmc", "all")
                out = asked.out / f"{figure.NAME}-{parse_source(data).name}"
                start = table.out if table.out.exists() else None
                figure.draw(dataclasses.replace(table, out=out), start=start)


if __name__ == "__main__":
    main()
