"""The compilation cache: enabled in commands only, and JAX's own variables take precedence."""

import os
import pathlib
import subprocess
import sys
import zlib

import jax
import pytest

from experiments.pipeline import compile_cache
from tests.helpers import paths

PRINT_CONFIG = "print(jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs)"


def config_in_command(name, **variables):
    """JAX's cache settings in a command of this name."""
    code = (
        "import sys, types, jax; from experiments.pipeline import compile_cache\n"
        f"sys.modules['__main__'].__spec__ = types.SimpleNamespace(name={name!r})\n"
        f"compile_cache.enable(); {PRINT_CONFIG}"
    )
    environment = {n: v for n, v in os.environ.items() if not n.startswith("JAX_")} | variables
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=paths.ROOT, env=environment)
    assert out.returncode == 0, out.stderr
    return out.stdout.split()


def test_a_command_stores_compiled_programs_in_the_users_cache(tmp_path):
    folder, seconds = config_in_command("experiments.quickstart", XDG_CACHE_HOME=str(tmp_path))
    if sys.platform.startswith("linux"):
        assert folder == str(tmp_path / "alkd_jax" / "compiled")
    assert float(seconds) < 1


@pytest.mark.parametrize("name", ["pytest.__main__", "somebody.script"])
def test_other_processes_have_no_cache(name):
    assert config_in_command(name)[0] == "None"


def test_jax_variables_take_precedence(tmp_path):
    assert config_in_command("experiments.game", JAX_COMPILATION_CACHE_DIR=str(tmp_path))[0] == str(tmp_path)
    assert config_in_command("experiments.game", JAX_ENABLE_COMPILATION_CACHE="false")[0] == "None"


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/c"}, "/c/alkd_jax/compiled"),
        ("linux", {"HOME": "/h"}, "/h/.cache/alkd_jax/compiled"),
        ("darwin", {"HOME": "/h"}, "/h/Library/Caches/alkd_jax/compiled"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/alkd_jax/compiled"),
    ],
)
def test_the_folder_follows_the_operating_system(monkeypatch, platform, variables, expected):
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert compile_cache.default_folder() == pathlib.Path(expected)


def test_a_test_process_is_no_command():
    before = jax.config.jax_compilation_cache_dir
    compile_cache.enable()
    assert not compile_cache.is_command()
    assert jax.config.jax_compilation_cache_dir == before


DAMAGES = {
    "empty": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
    "half": lambda data: data[: len(data) // 2],
    "bit": lambda data: data[:-20] + bytes([data[-20] ^ 1]) + data[-19:],
}


@pytest.mark.parametrize("was_seen", [False, True])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_entries_are_deleted_and_the_others_stay(tmp_path, damage, was_seen):
    sound = {f"jit_{n}-cache": zlib.compress(bytes(range(256)) * (n + 1)) for n in range(3)}
    for name, data in sound.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "notes.txt").write_text("mine")
    if was_seen:
        compile_cache.remove_damaged(tmp_path)
    (tmp_path / "jit_1-cache").write_bytes(DAMAGES[damage](sound["jit_1-cache"]))
    compile_cache.remove_damaged(tmp_path)
    kept = {"jit_0-cache", "jit_2-cache", "notes.txt", compile_cache.DIGESTS_FILE}
    assert set(os.listdir(tmp_path)) == kept
    # What replaces the deleted entry is new.
    (tmp_path / "jit_1-cache").write_bytes(sound["jit_1-cache"][:-1] + b"x" if was_seen else sound["jit_0-cache"])
    compile_cache.remove_damaged(tmp_path)
    assert ("jit_1-cache" in os.listdir(tmp_path)) is not was_seen


@pytest.mark.parametrize("record", ["", "[]", "{", '{"jit-cache": 1}'])
def test_a_damaged_record_of_digests_costs_entries_at_most(tmp_path, record):
    (tmp_path / "jit-cache").write_bytes(zlib.compress(b"x"))
    (tmp_path / compile_cache.DIGESTS_FILE).write_text(record)
    for _ in range(2):
        compile_cache.remove_damaged(tmp_path)
    assert compile_cache.DIGESTS_FILE in os.listdir(tmp_path)


def test_a_folder_that_cannot_be_made_means_no_cache(tmp_path):
    (tmp_path / "file").write_text("")
    assert config_in_command("experiments.quickstart", XDG_CACHE_HOME=str(tmp_path / "file"))[0] == "None"
