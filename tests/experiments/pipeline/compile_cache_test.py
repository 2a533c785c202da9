"""The compile cache: on in commands, off elsewhere, and JAX's own variables have the last word."""

import os
import pathlib
import subprocess
import sys

import jax
import pytest

from experiments.pipeline import compile_cache
from tests.helpers import paths

ASK = "print(jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs)"


def as_command(name, **variables):
    """What JAX is set to in a command of this name."""
    code = (
        "import sys, types, jax; from experiments import compile_cache\n"
        f"sys.modules['__main__'].__spec__ = types.SimpleNamespace(name={name!r})\n"
        f"compile_cache.turn_on(); {ASK}"
    )
    environment = {n: v for n, v in os.environ.items() if not n.startswith("JAX_")} | variables
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=paths.ROOT, env=environment)
    assert out.returncode == 0, out.stderr
    return out.stdout.split()


def test_a_command_keeps_what_it_compiled_in_the_users_cache(tmp_path):
    folder, seconds = as_command("experiments.quickstart", XDG_CACHE_HOME=str(tmp_path))
    if sys.platform.startswith("linux"):
        assert folder == str(tmp_path / "alkd_jax" / "compiled")
    assert float(seconds) < 1


@pytest.mark.parametrize("name", ["pytest.__main__", "somebody.script"])
def test_elsewhere_nothing_is_turned_on(name):
    assert as_command(name)[0] == "None"


def test_jax_variables_have_the_last_word(tmp_path):
    assert as_command("experiments.game", JAX_COMPILATION_CACHE_DIR=str(tmp_path))[0] == str(tmp_path)
    assert as_command("experiments.game", JAX_ENABLE_COMPILATION_CACHE="false")[0] == "None"


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/c"}, "/c/alkd_jax/compiled"),
        ("linux", {"HOME": "/h"}, "/h/.cache/alkd_jax/compiled"),
        ("darwin", {"HOME": "/h"}, "/h/Library/Caches/alkd_jax/compiled"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/alkd_jax/compiled"),
    ],
)
def test_the_folder_is_where_the_system_keeps_caches(monkeypatch, platform, variables, expected):
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert compile_cache.default_folder() == pathlib.Path(expected)


def test_this_process_is_no_command():
    before = jax.config.jax_compilation_cache_dir
    compile_cache.turn_on()
    assert not compile_cache.is_command()
    assert jax.config.jax_compilation_cache_dir == before
