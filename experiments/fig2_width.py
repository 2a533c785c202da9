"""Figure 2a: recall and NDCG by the width of the student.

    python -m experiments.fig2_width --data released:PATH:ML --backbone fpmc --seeds 5 --out runs/fig2_width

The command has the options of `experiments.reproduce`, and `--widths` lists the points; a point that the data are too
small for is left out. All points share the stages whose inputs are the same.
"""

from .reporting import figures


def main() -> None:
    """Runs the command."""
    figures.figure_command("fig2_width", __doc__)


if __name__ == "__main__":
    main()
