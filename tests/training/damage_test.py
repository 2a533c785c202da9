"""Damage to saved parameters and checkpoints is found, named, and never trained on."""

import logging
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax import models
from alkd_jax.training import checkpoints
from alkd_jax.training.checkpoints import TrainingFolder, open_checkpoints
from alkd_jax.training.digests import DIGESTS
from tests.helpers import paths

MARKERS = {"_CHECKPOINT_METADATA", "commit_success.txt"}
"""Files in which Orbax notes when it saved what."""

PRINT = {"versions": {}, "model": "a"}


def state_of(step):
    return {"table": jnp.arange(40.0).reshape(10, 4) + step, "count": jnp.int32(step)}


def opened(path, *, fingerprint=PRINT, in_background=True, keep=2):
    return open_checkpoints(TrainingFolder(path, keep=keep), fingerprint, state_of(0), in_background=in_background)


def save(path, *steps, **options):
    with opened(path, **options) as checkpointer:
        for step in steps:
            checkpointer.save(step, state_of(step), [[0, step]])


def restored_step(path, **options):
    with opened(path, **options) as checkpointer:
        restored = checkpointer.restore()
    if restored is None:
        return None
    state, curves = restored
    step = int(state["count"])
    np.testing.assert_array_equal(state["table"], state_of(step)["table"])
    assert curves == [[0, step]]
    return step


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)


