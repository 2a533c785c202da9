"""Figure 4: recall and NDCG by the number of sessions that the LLM ranks.

    python -m experiments.fig4_budget --data released:PATH:ML --backbone fpmc --seeds 5 --out runs/fig4_budget

The command has the options of `experiments.reproduce`, and `--budgets` lists the points; a point that the data are
too small for is left out. All points share the stages whose inputs are the same.
"""

from .reporting import figures


def main() -> None:
    """Runs the command."""
    figures.figure_command("fig4_budget", __doc__)


if __name__ == "__main__":
    main()
