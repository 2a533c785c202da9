"""Losses of the lists beside selections: what is compared, on which sessions, and what is refused."""

import json
import shutil
import sys
import types

import numpy as np
import pytest
from scipy import stats

import alkd_jax as alkd
from alkd_jax.evaluation import Protocol
from alkd_jax.evaluation.seeds_and_sessions import spread
from experiments import list_losses, reproduce
from experiments.list_losses import ListLosses
from experiments.pipeline.settings import Settings
from experiments.pipeline.stages import Run
from experiments.reporting import list_loss_rows
from tests.helpers.stored_tables import assert_page_holds

LOSSES, METHODS = ("bpr", "ranknet", "listnet"), ("Random", "ALKDRec")


@pytest.fixture
def ranks(monkeypatch):
    """Ranks of made-up runs: split → (loss, method) → [S, N]; one pair is far better than the others."""
    rng = np.random.default_rng(0)
    pairs = [(loss, method) for loss in LOSSES for method in METHODS]
    made = {
        split: {pair: rng.integers(1, 5 if pair == ("ranknet", "ALKDRec") else 60, (3, 400)) for pair in pairs}
        for split in ("validation", "test")
    }

    def run_of(loss):
        settings = Settings("synthetic", "fpmc", loss, list_loss=loss, seeds=3, methods=",".join((*METHODS, "TR")))
        return types.SimpleNamespace(settings=settings, dataset=types.SimpleNamespace(name="made up"))

    def of_split(split, run):
        return {m: values for (loss, m), values in made[split].items() if loss == run.settings.list_loss}

    monkeypatch.setattr(list_losses, "opened_runs", lambda folders: {loss: run_of(loss) for loss in LOSSES})
    monkeypatch.setattr(list_losses, "stored_test_ranks", lambda run: (of_split("test", run), None))

    def validation_ranks(run, methods):
        # TR distills by a loss of its own, so that it is the same in all runs.
        assert tuple(methods) == METHODS
        return of_split("validation", run), None

    monkeypatch.setattr(list_losses, "validation_ranks", validation_ranks)
    return made


def test_every_pair_is_compared_with_the_paper_s_loss_and_random_sessions_on_validation(ranks):
    compared = list_losses.compare(ListLosses((), metric="ndcg@10"))
    pairs = {(pair["loss"], pair["method"]): pair for pair in compared["pairs"]}
    assert set(pairs) == set(ranks["validation"])
    base = pairs.pop(("bpr", "Random"))
    assert "difference" not in base
    before = ranks["validation"]["bpr", "Random"]
    found = {pair: spread(ranks["validation"][pair], before, metric="ndcg@10") for pair in pairs}
    p = [each.p_value() for each in found.values()]
    assert [pairs[pair]["difference"] for pair in found] == pytest.approx([each.difference for each in found.values()])
    assert [pairs[pair]["p"] for pair in found] == pytest.approx(p)
    assert [pairs[pair]["q"] for pair in found] == pytest.approx(stats.false_discovery_control(p))


def test_only_gains_found_on_validation_are_tested_on_test(ranks):
    (contrast,) = list_losses.compare(ListLosses(()))["contrasts"]
    assert (contrast["loss"], contrast["method"]) == ("ranknet", "ALKDRec")
    expected = spread(ranks["test"]["ranknet", "ALKDRec"], ranks["test"]["bpr", "Random"])
    assert contrast["difference"] == pytest.approx(expected.difference)
    assert contrast["interval"] == pytest.approx(expected.interval)
    assert contrast["holm"] == pytest.approx(expected.p_value())
    every = list_losses.compare(ListLosses((), false_discovery=1.0))
    gains = [pair for pair in every["pairs"][1:] if pair["difference"] > 0]
    order = [pair["method"] for pair in sorted(gains, key=lambda pair: -pair["difference"])]
    assert [pair["method"] for pair in every["contrasts"]] == order
    assert all(pair["p"] <= pair["holm"] <= min(1, len(order) * pair["p"]) + 1e-12 for pair in every["contrasts"])
    few = list_losses.compare(ListLosses((), false_discovery=1.0, contrasts=1))
    assert len(few["contrasts"]) == 1
    assert not list_losses.compare(ListLosses((), false_discovery=0.0))["contrasts"]


def test_the_tables_mark_what_was_found(ranks):
    text = list_loss_rows.tables(list_losses.compare(ListLosses(())))
    first, second = text.split("\n\n")
    assert first.count(" *") == 1
    assert "| ranknet, ALKDRec " in second
    assert "on test" not in list_loss_rows.tables(list_losses.compare(ListLosses((), false_discovery=0.0)))


def test_the_tables_in_the_documents_are_those_of_the_stored_numbers():
    assert_page_holds("selection.md", list_loss_rows.STORED, list_loss_rows.tables)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contrasts": 0}, "--contrasts is 0"),
        ({"false_discovery": 2.0}, "--false-discovery is 2.0"),
        ({"runs": ()}, "number of --runs is 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ListLosses(**({"runs": ("a", "b")} | options)).check()


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


@pytest.mark.slow
def test_the_command_ranks_validation_sessions_and_writes_its_numbers(folders, tmp_path, monkeypatch, capsys):
    file = tmp_path / "losses.json"
    arguments = ["--false-discovery", "1", "--metric", "mrr", "--json", str(file), "--runs", *map(str, folders)]
    monkeypatch.setattr(sys, "argv", ["list_losses", *arguments])
    list_losses.main()
    assert "validation mrr" in capsys.readouterr().out
    stored = json.loads(file.read_text())
    assert stored["protocol"] == Protocol().name
    run = Run.reopen(folders[1], readonly=True)
    outs = alkd.evaluation.evaluate_seeds(run.model("student"), run.params("distilled/ALKDRec"), run.dataset.validation)
    (pair,) = (p for p in stored["pairs"] if (p["loss"], p["method"]) == ("ranknet", "ALKDRec"))
    assert pair["mean"] == pytest.approx(np.mean([(1 / np.asarray(out.ranks)).mean() for out in outs]))


@pytest.mark.slow
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


@pytest.mark.slow
def test_runs_with_other_settings_are_refused(folders, tmp_path):
    shutil.copytree(folders[1], tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps(config | {"teacher_dim": 13}))
    with pytest.raises(ValueError, match="--teacher-dim 13; expected 12, as"):
        list_losses.opened_runs([folders[0], tmp_path / "other"])
