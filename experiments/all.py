"""All tables and figures of the paper: both tables for all datasets, and the four figures for FPMC on each dataset.

    python -m experiments.all --data released:PATH:ML released:PATH:Games --seeds 5 --out runs/paper

Finished stages do not run again, so the command may be interrupted and repeated at any time.
"""

import dataclasses

from .pipeline import distributed, stages
from .pipeline.command_line import parse
from .pipeline.console import cli_errors, print_lines
from .reporting import figures, tables
from .reporting.figure_options import options_from

METHODS_OF_TABLE = {"table1": "table1,controls", "table2": "all"}
"""Table → its methods: more than the table's own command compares, so that all results come from the same runs."""


def make_all(args: tables.TableArgs) -> None:
    """Makes all tables and figures."""
    for name, methods in METHODS_OF_TABLE.items():
        print_lines(tables.as_text(tables.make_table(args, name, methods)))
    for data in args.data:
        for name in figures.SWEEPS:
            base = args.run_settings(data, "fpmc", "all")
            out = args.out / f"{name}-{args.data_name(data)}"
            start = base.out if base.out.exists() else None
            options = options_from(figures.SWEEPS[name].options, dataclasses.replace(base, out=out))
            figures.make_figure(name, options, start=start)


def main() -> None:
    """Runs the command."""
    with cli_errors():
        distributed.run(parse(tables.TableArgs, "all", __doc__), make_all, stages.take_part)


if __name__ == "__main__":
    main()
