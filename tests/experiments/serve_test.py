"""The command that serves a shipped student."""

import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import sys

import pytest

from tests.helpers import paths, shipped_students

for package in ("uvicorn", "starlette", "tyro", "safetensors"):
    pytest.importorskip(package)

COMMAND = [sys.executable, "-m", "experiments.serve"]


def refusal(*options):
    """The one line of a command that ends with exit code 2."""
    out = subprocess.run([*COMMAND, *options], capture_output=True, text=True, cwd=paths.ROOT, check=False)
    assert out.returncode == 2
    assert out.stderr.startswith("error: ")
    assert out.stderr.count("\n") == 1
    return out.stderr


def test_a_folder_that_is_no_student_ends_the_command_in_one_line(tmp_path):
    assert "config.json: no such file" in refusal("--model", str(tmp_path), "--port", "0")


def test_a_port_in_use_and_an_empty_host_are_one_line(tmp_path):
    folder = str(shipped_students.write(tmp_path / "student"))
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = str(taken.getsockname()[1])
        assert f"127.0.0.1 port {port}: the address is in use" in refusal("--model", folder, "--port", port)
    assert "host is ''" in refusal("--model", folder, "--port", "0", "--host", "")


def test_sigterm_ends_the_service_after_what_was_sent_is_answered(tmp_path):
    folder = shipped_students.write(tmp_path / "student")
    process = subprocess.Popen(
        [*COMMAND, "--model", folder, "--port", "0"], stderr=subprocess.PIPE, text=True, cwd=paths.ROOT
    )
    with process:
        line = process.stderr.readline()
        port = int(re.search(r"running on http://127\.0\.0\.1:(\d+) ", line)[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with contextlib.closing(connection):
            body = json.dumps({"session": ["id-1"]})
            connection.request("POST", "/recommend", body)
            assert connection.getresponse().read()
            connection.request("POST", "/recommend", body)
            process.send_signal(signal.SIGTERM)
            assert connection.getresponse().status == 200
        assert process.wait(60) == 143
        assert process.stderr.read().endswith("\nended by SIGTERM\n")


def test_the_command_loads_no_jax():
    code = "import sys, experiments.serve; print([m for m in ('jax', 'flax', 'scipy') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=paths.ROOT)
    assert out.stdout.strip() == "[]"