DAMAGES = {
    "flipped": flip,
    "cut": lambda file: os.truncate(file, file.stat().st_size // 2),
    "empty": lambda file: os.truncate(file, 0),
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "removed": pathlib.Path.unlink,
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Folders with the checkpoints of steps 5 and 10, saved in the background and not."""
    folders = {}
    for in_background in (True, False):
        folders[in_background] = tmp_path_factory.mktemp("sound") / "state"
        save(folders[in_background], 5, 10, in_background=in_background)
    return folders


@pytest.mark.parametrize("in_background", [True, False])
def test_whatever_file_is_damaged_training_continues_from_an_undamaged_checkpoint(tmp_path, sound, in_background):
    check_every_file(tmp_path, sound[in_background], in_background, lambda place: [list(DAMAGES)[place % len(DAMAGES)]])


@pytest.mark.slow
@pytest.mark.parametrize("in_background", [True, False])
def test_so_it_does_with_every_damage_of_every_file(tmp_path, sound, in_background):
    check_every_file(tmp_path, sound[in_background], in_background, lambda place: DAMAGES)


def check_every_file(tmp_path, sound, in_background, damages):
    names = [path.relative_to(sound) for path in files_of(sound / "steps" / "10")]
    for place, name in enumerate(names):
        for damage in damages(place):
            folder = tmp_path / f"{place} {damage}"
            shutil.copytree(sound, folder)
            DAMAGES[damage](folder / name)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                step = restored_step(folder, in_background=in_background)
            # These hold nothing that is trained on, and without digests the state is read as one of an earlier version.
            if name.name in MARKERS or (damage, name.name) == ("removed", DIGESTS):
                assert (step, caught) == (10, [])
                continue
            assert step == 5, (name, damage)
            [warning] = [str(warning.message) for warning in caught]
            assert "\n" not in warning
            assert warning.endswith(f"of step 10 is now {folder / 'damaged_10'}, and training continues from step 5")


def test_the_damaged_checkpoint_is_kept_and_its_step_saved_again(tmp_path, sound):
    shutil.copytree(sound[True], tmp_path / "state")
    flip(tmp_path / "state" / "steps" / "10" / "curves" / "metadata")
    with opened(tmp_path / "state") as checkpointer:
        with pytest.warns(UserWarning, match="metadata is damaged: its SHA-256 is not the one in digests.json; "):
            checkpointer.restore()
        checkpointer.save(10, state_of(10), [[0, 10]])
    assert (tmp_path / "state" / "damaged_10" / "curves" / "metadata").exists()
    assert restored_step(tmp_path / "state") == 10


def test_where_every_checkpoint_is_damaged_the_error_says_what_to_do_and_nothing_is_moved(tmp_path, sound):
    folder = tmp_path / "state"
    shutil.copytree(sound[True], folder)
    for step in ("5", "10"):
        (folder / "steps" / step / "state" / "_METADATA").unlink()
    before = files_of(folder)
    with pytest.raises(ValueError, match=f"10/state/_METADATA is missing.*; remove {folder} to start from the begin"):
        restored_step(folder)
    assert files_of(folder) == before


@pytest.mark.parametrize("in_background", [True, False])
def test_checkpoints_without_digests_are_read_and_damage_that_orbax_sees_is_found(tmp_path, sound, in_background):
    folder = tmp_path / "state"
    shutil.copytree(sound[in_background], folder)
    for file in folder.rglob(DIGESTS):
        file.unlink()
    assert restored_step(folder, in_background=in_background) == 10
    (folder / "steps" / "10" / "state" / "_METADATA").write_text("{")
    with pytest.warns(UserWarning, match="steps/10: cannot be read .*; expected an undamaged checkpoint"):
        assert restored_step(folder, in_background=in_background) == 5


def test_a_folder_with_an_empty_folder_of_steps_is_a_new_one(tmp_path):
    (tmp_path / "state" / "steps").mkdir(parents=True)
    assert restored_step(tmp_path / "state") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"\0" * 20])
def test_a_damaged_fingerprint_is_named_with_what_to_do(tmp_path, content):
    (tmp_path / "fingerprint.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"fingerprint.json.*; choose another folder, or remove this one") as caught:
        restored_step(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.fixture
def small_files(monkeypatch):
    """Lets the system refuse files of more than 2,000 bytes, as a full disk does."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(logging.getLogger("absl"), "filters", [])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


NOISE = np.random.default_rng(0).random((1000, 4), np.float32)
"""A table that cannot be compressed to 2,000 bytes."""


def save_noise(path, step, in_background):
    with opened(path, in_background=in_background) as checkpointer:
        checkpointer.save(step, state_of(step) | {"table": jnp.asarray(NOISE)}, [[0, step]])


@pytest.mark.parametrize("in_background", [True, False])
def test_without_room_a_save_ends_with_one_error_and_the_state_before_stays(
    tmp_path, small_files, capfd, in_background
):
    save(tmp_path, 5, in_background=in_background)
    with pytest.raises(OSError, match="File too large") as caught:
        save_noise(tmp_path, 10, in_background)
    assert caught.value.filename == str(tmp_path)
    assert capfd.readouterr() == ("", "")
    assert restored_step(tmp_path, in_background=in_background) == 5


def test_without_room_no_parameters_are_left_behind(tmp_path, small_files, capfd):
    with pytest.raises(OSError, match="File too large"):
        checkpoints.save_params(tmp_path / "student", {"table": jnp.asarray(NOISE)})
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_one_training_at_a_time_works_in_a_folder(tmp_path):
    with opened(tmp_path), pytest.raises(ValueError, match="is in use by another training"), opened(tmp_path):
        pass
    code = "import pathlib, sys; from alkd_jax.locks import *; lock_folder(pathlib.Path(sys.argv[1])); input('locked')"
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=paths.ROOT)
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], **pipes) as other:
        assert other.stdout.read(6) == "locked"
        with pytest.raises(ValueError, match=f"is in use by process {other.pid}"), opened(tmp_path):
            pass
        other.communicate("\n")
    assert restored_step(tmp_path) is None


def test_damaged_parameters_are_refused_with_the_file(tmp_path):
    model = models.create("fpmc", num_items=20, dim=4)
    sound = tmp_path / "student"
    checkpoints.save_params(sound, models.init_params(jax.random.key(0), model))
    for place, name in enumerate(path.relative_to(sound) for path in files_of(sound)):
        damage = list(DAMAGES)[place % len(DAMAGES)]
        copy = tmp_path / str(place)
        shutil.copytree(sound, copy)
        DAMAGES[damage](copy / name)
        if name.name in MARKERS or (damage, name.name) == ("removed", DIGESTS):
            checkpoints.restore_params(copy, model)
            continue
        with pytest.raises(ValueError, match=re.escape(str(copy))) as caught:
            checkpoints.restore_params(copy, model)
        assert "\n" not in str(caught.value)
    (sound / DIGESTS).unlink()
    assert jax.tree.leaves(checkpoints.restore_params(sound, model)), "written by an earlier version"
