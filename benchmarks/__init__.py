"""Measurements: `python -m benchmarks.NAME --json FILE`, one JSON line per measurement."""
