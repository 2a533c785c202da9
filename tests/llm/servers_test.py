"""A student is distilled from the lists of a real llama.cpp server, directly and through a real litellm proxy.

The model has random weights, one token a byte, and answers within the schema that the questions give.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from alkd_jax.io import read_json
from tests.helpers import paths, random_gguf

MISSING = [name for name in ("gguf", "litellm", "xllamacpp") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"needs the extra llm-servers; not installed: {', '.join(MISSING)}"),
]

KEY = "sk-4f1d2c3b5a69788796a5b4c3d2e1f001"
RUN = "--data synthetic --backbone fpmc --seeds 1 --max-steps 20 --budget 12 --methods ALKDRec --teacher openai"
SAMPLED = ["--extra-body", '{"temperature": 1.0}']
"""A greedy random model repeats one label, so that its lists would be too short."""


def call(command, *arguments, key=None):
    """Calls a command; returns its exit status and its output."""
    environment = os.environ | {"PYTHONPATH": str(paths.ROOT), "JAX_PLATFORMS": "cpu"}
    environment |= {} if key is None else {"LITELLM_API_KEY": key}
    line = [sys.executable, "-m", f"experiments.{command}", *map(str, arguments)]
    done = subprocess.run(line, cwd=paths.ROOT, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@contextlib.contextmanager
def llama(path, *, context=8192, slots=2):
    """Runs a llama.cpp server; yields its address."""
    line = [sys.executable, str(paths.ROOT / "tests/helpers/llama_server.py"), str(path), str(context), str(slots)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            yield f"{server.stdout.readline().decode().strip()}/v1"
        finally:
            server.stdin.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with llama(random_gguf.write_model(tmp_path_factory.mktemp("model") / "tiny.gguf")) as url:
        yield url


@pytest.fixture(scope="module")
def proxy(server, tmp_path_factory):
    """A litellm proxy before the server; the address."""
    folder = tmp_path_factory.mktemp("proxy")
    parameters = {"model": "openai/tiny", "api_base": server, "api_key": "none"}
    config = {"model_list": [{"model_name": "tiny", "litellm_params": parameters}]}
    (folder / "config.yaml").write_text(json.dumps(config))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {"LITELLM_MASTER_KEY": KEY, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    line = [sys.executable, "-m", "litellm.proxy.proxy_cli", "--config", "config.yaml"]
    line += ["--host", "127.0.0.1", "--port", str(port)]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(line, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for(f"http://127.0.0.1:{port}/health/liveliness", process)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait()


def wait_for(url, process):
    """Waits until a server answers."""
    for _ in range(1200):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=10)
            return
        assert process.poll() is None, "the server has ended"
        time.sleep(0.25)
    raise AssertionError(f"{url} does not answer")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that has stopped before its paid stage."""
    folder = tmp_path_factory.mktemp("runs") / "stopped"
    code, output = call("reproduce", *RUN.split(), "--out", folder)
    assert (code, "no model was asked yet" in output) == (2, True), output
    return folder


@pytest.fixture
def folder(stopped, tmp_path):
    return shutil.copytree(stopped, tmp_path / "run")


def check_finished(folder, capsys):
    """Asserts that the student was distilled from answers that cost nothing; prints what was asked and answered."""
    assert set(read_json(folder / "metrics.json")["methods"]) >= {"Student", "Teacher", "ALKDRec"}
    numbers = read_json(folder / "status.json")
    assert (numbers["paid_usd"], numbers["possible_usd"], numbers["reserved_usd"]) == (0, 0, 0)
    assert numbers["usable"] == len(read_json(folder / "selection.json")["ALKDRec"]) == 12
    seconds = sum(call["seconds"] for call in read_json(folder / "llm" / "account.json")["calls"])
    asked = f"{numbers['requests']} requests, {numbers['statuses']}, {numbers['tokens']:,} tokens, {seconds:.1f} s"
    with capsys.disabled():
        print(f"\n{asked}")  # noqa: T201


def test_a_student_is_distilled_from_the_lists_of_a_llama_cpp_server(server, folder, capsys):
    options = [
        "--model",
        "tiny",
        "--base-url",
        f"llamacpp:{server}",
        "--llm-seed",
        "none",
        "--min-valid",
        "8",
        *SAMPLED,
    ]
    code, output = call("reproduce", *RUN.split(), "--out", folder, *options)
    assert code == 0, output
    assert call("query_llm", "status", "--run", folder, "--json", folder / "status.json")[0] == 0
    check_finished(folder, capsys)


def test_a_student_is_distilled_from_the_lists_of_a_litellm_proxy(proxy, folder, capsys):
    model = ["--run", folder, "--base-url", f"litellm:{proxy}", "--model"]
    options = ["--seed", "none", "--min-valid", "8", *SAMPLED]
    code, output = call("query_llm", "run", *model, "tiny", *options, key="sk-wrong")
    assert (code, "No connected db" in output) == (3, True), output
    code, output = call("query_llm", "run", *model, "other", *options, key=KEY)
    assert (code, "Invalid model name" in output) == (3, True), output
    code, output = call("query_llm", "run", *model, "tiny", *options, key=KEY)
    assert code == 0, output
    assert call("query_llm", "status", "--run", folder, "--json", folder / "status.json")[0] == 0
    code, output = call("reproduce", *RUN.split(), "--out", folder)
    assert code == 0, output
    check_finished(folder, capsys)


def test_questions_beyond_the_context_of_a_llama_cpp_server_end_the_run_at_no_cost(folder, tmp_path):
    with llama(random_gguf.write_model(tmp_path / "tiny.gguf"), context=512, slots=1) as url:
        code, output = call("query_llm", "run", "--run", folder, "--model", "tiny", "--base-url", f"llamacpp:{url}")
    assert code == 3, output
    assert call("query_llm", "status", "--run", folder, "--json", folder / "status.json")[0] == 0
    numbers = read_json(folder / "status.json")
    assert (numbers["answers"], numbers["possible_usd"]) == (0, 0)
    assert sum(numbers["refusals"].values()) == 3
    assert all("exceeds the available context size" in error for error in numbers["refusals"])
