"""The power of a finished run: its differences over seeds and sessions, on test and validation sessions."""

import json
import shutil
import sys

import numpy as np
import pytest

import alkd_jax as alkd
from alkd_jax.evaluation.seeds_and_sessions import spread
from experiments import power, reproduce
from experiments.pipeline import stages
from experiments.pipeline.settings import Settings
from tests.helpers.paths import ROOT
from tests.helpers.stored_tables import assert_page_holds


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "toy"
    options = {
        "seeds": 2,
        "max_steps": 20,
        "teacher_dim": 12,
        "budget": 40,
        "selection": "own",
        "methods": "Random,ALKDRec",
    }
    reproduce.run_pipeline(Settings(data="synthetic", backbone="fpmc", out=out, **options))
    return out


def found_of(result, against, split):
    (found,) = (f for f in result["differences"] if (f["against"], f["split"]) == (against, split))
    return found


def test_both_samples_are_those_of_the_trained_models(finished):
    result = power.estimate(power.Power(finished, half_width=0.01))
    assert {f["against"] for f in result["differences"]} == {"Student", "Teacher", "Random"}
    numbers = json.loads((finished / "metrics.json").read_text())["methods"]
    expected = numbers["ALKDRec"]["recall@10"]["mean"] - numbers["Random"]["recall@10"]["mean"]
    assert found_of(result, "Random", "test")["difference"] == pytest.approx(expected, abs=1e-6)
    means = result["means"]["test"]
    assert means["ALKDRec"]["mean"] == pytest.approx(numbers["ALKDRec"]["recall@10"]["mean"], abs=1e-6)
    assert means["Random"]["sd"] == pytest.approx(numbers["Random"]["recall@10"]["std"], abs=1e-6)
    run = stages.Run.reopen(finished, readonly=True)
    ranks = []
    for stored_at in ("distilled/ALKDRec", "student"):
        params = run.params(stored_at)
        model = run.model("student")
        ranks.append(alkd.evaluation.evaluate_seeds(model, params, run.dataset.validation))
    first, second = (np.stack([np.asarray(one.ranks) for one in per_seed]) for per_seed in ranks)
    found, alone = found_of(result, "Student", "validation"), spread(first, second)
    assert found["num_sessions"] == len(run.dataset.validation)
    assert found["interval"] == pytest.approx(alone.interval)
    assert found["detectable"] == pytest.approx(alone.detectable())
    assert found["seeds_for_half_width"] == alone.seeds_for(0.01)


def test_the_command_writes_its_table(finished, tmp_path, monkeypatch, capsys):
    options = ["--run", str(finished), "--against", "Random", "--metric", "ndcg@10", "--json", str(tmp_path / "p.json")]
    monkeypatch.setattr(sys, "argv", ["power", *options])
    power.main()
    assert "ALKDRec − Random" in capsys.readouterr().out
    stored = json.loads((finished / "power.json").read_text())
    assert stored["metric"] == "ndcg@10"
    assert len(stored["differences"]) == 2
    assert (finished / "power.md").read_text() == power.as_page(stored)
    assert json.loads((tmp_path / "p.json").read_text()) == stored


@pytest.mark.slow
def test_sessions_with_several_targets_are_drawn_whole(finished, tmp_path):
    out = tmp_path / "all"
    shutil.copytree(finished, out)
    run = stages.Run.reopen(out)
    settings = run.settings
    reproduce.run_pipeline(
        Settings(**(vars(settings) | {"out": out, "targets": "all", "seen": "keep", "overwrite": True}))
    )
    result = power.estimate(power.Power(out, against=("Random",)))
    assert found_of(result, "Random", "test")["num_sessions"] == len(run.dataset.test)
    assert found_of(result, "Random", "validation")["num_sessions"] == len(run.dataset.validation)
    numbers = json.loads((out / "metrics.json").read_text())["methods"]
    expected = numbers["ALKDRec"]["recall@10"]["mean"] - numbers["Random"]["recall@10"]["mean"]
    assert found_of(result, "Random", "test")["difference"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "HTD"}, "'HTD' is no trained method"),
        ({"against": ("Popularity",)}, "'Popularity' is no trained method"),
        ({"half_width": 0.0}, "--half-width is 0.0"),
        ({"metric": "recall"}, "metric is 'recall'"),
    ],
)
def test_what_cannot_be_estimated_is_refused(finished, options, message):
    with pytest.raises(ValueError, match=message):
        power.estimate(power.Power(finished, **options))


def test_an_unfinished_run_is_refused(finished, tmp_path):
    out = tmp_path / "cut"
    shutil.copytree(finished, out)
    records = json.loads((out / "stages.json").read_text())
    del records["ranks"]
    (out / "stages.json").write_text(json.dumps(records))
    with pytest.raises(ValueError, match="is not a finished run"):
        power.estimate(power.Power(out))


def test_the_tables_of_the_page_are_those_of_the_stored_results():
    assert_page_holds("claims.md", power.STORED, power.as_table)
    assert power.NOTE in (ROOT / "docs" / "claims.md").read_text()
