"""The table of training-free recommenders: what the command stores, and the page of the documents that shows it."""

import json
import re
import sys

import numpy as np
import pytest

import alkd_jax as alkd
from alkd_jax import baselines
from alkd_jax.evaluation import Protocol
from experiments import leaderboard, record
from experiments.pipeline import training_free
from experiments.pipeline.training_free import TRAINING_FREE
from experiments.reporting import training_free_rows
from tests.helpers.paths import ROOT

STORED = ROOT / "experiments" / "results"


def test_the_command_ranks_without_training_anything(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        training_free, "TRAINING_FREE", {name: TRAINING_FREE[name] for name in ("Popularity", "Markov")}
    )
    monkeypatch.setattr(leaderboard, "train_and_collect", None)
    monkeypatch.setattr(leaderboard, "run_pipeline", None)
    line = ["leaderboard", "--data", "synthetic:3", "--training-free", "--seen", "keep", "--targets", "first"]
    monkeypatch.setattr(sys, "argv", [*line, "--out", str(tmp_path), "--json", str(tmp_path / "x" / "board.json")])
    leaderboard.main()
    numbers = json.loads((tmp_path / "x" / "board.json").read_text())
    assert numbers["methods"].keys() == {"Popularity", "Markov"}
    dataset = alkd.data.synthetic(seed=3)
    assert (numbers["targets"], numbers["items"]) == (len(dataset.test), dataset.num_items)
    counts = baselines.count(dataset.train_sequences, dataset.num_items)
    options = {"seen": "keep", "targets": "first", "max_length": dataset.test.items.shape[1]}
    places = baselines.target_places(baselines.method("markov")(counts), counts, dataset.test_sequences, **options)
    markov = numbers["methods"]["Markov"]
    assert markov["recall@20"] == pytest.approx((places.ranks() <= 20).mean(), abs=1e-6)
    assert markov["tied"] == places.num_tied
    assert training_free_rows.table(numbers) in (tmp_path / "synthetic" / "leaderboard.md").read_text()
    monkeypatch.setattr(sys, "argv", [*line[:4], "--out", str(tmp_path)])
    with pytest.raises(SystemExit):
        leaderboard.main()
    assert "training_free (seen 'keep' → 'exclude', targets 'first' → 'last')" in capsys.readouterr().err


def test_the_page_of_protocols_shows_the_stored_numbers():
    page = (ROOT / "docs" / "protocols.md").read_text()
    stored = [json.loads(file.read_text()) for file in sorted((STORED / "protocols").glob("*.json"))]
    protocols = {protocol.name for protocol in (Protocol(), Protocol(seen="keep", targets="all"))}
    assert len(stored) == 10
    assert {numbers["protocol"]["name"] for numbers in stored} == protocols
    for numbers in stored:
        assert training_free_rows.table(numbers) in page, (numbers["dataset"], numbers["protocol"]["name"])
    rows = [line for line in page.splitlines() if line.startswith("| ") and re.search(r"\d\.\d{4}", line)]
    assert len(rows) == 10 * len(TRAINING_FREE), "the page has no other numbers"


def test_the_stored_tables_of_the_authors_data_agree_with_the_stored_runs():
    for data in ("ML", "Games"):
        numbers = json.loads((STORED / "protocols" / f"{data}-last.json").read_text())
        (run,) = (
            run
            for run in record.read_results(STORED)
            if (run["dataset"], run["backbone"], run["mode"]) == (data, "fpmc", "clean")
        )
        for name in numbers["methods"].keys() & run["methods"].keys():
            shared = numbers["methods"][name].keys() & run["methods"][name].keys()
            assert {"recall@10", "ndcg@10", "tied"} <= shared
            for column in shared:
                assert np.isclose(numbers["methods"][name][column], run["methods"][name][column][0], atol=2e-6), name
