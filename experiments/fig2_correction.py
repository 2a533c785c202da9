"""Figure 2b: recall and NDCG by the share of corrected lists; a correction puts the missing next item first.

    python -m experiments.fig2_correction --data released:PATH:ML --backbone fpmc --seeds 5 --out runs/fig2_correction

The command has the options of `experiments.reproduce`, and `--corrections` lists the points; a point that the data
are too small for is left out. All points share the stages whose inputs are the same.
"""

from .reporting import figures


def main() -> None:
    """Runs the command."""
    figures.figure_command("fig2_correction", __doc__)


if __name__ == "__main__":
    main()
