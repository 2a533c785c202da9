"""A shipped student is replaced by a whole one only, and a package that is missing is named with its extra."""

import os
import shutil
import sys

import jax
import pytest

import alkd_jax as alkd
from alkd_jax import errors, models
from alkd_jax.serving import export, manifest
from alkd_jax.serving.shipped_folder import new_folder

pytest.importorskip("safetensors")

DATASET = alkd.data.synthetic(num_items=80, num_sessions=300, seed=0)


def made(kind):
    model = models.create(kind, num_items=80, dim=6)
    return model, models.init_params(jax.random.key(0), model)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    out = tmp_path_factory.mktemp("plain") / "student"
    export.save(out, *made("fpmc"), DATASET)
    return out


def test_a_student_is_replaced_only_by_a_whole_one(plain, tmp_path, monkeypatch):
    shutil.copytree(plain, tmp_path / "student")
    former = manifest.read_config(tmp_path / "student")[1]

    def fails(*_):
        raise ValueError("scores differ")

    with monkeypatch.context() as patch:
        patch.setattr(export, "check_written_folder", fails)
        with pytest.raises(ValueError, match="scores differ"):
            export.save(tmp_path / "student", *made("fpmc"), DATASET, list_length=7, overwrite=True)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fails)
        with (
            pytest.raises(ValueError, match="scores differ"),
            new_folder(tmp_path / "student", overwrite=True),
        ):
            pass
    assert manifest.read_config(tmp_path / "student")[1] == former
    # What a kill between the two moves leaves is put back before anything else is done.
    work = tmp_path / ".student.partial"
    work.mkdir()
    (tmp_path / "student").rename(work / "student.former")
    with (
        pytest.raises(ValueError, match="exists; expected a new folder"),
        new_folder(tmp_path / "student"),
    ):
        pass
    assert manifest.read_config(tmp_path / "student")[1] == former
    with new_folder(tmp_path / "student", overwrite=True) as partial:
        (partial / "new").write_text("")
    assert [path.name for path in tmp_path.rglob("*")] == ["student", "new"]
    with (
        pytest.raises(ValueError, match="student is no shipped student"),
        new_folder(tmp_path / "student", overwrite=True),
    ):
        pass
    assert (tmp_path / "student" / "new").exists()


@pytest.mark.parametrize(
    ("package", "extra", "load"),
    [
        ("onnxruntime", "onnx", export.load_onnx),
        ("flatbuffers", "export", export.load_program),
        ("safetensors", "export", export.Recommender.load),
    ],
)
def test_a_missing_package_is_named_with_its_extra(plain, monkeypatch, package, extra, load):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError) as caught:
        load(plain)
    line = f"the package {package} is not installed; install it with: pip install 'alkd_jax[{extra}]'"
    assert str(caught.value) == line == errors.explain(caught.value)
