"""Table 1: the distillation baselines, ALKDRec and the training-free recommenders on every dataset and backbone.

    python -m experiments.table1 --data released:PATH:ML released:PATH:Games --seeds 5 --out runs/paper

Every dataset and backbone has a run's folder, which the other tables use too; finished stages do not run again.
"""

from .reporting import tables


def main() -> None:
    """Runs the command."""
    tables.table_command("table1", __doc__)


if __name__ == "__main__":
    main()
