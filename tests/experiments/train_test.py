"""One model on one dataset: what the command writes, continues and refuses, and what other commands take of it."""

import contextlib
import dataclasses
import http.client
import itertools
import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

import alkd_jax as alkd
from experiments import export, recommend, train
from experiments.pipeline import loss_names, single_run
from experiments.pipeline.backbone_defaults import DEFAULTS, defaults_of
from experiments.pipeline.shipped import model_folder
from experiments.pipeline.train_options import Train
from tests.helpers.paths import ROOT


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Users who walk around a circle of 12 items, so that the next item is nearly certain."""
    rng = np.random.default_rng(0)
    lines = []
    for user in range(150):
        start, length = rng.integers(12), rng.integers(5, 15)
        lines.append(f"u{user} " + " ".join(f"i{(start + n) % 12}" for n in range(length)))
    path = tmp_path_factory.mktemp("data") / "circle.txt"
    path.write_text("\n".join(lines) + "\n")
    return f"userseq:{path}"


def options(source, out, **changed):
    fields = {"dim": 8, "max_length": 10, "batch_size": 32, "max_epochs": 12, "patience": 3, "num_negatives": 4}
    fields |= {"learning_rate": 0.02, "seen": "keep", "recall_at": 1}
    return Train(source, out=out, **{"backbone": "sasrec"} | fields | changed)


@pytest.fixture(scope="module")
def run(source, tmp_path_factory):
    # Eight numbers are too few for dropout of items.
    rest = {"options": '{"item_dropout": 0.0}', "seeds": 2, "refit": True}
    args = options(source, tmp_path_factory.mktemp("runs") / "circle", **rest)
    return args, train.train(args)


def test_metrics_are_those_of_the_contract_and_the_model_has_learned(run):
    args, results = run
    assert json.loads((args.out / "metrics.json").read_text()) == results
    recall = results["methods"]["sasrec"]["recall@10"]
    assert recall.keys() == {"mean", "std", "values"}
    assert len(recall["values"]) == 2
    assert results["methods"]["sasrec"]["recall@5"]["mean"] > 0.9
    assert results["training"]["dim"] == 8
    assert results["refit"] is True
    assert results["protocol"]["seen"] == "keep"
    assert len(results["epochs"]) == 2


def test_the_same_command_trains_nothing_again_and_other_options_are_refused(run, monkeypatch):
    args, results = run
    monkeypatch.setattr(alkd.training, "fit", None)
    assert train.train(args) == results
    with pytest.raises(ValueError, match=r"num_negatives"):
        train.train(dataclasses.replace(args, num_negatives=5))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["sasrec", "gru4rec"])
def test_a_run_that_was_interrupted_continues_with_the_same_result(source, tmp_path, monkeypatch, backbone):
    whole = train.train(options(source, tmp_path / "whole", backbone=backbone, max_epochs=4))
    validations = itertools.count()

    def interrupts_the_second_validation():
        return contextlib.nullcontext(lambda: next(validations) >= 1)

    with monkeypatch.context() as patch:
        patch.setattr(single_run.interrupts, "postponed", interrupts_the_second_validation)
        with pytest.raises(KeyboardInterrupt):
            train.train(options(source, tmp_path / "parts", backbone=backbone, max_epochs=4))
    assert not (tmp_path / "parts" / "metrics.json").exists()
    continued = train.train(options(source, tmp_path / "parts", backbone=backbone, max_epochs=4))
    assert continued["methods"] == whole["methods"]


def test_the_folder_is_a_model_for_recommend_and_export(run, tmp_path):
    args, _ = run
    recommender = alkd.Recommender.load(model_folder(args.out))
    assert recommender.recommend(["i3", "i4"], k=1)[0][0] == "i5"
    sessions = tmp_path / "new.csv"
    sessions.write_text("session,item,time\nx,i3,1\nx,i4,2\n")
    lists = tmp_path / "lists.jsonl"
    recommend.recommend(recommend.Recommend(lists, model=args.out, sessions=f"csv:{sessions}", k=1))
    assert json.loads(lists.read_text())["items"] == ["i5"]
    export.export_run(export.ExportSettings(tmp_path / "small", model=args.out, dtype="float16", seed_index=1))
    assert alkd.Recommender.load(tmp_path / "small").recommend(["i3", "i4"], k=1)[0][0] == "i5"
    with pytest.raises(ValueError, match=r"--seed-index is 2; expected 0..1"):
        export.export_run(export.ExportSettings(tmp_path / "none", model=args.out, seed_index=2))
    with pytest.raises(ValueError, match=r"has no train.json; expected the folder of a run of experiments.train"):
        export.export_run(export.ExportSettings(tmp_path / "none", model=tmp_path / "small"))


def test_the_folder_is_served(run):
    for package in ("uvicorn", "starlette", "safetensors"):
        pytest.importorskip(package)
    command = [sys.executable, "-m", "experiments.serve", "--model", str(run[0].out), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            port = int(re.search(r"running on http://127\.0\.0\.1:(\d+) ", process.stderr.readline())[1])
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
                connection.request("POST", "/recommend", json.dumps({"session": ["i3", "i4"], "k": 1}))
                answer = json.loads(connection.getresponse().read())
        finally:
            process.terminate()
    assert "i5" in json.dumps(answer)


@pytest.mark.slow
def test_sessions_are_read_in_parallel_where_the_publication_does(source, tmp_path):
    changed = {"learning_rate": 0.1, "momentum": 0.2, "loss_options": '{"exponent": 0.0}', "max_epochs": 3}
    args = options(source, tmp_path / "run", backbone="gru4rec", **changed)
    results = train.train(args)
    assert results["methods"]["gru4rec"]["recall@5"]["mean"] > 0.9
    training = results["training"]
    assert (training["targets"], training["momentum"]) == ("parallel", 0.2)
    assert training["loss_options"] == {"exponent": 0.0, "logq": 1.0, "repeats": True}
    assert single_run.SingleRun.reopen(args.out).options == training
    with pytest.raises(ValueError, match=r"momentum"):
        train.train(dataclasses.replace(args, momentum=0.1))


def test_whole_sessions_have_their_own_defaults():
    args = Train("synthetic:0", "gru4rec", pathlib.Path("run"), targets="positions").resolved()
    assert (args.learning_rate, args.batch_size, args.negatives) == (1e-3, 128, "batch")


@pytest.mark.slow
def test_other_backbones_and_sources_train_with_their_defaults(tmp_path):
    args = Train("synthetic:0", "fpmc", tmp_path / "run", dim=4, max_epochs=1, seeds=1)
    results = train.train(args)
    assert results["training"]["loss"] == "in_batch_bpr"
    assert results["training"]["targets"] == "last"
    assert results["methods"].keys() == {"fpmc"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"loss": "in_batch_bpr"}, r"--loss with --targets positions is 'in_batch_bpr'; expected"),
        ({"loss": "gbce", "targets": "all"}, r"--loss with --targets all is 'gbce'; expected"),
        ({"options": "[]"}, r"--options is '\[\]'; expected a JSON object"),
        ({"options": '{"depth": 2}'}, r"backbone is 'sasrec' with options"),
        ({"targets": "parallel"}, r"--targets parallel with SASRec; expected a recurrent backbone"),
        ({"targets": "parallel", "loss": "softmax"}, r"--loss with --targets parallel is 'softmax'; expected"),
        ({"momentum": 0.5}, r"--momentum with --targets positions; expected --targets parallel"),
        ({"loss_options": '{"logq": 0}'}, r"--loss-options with --targets positions; expected --targets parallel"),
        ({"backbone": "gru4rec", "momentum": 1.0}, r"--momentum is 1.0; expected at least 0 and below 1"),
        ({"backbone": "gru4rec", "loss_options": '{"depth": 1}'}, r"a name in --loss-options is 'depth'; expected"),
        ({"backbone": "gru4rec", "loss_options": '{"logq": "x"}'}, r"logq in --loss-options is 'x'; expected a number"),
        ({"backbone": "gru4rec", "mesh": "data=1,model=1"}, r"--mesh is data=1,model=1 with --targets parallel"),
        ({"learning_rate": -1.0}, r"--learning-rate is -1.0; expected a positive number"),
        ({"dim": 0}, r"--dim is 0; expected"),
        ({"recipe": "unknown"}, r"recipe is 'unknown'; expected"),
        ({"backbone": "unknown"}, r"backbone is 'unknown'; expected"),
    ],
)
def test_options_that_cannot_be_carried_out_are_refused(source, tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        train.train(options(source, tmp_path / "run", **changed))
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_refit_needs_raw_data(tmp_path):
    with pytest.raises(ValueError, match=r"--refit with --source 'synthetic:0', which is split already"):
        train.train(Train("synthetic:0", "sasrec", tmp_path / "run", refit=True))


def test_every_backbone_has_defaults_that_fit_together():
    for name in alkd.models.BACKBONES:
        published = defaults_of(name)
        assert published.loss in loss_names.LOSSES_OF.get(published.targets, loss_names.SESSION_LOSSES), name
        alkd.models.create(name, num_items=3, dim=published.dim, **published.options)
    assert defaults_of("own.module:Own").loss == DEFAULTS["fpmc"].loss
