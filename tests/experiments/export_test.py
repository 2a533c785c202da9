"""The command that exports a student of a run: which seed, what its card says, and what is refused."""

import json

import jax
import numpy as np
import pytest

from alkd_jax import models
from alkd_jax.serving import export
from alkd_jax.training import checkpoints
from experiments import export as command
from experiments.pipeline.run import RunContext
from experiments.pipeline.settings import Settings


def test_the_command_ships_the_best_seed_of_a_run(tmp_path):
    out = tmp_path / "run"
    settings = {"data": "synthetic", "backbone": "fpmc", "selection": "own", "methods": "ALKDRec"}
    run = RunContext.open(Settings(out=out, seeds=3, **settings))
    model = run.model("student")
    params = jax.vmap(lambda key: models.init_params(key, model))(jax.random.split(jax.random.key(0), 3))
    (out / "distilled").mkdir()
    checkpoints.save_params(out / "distilled" / "ALKDRec", params)
    np.savez(out / "distilled" / "ALKDRec.history.npz", best_metric=np.array([0.1, 0.3, 0.2]))
    columns = {name: {"values": values} for name, values in (("recall@10", [0.1, 0.25, 0.3]), ("tied", [0, 17, 3]))}
    (out / "metrics.json").write_text(
        json.dumps({"methods": {"ALKDRec": columns}, "protocol": {"name": "first target"}})
    )
    teacher = jax.vmap(lambda key: models.init_params(key, run.model("teacher")))(
        jax.random.split(jax.random.key(1), 3)
    )
    checkpoints.save_params(out / "teacher", teacher)
    command.export_run(command.ExportSettings(run=out, out=tmp_path / "student", web=True))
    page = (tmp_path / "student" / "student.html").read_text()
    assert "This page holds ALKDRec, seed 1, Recommender teacher, Sequential rules" in page
    held = export.Recommender.load(tmp_path / "student")
    np.testing.assert_array_equal(held.arrays["output_embedding"], params["params"]["output_embedding"][1])
    readme = (tmp_path / "student" / "README.md").read_text()
    tied = "this seed alone: first target. Targets that share their score with another item: 17."
    for part in ("ALKDRec, seed 1.", "| recall@10 | 0.2500 |", tied, "not known: the run has no rankings.report.json"):
        assert part in readme
    assert "| tied |" not in readme
    for message, options in (
        ("expected one of the run's: Student, Teacher, ALKDRec", {"method": "DE", "out": tmp_path / "other"}),
        ("expected 0..2", {"seed_index": 3, "out": tmp_path / "other"}),
        ("expected a new folder", {"out": tmp_path / "student"}),
    ):
        with pytest.raises(ValueError, match=message):
            command.export_run(command.ExportSettings(run=out, **options))
