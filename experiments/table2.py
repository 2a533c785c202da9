"""Table 2: the session selections, the teacher's own lists, and controls that the paper does not have.

    python -m experiments.table2 --data released:PATH:ML released:PATH:Games --seeds 5 --out runs/paper

Every dataset and backbone has a run's folder, which the other tables use too; finished stages do not run again.
"""

from .reporting import tables


def main() -> None:
    """Runs the command."""
    tables.table_command("table2", __doc__)


if __name__ == "__main__":
    main()
