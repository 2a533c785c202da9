"""The compilation cache: enabled in commands only, and JAX's own variables take precedence."""

import os
import pathlib
import subprocess
import sys

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
