"""Losses of the lists beside selections: what is compared, on which sessions, and what is refused."""

import json
import shutil
import sys

import numpy as np
import pytest
from scipy import stats

import alkd_jax as alkd
from alkd_jax.evaluation.seeds_and_sessions import spread
from experiments import list_losses, reproduce
from experiments.list_losses import ListLosses
from experiments.pipeline.settings import Settings
from experiments.pipeline.stages import Run
from experiments.reporting import list_loss_rows


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two finished runs that differ in the loss; the second begins as a copy of the first."""
    out = tmp_path_factory.mktemp("losses")
    options = {"seeds": 2, "max_steps": 20, "teacher_dim": 12, "budget": 40, "selection": "own"}
    reproduce.run_pipeline(Settings(data="synthetic", backbone="fpmc", out=out / "bpr", **options))
    shutil.copytree(out / "bpr", out / "ranknet")
    options |= {"list_loss": "ranknet", "overwrite": True}
    reproduce.run_pipeline(Settings(data="synthetic", backbone="fpmc", out=out / "ranknet", **options))
    return out / "bpr", out / "ranknet"


@pytest.fixture(scope="module")
def compared(folders):
    return list_losses.compare(ListLosses(folders, false_discovery=1.0, metric="mrr"))


def ranks_of(folder, method, split):
    run = Run.reopen(folder, readonly=True)
    params = run.params(f"distilled/{method}")
    outs = alkd.evaluation.evaluate_seeds(run.model("student"), params, getattr(run.dataset, split))
    return np.stack([np.asarray(out.ranks) for out in outs])


def test_every_pair_is_compared_with_the_paper_s_loss_and_random_sessions_on_validation(folders, compared):
    pairs = {(pair["loss"], pair["method"]): pair for pair in compared["pairs"]}
    assert set(pairs) == {(loss, method) for loss in ("bpr", "ranknet") for method in ("Random", "ALKDRec")}
    assert "difference" not in pairs["bpr", "Random"]
    base = ranks_of(folders[0], "Random", "validation")
    found = {
        ("bpr", "ALKDRec"): spread(ranks_of(folders[0], "ALKDRec", "validation"), base, metric="mrr"),
        ("ranknet", "Random"): spread(ranks_of(folders[1], "Random", "validation"), base, metric="mrr"),
        ("ranknet", "ALKDRec"): spread(ranks_of(folders[1], "ALKDRec", "validation"), base, metric="mrr"),
    }
    for pair, expected in found.items():
        assert pairs[pair]["difference"] == pytest.approx(expected.difference)
        assert pairs[pair]["p"] == pytest.approx(expected.p_value())
    p = [pairs[pair]["p"] for pair in found]
    assert [pairs[pair]["q"] for pair in found] == pytest.approx(stats.false_discovery_control(p))
    assert pairs["bpr", "Random"]["mean"] == pytest.approx((1 / base).mean())


def test_only_gains_of_validation_are_tested_on_test(folders, compared):
    gains = [pair for pair in compared["pairs"][1:] if pair["difference"] > 0]
    order = [(pair["loss"], pair["method"]) for pair in sorted(gains, key=lambda pair: -pair["difference"])]
    assert [(pair["loss"], pair["method"]) for pair in compared["contrasts"]] == order
    assert order
    base = ranks_of(folders[0], "Random", "test")
    for pair in compared["contrasts"]:
        folder = folders[pair["loss"] == "ranknet"]
        expected = spread(ranks_of(folder, pair["method"], "test"), base, metric="mrr")
        assert pair["difference"] == pytest.approx(expected.difference)
        assert pair["p"] <= pair["holm"] <= min(1, len(order) * pair["p"]) + 1e-12
    few = list_losses.compare(ListLosses(folders, false_discovery=1.0, metric="mrr", contrasts=1))
    assert [(pair["loss"], pair["method"]) for pair in few["contrasts"]] == order[:1]
    assert not list_losses.compare(ListLosses(folders, false_discovery=0.0, metric="mrr"))["contrasts"]


def test_the_command_prints_its_tables_and_writes_its_numbers(folders, compared, tmp_path, monkeypatch, capsys):
    file = tmp_path / "losses.json"
    arguments = ["--false-discovery", "1", "--metric", "mrr", "--json", str(file), "--runs", *map(str, folders)]
    monkeypatch.setattr(sys, "argv", ["list_losses", *arguments])
    list_losses.main()
    assert json.loads(file.read_text()) == json.loads(json.dumps(compared))
    assert "on test, against bpr, Random" in capsys.readouterr().out
    assert list_loss_rows.tables(compared).count("ranknet") >= 1


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((0, 0), "has the loss bpr of"),
        ((1, 1), "has the loss ranknet of"),
        ((1,), "no run has --list-loss bpr with the method Random"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(folders, numbers, message):
    with pytest.raises(ValueError, match=message):
        list_losses.opened_runs([folders[number] for number in numbers])


def test_runs_with_other_settings_are_refused(folders, tmp_path):
    shutil.copytree(folders[1], tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps(config | {"teacher_dim": 13}))
    with pytest.raises(ValueError, match="--teacher-dim 13; expected 12, as"):
        list_losses.opened_runs([folders[0], tmp_path / "other"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contrasts": 0}, "--contrasts is 0"),
        ({"false_discovery": 2.0}, "--false-discovery is 2.0"),
        ({"runs": ()}, "number of --runs is 0"),
    ],
)
def test_options_out_of_range_are_refused(folders, options, message):
    with pytest.raises(ValueError, match=message):
        ListLosses(**({"runs": folders} | options)).check()
