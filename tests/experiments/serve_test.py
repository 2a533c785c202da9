"""The command that serves a shipped student."""

import subprocess
import sys

import pytest

from tests.helpers import paths

for package in ("uvicorn", "starlette", "tyro"):
    pytest.importorskip(package)


def test_a_folder_that_is_no_student_ends_the_command_in_one_line(tmp_path):
    command = [sys.executable, "-m", "experiments.serve", "--model", str(tmp_path), "--port", "0"]
    out = subprocess.run(command, capture_output=True, text=True, cwd=paths.ROOT, check=False)
    assert out.returncode == 2
    assert out.stderr.startswith("error: ")
    assert "config.json: no such file" in out.stderr
    assert out.stderr.count("\n") == 1


def test_the_command_loads_no_jax():
    code = "import sys, experiments.serve; print([m for m in ('jax', 'flax', 'scipy') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=paths.ROOT)
    assert out.stdout.strip() == "[]"
