"""One command a hop, table or figure: `python -m experiments.NAME`."""
