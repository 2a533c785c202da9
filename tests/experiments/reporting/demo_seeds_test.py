"""The demo on other data stands beside a run with the same options, and beside no other."""

import dataclasses
import pathlib

from experiments import quickstart
from experiments.pipeline.settings import Settings
from experiments.reporting import demo_seeds

DEMO = Settings(
    "synthetic", "fpmc", pathlib.Path("run"), seeds=3, selection="own", methods=quickstart.METHODS, budget=500
)


def results():
    tests = [
        {
            "method": method,
            "against": against,
            "metric": metric,
            "difference": 0.02,
            "interval": [0.01, 0.03],
            "p_randomization_holm": 0.01,
            "effect": 0.5,
        }
        for method, against in demo_seeds.PAIRS
        for metric in ("recall@10", "ndcg@10")
    ]
    return {"methods": {name: {"recall@10": {"mean": 0.125}} for name in demo_seeds.METHODS}, "tests": tests}


def test_stored_rows_are_those_of_the_demo():
    held = demo_seeds.stored()
    assert held["settings"] == {name: getattr(DEMO, name) for name in demo_seeds.SAME}
    assert len(held["rows"]) >= 2
    for row in held["rows"].values():
        assert row.keys() == demo_seeds.record_of(results()).keys()
        assert list(row["recall@10"]) == list(demo_seeds.METHODS)


def test_the_rows_of_other_data_stand_beside_the_runs_own():
    first, *others = demo_seeds.rows_beside(DEMO, results())
    assert first[:2] == ["synthetic:0 (this page)", "0.1250"]
    assert first[-1] == "+0.0200 (+0.0100 to +0.0300) *"
    assert len(first) == len(demo_seeds.HEADINGS)
    assert "synthetic:0" not in [row[0] for row in others]


def test_no_rows_stand_beside_another_run():
    for changes in ({"data": "csv:a.csv"}, {"seeds": 2}, {"accuracy": 0.5}):
        assert demo_seeds.rows_beside(dataclasses.replace(DEMO, **changes), results()) == []
