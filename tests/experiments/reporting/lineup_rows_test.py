"""Tables of line-ups: what the command stores and prints."""

import json
import sys

import pytest

from experiments import leaderboard
from experiments.pipeline import lineups
from experiments.pipeline.lineups import FULL
from experiments.reporting import lineup_rows
from tests.helpers.paths import ROOT


def run(monkeypatch, tmp_path, *more):
    line = ["leaderboard", "--data", "synthetic:3", "--training-free", "--lineup", "short", *more]
    monkeypatch.setattr(sys, "argv", [*line, "--out", str(tmp_path), "--json", str(tmp_path / "board.json")])
    leaderboard.main()
    return json.loads((tmp_path / "board.json").read_text())


def test_the_command_prints_the_chosen_options_and_what_is_left_out(tmp_path, monkeypatch, capsys):
    members = {name: FULL[name] for name in ("Popularity", "Item-kNN", "EASE")}
    monkeypatch.setattr(lineups, "LINEUPS", {"short": members})
    monkeypatch.setattr(lineup_rows, "LINEUPS", lineups.LINEUPS)
    monkeypatch.setattr(lineups, "MAX_LINEAR_ITEMS", 100)
    numbers = run(monkeypatch, tmp_path, "--history", "0")
    assert numbers["methods"].keys() == {"Popularity", "Item-kNN"}
    told = numbers["lineup"]
    assert (told["name"], told["history"], told["validation"]) == ("short", 0, lineups.SAMPLE)
    assert told["tuned"]["Item-kNN"]["trials"] == 3
    recency = told["tuned"]["Item-kNN"]["options"]["recency"]
    page = (tmp_path / "synthetic" / "leaderboard.md").read_text()
    assert lineup_rows.table(numbers) in page
    assert f"| recency {recency} " in page
    assert "Methods read all items of a session." in page
    assert "Left out: EASE, since 1,971 items occur in training, more than 100." in page
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path, "--history", "5")
    assert "history 0 → 5" in capsys.readouterr().err


def test_a_line_up_that_there_is_not_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["leaderboard", "--data", "synthetic", "--training-free", "--lineup", "x"])
    with pytest.raises(SystemExit):
        leaderboard.main()
    assert "--lineup is 'x'; expected 'short' or 'full'" in capsys.readouterr().err


def test_a_summary_has_a_column_for_each_dataset_and_a_dash_for_a_method_left_out():
    stored = {
        "A": {"methods": {name: {"recall@10": 0.1 + 0.01 * n} for n, name in enumerate(lineups.SHORT)}},
        "B": {"methods": {"Popularity": {"recall@10": 0.5}, "Markov": {"recall@10": 0.9}}},
    }
    lines = lineup_rows.summary(stored, "recall@10", "short").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["recall@10", "A", "B"]
    assert cells[2] == ["Popularity", "0.1000", "**0.5000**"]
    assert cells[-1] == ["SLIST", "**0.1700**", "–"]
    assert len(cells) == 2 + len(lineups.SHORT)


DATASETS = ("ML", "Games", "Beauty", "Sports", "rsc15-100k", "ml-100k")
RESULTS = ROOT / "experiments" / "results"


def stored_results(folder, name):
    return json.loads((RESULTS / folder / f"{name}.json").read_text())


def test_the_documents_show_the_stored_tables():
    stored = {name: stored_results("lineups", name) for name in DATASETS}
    assert {file.stem for file in (RESULTS / "lineups").glob("*.json")} == set(DATASETS)
    results, methods = ((ROOT / "docs" / page).read_text() for page in ("results.md", "counting_methods.md"))
    assert lineup_rows.summary(stored, "recall@10", "short") in results
    assert lineup_rows.summary(stored, "ndcg@10", "short") in results
    assert lineup_rows.summary(stored, "recall@10", "full") in methods
    for name, numbers in stored.items():
        assert f"**{name}**\n\n{lineup_rows.table(numbers, 'short')}" in methods, name
        assert numbers["lineup"]["tuned"].keys() == numbers["methods"].keys()
        assert numbers["methods"].keys() | numbers["lineup"]["left_out"].keys() == FULL.keys()


@pytest.mark.parametrize("name", ["ML", "Games"])
def test_methods_without_options_have_the_stored_results_of_the_other_table(name):
    lineup, other = stored_results("lineups", name), stored_results("protocols", f"{name}-last")
    assert lineup["fingerprint"] == other["fingerprint"]
    for method in ("Popularity", "Markov", "Co-occurrence"):
        assert lineup["methods"][method] == other["methods"][method]
