"""Options of methods that are taken over from another run; tuning itself is tested with the tables."""

import json
import types

import pytest

from experiments import tune
from experiments.reporting import results

CHOSEN = {"weight": 1e-5}


@pytest.fixture
def other_results(tmp_path):
    file = tmp_path / "metrics.json"
    tuned = {"FTD": {"chosen": CHOSEN, "recall@10": 0.02, "trials": 4}, "RD": {"chosen": {"depth": 3}}}
    file.write_text(json.dumps({"dataset": "ML", "backbone": "fpmc", "tuned": tuned}))
    return file


def test_options_of_another_run_are_taken_over_and_said_to_be_so(tmp_path, other_results, monkeypatch, capsys):
    run = types.SimpleNamespace(settings=types.SimpleNamespace(method_names=("FTD",)))
    monkeypatch.setattr(tune.Run, "reopen", lambda path: run)
    args = tune.Tuning(run=tmp_path, methods="FTD", options_of=other_results)
    assert tune.tune(args) == {"FTD": {"chosen": CHOSEN, "from": "ML fpmc"}}
    assert "as chosen for ML fpmc" in capsys.readouterr().out
    run.tuning_results = lambda: json.loads((tmp_path / "tuning.json").read_text())
    summary = results.tuning_summary(run)
    assert results.tuning_lines({"tuned": summary}) == ["FTD: weight 1e-05; as chosen for ML fpmc"]
    # What was taken over goes on with the name of the run that tuned.
    other_results.write_text(json.dumps({"dataset": "ML", "backbone": "stamp", "tuned": summary}))
    assert tune.adopted_settings(other_results, "FTD")["from"] == "ML fpmc"


@pytest.mark.parametrize("method", ["DE", "RD"])
def test_options_that_are_missing_or_belong_to_no_grid_are_refused(other_results, method):
    with pytest.raises(ValueError, match=f"holds no chosen options of {method}; expected results with some of weight,"):
        tune.adopted_settings(other_results, method)
