"""`experiments.verify`: exit codes of numbers that agree, that differ, and of data and runs that are not there."""

import dataclasses
import json

import numpy as np
import pytest

from alkd_jax.baselines import METHODS
from alkd_jax.data.readers.registry import READERS
from alkd_jax.data.recipes import RECIPES
from experiments import verify
from experiments.pipeline import stored_runs
from experiments.pipeline.published_numbers import Computed, CountingMethod, Published, ReleasedStudent, TrainedRun
from experiments.pipeline.verify_entries import ENTRIES
from tests.helpers.paths import SHARED

S3REC = SHARED / "public-data" / "s3rec"
RELEASE = SHARED / "alkdrec-release"

SEQUENCES = "1 2 3 4 5\n2 3 4 2\n3 2 6 3 4\n"
"""Users and their items; the test targets are 5, 2 and 4, and training has 2 3, 3 and 2 6."""


def entry_of(*published):
    return dataclasses.replace(ENTRIES["s3rec-beauty"], metrics=published, with_counts=False)


def verified(entry, folder, runs=()):
    (folder / "Beauty.txt").write_text(SEQUENCES)
    return verify.verify("tiny", entry, [folder], runs)


@pytest.mark.skipif(not S3REC.is_dir(), reason="../shared/public-data is not there")
def test_beauty_has_the_published_counts(capsys):
    assert verify.run("s3rec-beauty", [S3REC]) == verify.WITHIN
    lines = capsys.readouterr().out
    assert lines.count("pass") == 4
    assert "interactions: 198,502 published, 198,502 here: pass" in lines


@pytest.mark.skipif(not RELEASE.is_dir(), reason="../shared/alkdrec-release is not there")
def test_released_students_and_counting_methods_have_the_stated_metrics(capsys):
    assert verify.run("alkdrec-ml", [RELEASE]) == verify.WITHIN
    lines = capsys.readouterr().out
    assert lines.count("pass") == 8
    assert "STAMP student, recall@10: 0.01177 stated, 0.01176 here: pass" in lines
    assert verify.run("counting-ml", [RELEASE]) == verify.WITHIN
    assert "popularity, recall@10: 0.0110 stated, 0.0110 here: pass" in capsys.readouterr().out


def test_other_data_fail_with_the_difference(tmp_path, capsys):
    (tmp_path / "Beauty.txt").write_text("1 2 3 4 5\n2 3 4 2\n")
    assert verify.run("s3rec-beauty", [tmp_path / "none", tmp_path]) == verify.OUTSIDE
    assert "items: 12,101 published, 4 here: fail (-12,097)" in capsys.readouterr().out


def test_data_that_are_not_there_are_named_with_their_terms(tmp_path, capsys):
    assert verify.run("session-rec-yoochoose", [tmp_path]) == verify.NOT_AT_HAND
    line = " ".join(capsys.readouterr().out.split())
    assert "not at hand: yoochoose-clicks.dat" in line
    assert "CC BY-NC-ND 4.0" in line
    assert verify.run(None, [tmp_path]) == verify.NOT_AT_HAND


def test_neither_a_wrong_name_nor_a_damaged_file_is_like_missing_data(tmp_path, capsys):
    assert verify.run("x", [tmp_path]) == verify.UNKNOWN_NAME
    assert "NAME is 'x'; expected" in capsys.readouterr().err
    (tmp_path / "Beauty.txt").write_text("nothing of a sequence\n")
    assert verify.run("s3rec-beauty", [tmp_path]) == verify.OUTSIDE
    assert "Beauty.txt" in capsys.readouterr().out


def test_a_counting_method_is_fitted_and_compared(tmp_path, capsys):
    """Popularity ranks 2 before 3 before 6; 5 and 4 are in no training session and follow, seen items left out."""
    found = CountingMethod("popularity")
    right = Published("popularity", {"recall@5": 1.0}, found, "a table")
    assert verified(entry_of(right), tmp_path) == verify.WITHIN
    wrong = dataclasses.replace(right, values={"recall@5": 0.8}, tolerance=0.1)
    assert verified(entry_of(right, wrong), tmp_path) == verify.OUTSIDE
    lines = capsys.readouterr().out
    assert "popularity, recall@5: 1.0000 stated, 1.0000 here: pass" in lines
    assert "popularity, recall@5: 0.8000 stated, 1.0000 here: fail (+0.2000, +25.0 %)" in lines
    assert verified(entry_of(dataclasses.replace(wrong, tolerance=0.25)), tmp_path) == verify.WITHIN


