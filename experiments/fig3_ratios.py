"""Figure 3: recall and NDCG by the ratio effective : similar : incorrect answers that the game assumes.

    python -m experiments.fig3_ratios --data released:PATH:ML --backbone fpmc --seeds 5 --out runs/fig3_ratios

The command has the options of `experiments.reproduce`, and `--ratios` lists the points; a point that the data are too
small for is left out. All points share the stages whose inputs are the same.
"""

from .reporting import figures


def main() -> None:
    """Runs the command."""
    figures.figure_command("fig3_ratios", __doc__)


if __name__ == "__main__":
    main()
