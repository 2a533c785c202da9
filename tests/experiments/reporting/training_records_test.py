"""The stored results of runs of `experiments.train`: how seeds are joined, and the tables beside published numbers."""

import json

import pytest

from alkd_jax.evaluation import Protocol
from experiments import record
from experiments.pipeline import stored_runs
from experiments.pipeline.protocols import stored_protocol
from experiments.reporting import training_records
from tests.helpers.paths import ROOT

TRAINING = {
    "source": "userseq:/some/where/Beauty.txt",
    "dim": 64,
    "loss": "sampled_softmax",
    "targets": "positions",
    "num_negatives": 256,
    "batch_size": 128,
    "learning_rate": 1e-3,
    "options": {"blocks": 1},
    "seed": 0,
    "seeds": 1,
    "refit": False,
}


def column(*values):
    return {"mean": sum(values) / len(values), "std": 0.0, "values": list(values)}


def write_run(folder, *, recall=0.09, **training):
    training = TRAINING | training
    folder.mkdir()
    results = {
        "dataset": "Beauty",
        "backbone": "sasrec",
        "mode": "clean",
        "seeds": training["seeds"],
        "protocol": stored_protocol(Protocol()),
        "refit": training["refit"],
        "counts": {
            "items": 12101,
            "train": 22363,
            "validation": 22363,
            "test": 22363,
            "targets": 22363,
            "parameters": 7,
        },
        "training": training,
        "reference": "a paper",
        "note": "",
        "methods": {"sasrec": {"recall@10": column(recall), "ndcg@10": column(0.05), "tied": column(0)}},
        "validation": {"recall@10": column(0.1)},
        "epochs": [5.0],
        "examples_per_second": 100.0,
        "tests": [],
    }
    (folder / "metrics.json").write_text(json.dumps(results))
    (folder / "train.json").write_text(json.dumps(training))
    (folder / "stages.json").write_text(json.dumps({"train": {"digest": "x", "seconds": 120.0, "outputs": []}}))
    return folder


def rows_of(table):
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return [dict(zip(lines[0], cells, strict=True)) for cells in lines[2:]]


@pytest.fixture
def stored(tmp_path):
    runs = [
        write_run(tmp_path / "first"),
        write_run(tmp_path / "second", seed=1, recall=0.1),
        write_run(tmp_path / "wide", dim=128),
        write_run(tmp_path / "with-validation", refit=True),
    ]
    out = tmp_path / "stored"
    record.store_runs(runs, out)
    return out


def test_runs_that_differ_in_seeds_alone_are_one_row(stored):
    files = sorted(path.name for path in (stored / "sequential").iterdir())
    assert files == ["first.json", "second.json", "wide.json", "with-validation.json"]
    assert "some" not in (stored / "sequential" / "first.json").read_text(), "no folder of a machine is stored"
    ((name, table),) = training_records.tables(stored_runs.read(stored / "sequential"), stored / "lineups")
    assert name == "Beauty"
    seeds, wide, refit = rows_of(table)
    assert seeds["recall@10"] == "0.0950 ± 0.0071"
    assert (seeds["seeds"], seeds["best epoch"], seeds["minutes"]) == ("2", "5, 5", "2")
    assert wide["training"].startswith("width 128; sampled softmax with 256 negatives of positions; batch 128")
    assert "not refit" in wide["training"]
    assert refit["training"].endswith("; refit")


def test_published_numbers_stand_beside_models_that_were_not_refit(stored):
    ((_, table),) = training_records.tables(stored_runs.read(stored / "sequential"), stored / "lineups")
    lines = [line.split("|") for line in table.splitlines()]
    published = [[cell.strip() for cell in line[6:8]] for line in lines[2:]]
    assert published == [["0.0921", "+3.1 %"], ["0.0921", "-2.3 %"], ["", ""]]


def test_counting_methods_of_the_same_data_and_protocol_stand_beside_them(stored):
    runs = stored_runs.read(stored / "sequential")
    ((_, table),) = training_records.tables(runs, ROOT / "experiments" / "results" / "lineups")
    names = [row["model"] for row in rows_of(table)]
    assert names == ["SASRec"] * 3 + ["Sequential rules", "SR", "V-SKNN"]
    other = [run | {"protocol": stored_protocol(Protocol(seen="keep"))} for run in runs]
    ((_, table),) = training_records.tables(other, ROOT / "experiments" / "results" / "lineups")
    assert len(rows_of(table)) == 3


def test_a_run_that_is_not_finished_stores_none(tmp_path, stored):
    broken = write_run(tmp_path / "broken")
    (broken / "metrics.json").unlink()
    with pytest.raises(ValueError, match=r"broken has no metrics\.json"):
        record.store_runs([write_run(tmp_path / "third", seed=2), broken], stored)
    assert not (stored / "sequential" / "third.json").exists()


def test_the_tables_of_the_page_are_those_of_the_stored_runs():
    results = ROOT / "experiments" / "results"
    page = (ROOT / "docs" / "backbones.md").read_text()
    tables = dict(training_records.tables(stored_runs.read(results / "sequential"), results / "lineups"))
    assert tables, "the project stores its results"
    for name, table in tables.items():
        assert table in page, name
