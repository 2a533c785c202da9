"""Students on a hub: what is uploaded, what is downloaded, and that it is checked as any folder is."""

import pathlib
import shutil
import sys
import types

import jax
import numpy as np
import pytest

import alkd_jax as alkd
from alkd_jax.serving.export import save
from alkd_jax.serving.recommender import Recommender

REPOSITORY = "someone/student"


class Hub:
    """A stand-in for `huggingface_hub` that keeps repositories in a folder, and a cache of links as the client does."""

    def __init__(self, folder):
        self.folder, self.calls = folder, []

    def HfApi(self):
        return self

    def create_repo(self, repo_id, *, private, exist_ok):
        self.calls.append(("create", repo_id, private))
        (self.folder / repo_id).mkdir(parents=True, exist_ok=exist_ok)

    def upload_folder(self, *, repo_id, folder_path, revision, allow_patterns, commit_message):
        for name in allow_patterns:
            shutil.copy(pathlib.Path(folder_path) / name, self.folder / repo_id / name)
        return f"{repo_id}/commit/1"

    def snapshot_download(self, repo_id, *, revision, allow_patterns, cache_dir):
        if not (self.folder / repo_id).is_dir():
            # Fails as a library does, outside of any raise statement of ours.
            int(f"404 for {repo_id}")
        self.calls.append(("download", repo_id, revision))
        snapshot = pathlib.Path(cache_dir) / "snapshots" / "1"
        shutil.rmtree(snapshot, ignore_errors=True)
        snapshot.mkdir(parents=True)
        for name in allow_patterns:
            if (self.folder / repo_id / name).exists():
                (snapshot / name).symlink_to(self.folder / repo_id / name)
        return str(snapshot)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    ds = alkd.data.synthetic(num_items=30, num_sessions=60, seed=0)
    model = alkd.models.create("fpmc", num_items=ds.num_items, dim=4)
    params = alkd.models.init_params(jax.random.key(0), model)
    with pytest.MonkeyPatch.context() as patch:
        # The compiled forms take seconds and are not of interest here.
        patch.setattr("alkd_jax.serving.export.compiled_forms", lambda *student: ({}, {}))
        patch.setattr("alkd_jax.serving.export.check_written_folder", lambda *student: None)
        folder = tmp_path_factory.mktemp("students") / "student"
        save(folder, model, params, ds)
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    stand_in = Hub(tmp_path / "hub")
    module = types.SimpleNamespace(HfApi=stand_in.HfApi, snapshot_download=stand_in.snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return stand_in


def test_a_student_comes_back_as_it_was_pushed(shipped, hub, tmp_path):
    student = Recommender.load(shipped)
    assert student.push_to_hub(REPOSITORY) == f"{REPOSITORY}/commit/1"
    assert hub.calls == [("create", REPOSITORY, True)], "a new repository is private"
    uploaded = {path.name for path in (hub.folder / REPOSITORY).iterdir()}
    assert uploaded == {"config.json", "model.safetensors", "items.json", "README.md"}
    back = Recommender.from_hub(REPOSITORY, revision="v1", cache=tmp_path / "cache")
    assert hub.calls[-1] == ("download", REPOSITORY, "v1")
    assert back.version == student.version
    assert back.item_ids == student.item_ids
    np.testing.assert_array_equal(back.item_embeddings, student.item_embeddings)
    with pytest.raises(ValueError, match=r"the student has no folder; expected one that Recommender\.load read"):
        back.push_to_hub(REPOSITORY)


def test_what_is_downloaded_is_checked_as_any_folder(shipped, hub, tmp_path):
    Recommender.load(shipped).push_to_hub(REPOSITORY)
    weights = hub.folder / REPOSITORY / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"model\.safetensors: SHA-256 is another"):
        Recommender.from_hub(REPOSITORY, cache=tmp_path / "cache")
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors: no such file"):
        Recommender.from_hub(REPOSITORY, cache=tmp_path / "cache")


def test_a_folder_that_was_changed_is_not_uploaded(shipped, hub, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(shipped, folder)
    student = Recommender.load(folder)
    (folder / "items.json").write_text("{}")
    with pytest.raises(ValueError, match=r"items\.json: size is 2 bytes"):
        student.push_to_hub(REPOSITORY)
    (folder / "config.json").write_text((folder / "config.json").read_text().replace('"float32"', '"float16"'))
    with pytest.raises(ValueError, match=r"config\.json: was changed since it was loaded"):
        student.push_to_hub(REPOSITORY)
    assert hub.calls == []


def test_a_repository_that_is_not_there_is_one_line(hub, tmp_path):
    with pytest.raises(ValueError, match=r"no/such: cannot be read \(.*404 for no/such.*\)") as caught:
        Recommender.from_hub("no/such", cache=tmp_path)
    assert "\n" not in str(caught.value)
