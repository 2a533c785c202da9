"""Measurements: `python -m benchmarks.NAME --json FILE`, one JSON line a measurement."""