@pytest.mark.parametrize(("here", "within"), [(0.0110, True), (0.0111, True), (0.01112, False), (0.0109, True)])
def test_a_value_may_differ_by_one_unit_of_the_last_digit(here, within):
    published = Published("x", {"recall@10": 0.0110}, CountingMethod("popularity"), "a table")
    assert published.compared(Computed({"recall@10": here}))[0][1] == within


def test_a_trained_model_is_that_of_a_finished_run_on_the_same_data(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(stored_runs, "STORED", tmp_path / "stored")
    published = Published("eSASRec", {"recall@10": 0.5}, TrainedRun("esasrec", "a loss"), "a table", tolerance=0.05)
    run = tmp_path / "runs" / "one" / "metrics.json"
    run.parent.mkdir(parents=True)

    def code(**changes):
        columns = {"recall@10": {"mean": 0.49, "std": 0.01, "values": [0.48, 0.5]}, "tied": {"values": [1]}}
        results = {"dataset": "Beauty", "protocol": {"seen": "exclude", "targets": "last"}}
        run.write_text(json.dumps(results | {"methods": {"esasrec": columns}} | changes))
        return verified(entry_of(published), tmp_path, [tmp_path / "runs"])

    assert code() == verify.WITHIN
    assert "eSASRec, recall@10: 0.5000 stated, 0.4900 here: pass" in capsys.readouterr().out
    others = {"dataset": "Games"}, {"protocol": {"seen": "keep", "targets": "last"}}, {"methods": {}}, {"refit": True}
    for other in others:
        assert code(**other) == verify.NOT_AT_HAND
    assert "not at hand: a finished run of esasrec (a loss) on Beauty" in " ".join(capsys.readouterr().out.split())


def test_a_stored_run_stands_in_for_a_finished_one_with_the_mean_over_its_seeds(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(stored_runs, "STORED", tmp_path / "stored")
    (tmp_path / "stored").mkdir()
    for seed, recall in enumerate((0.4, 0.6)):
        run = {"dataset": "Beauty", "backbone": "esasrec", "protocol": {"seen": "exclude", "targets": "last"}}
        run |= {"seeds": 1, "refit": False, "training": {"seed": seed}, "seconds": {"train": 1.0}, "epochs": [1.0]}
        run |= {"test": {"recall@10": [recall], "tied": [0]}, "validation": {}}
        (tmp_path / "stored" / f"{seed}.json").write_text(json.dumps(run))
    published = Published("eSASRec", {"recall@10": 0.5}, TrainedRun("esasrec", "a loss"), "a table", tolerance=0.05)
    assert verified(entry_of(published), tmp_path) == verify.WITHIN
    assert "eSASRec, recall@10: 0.5000 stated, 0.5000 here: pass" in capsys.readouterr().out


def test_of_several_runs_the_best_on_validation_that_is_trained_as_stated_counts(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(stored_runs, "STORED", tmp_path / "stored")
    (tmp_path / "stored").mkdir()
    trained = {"recall_at": 10, "loss": "softmax", "options": {"dropout": 0.2}}
    runs = {
        "a": (64, trained, 0.3, 0.45),
        "b": (32, trained, 0.4, 0.55),
        "c": (16, trained | {"options": {"dropout": 0.5}}, 0.5, 0.65),
        "d": (8, trained | {"loss": "bpr"}, 0.6, 0.75),
    }
    for name, (dim, training, validation, recall) in runs.items():
        run = {"dataset": "Beauty", "backbone": "esasrec", "protocol": {"seen": "exclude", "targets": "last"}}
        run |= {"seeds": 1, "refit": False, "training": training | {"dim": dim}, "seconds": {"train": 1.0}}
        run |= {"test": {"recall@10": [recall]}, "validation": {"recall@10": [validation]}, "epochs": [1.0]}
        (tmp_path / "stored" / f"{name}.json").write_text(json.dumps(run))
    entry = TrainedRun("esasrec", "a loss", {"loss": "softmax", "dropout": 0.2})
    assert verified(entry_of(Published("eSASRec", {"recall@10": 0.55}, entry, "a table")), tmp_path) == verify.WITHIN
    assert "0.5500 here: pass (a stored run, width 32, 1 seed)" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_says_where_its_data_and_numbers_come_from(name):
    entry = ENTRIES[name]
    assert entry.origin
    assert entry.terms
    assert entry.reader in READERS
    assert RECIPES.find(entry.recipe).sources
    assert entry.metrics or RECIPES.find(entry.recipe).published
    for published in entry.metrics:
        assert published.source
        assert all(0 < value < 1 for value in published.values.values())
        match published.compute:
            case CountingMethod(name=method):
                assert method in METHODS
            case ReleasedStudent(file=file):
                assert file in entry.files
    assert np.isfinite(entry.tolerance)
