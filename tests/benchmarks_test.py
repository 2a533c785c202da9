"""Every benchmark still runs, at toy size, and writes one JSON line a measurement."""

import importlib
import json
import pathlib

import pytest

from benchmarks import harness

NAMES = sorted(
    path.stem
    for path in (pathlib.Path(__file__).resolve().parents[1] / "benchmarks").glob("*.py")
    if path.stem not in ("__init__", "harness")
)


@pytest.mark.parametrize("name", NAMES)
def test_benchmark_runs(name, tmp_path):
    bench = harness.Bench(json=tmp_path / "out.jsonl", rounds=1, toy=True)
    importlib.import_module(f"benchmarks.{name}").main(bench)
    lines = [json.loads(line) for line in bench.json.read_text().splitlines()]
    assert lines
    for line in lines:
        assert line["name"] == name
        assert all(time > 0 for time in line["median_s"].values())


def test_ratios_are_taken_within_a_round(monkeypatch):
    times = iter([0.0, 0.0, 1.0, 2.0, 10.0, 30.0, 1.0, 4.0])
    monkeypatch.setattr(harness, "seconds", lambda work: next(times))
    found = harness.compare("x", {"old": None, "new": None}, harness.Bench(rounds=3))
    assert found["median_s"] == {"old": 1.0, "new": 4.0}
    assert found["ratio"]["new"]["median"] == 3.0
