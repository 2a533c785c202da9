"""Meshes, and, in processes of their own, training and ranking on eight devices and with two processes."""

import json
import os
import re
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from alkd_jax import sharding
from tests.helpers import paths, processes, two_processes


def test_a_mesh_is_parsed_from_a_text():
    assert sharding.parse_mesh("data=2,model=4") == {"data": 2, "model": 4}
    assert sharding.parse_mesh(" model=3") == {"data": 1, "model": 3}
    for wrong in ("", "data", "data=0", "data=-1", "rows=2", "data=2,data=2", "data=2;model=4", "model=²"):
        with pytest.raises(ValueError, match="expected sizes of at least 1, as in 'data=2,model=4'"):
            sharding.parse_mesh(wrong)


def test_a_mesh_needs_its_devices():
    assert dict(sharding.make_mesh("data=1").shape) == {"data": 1, "model": 1}
    needed = 2 * len(jax.devices())
    with pytest.raises(
        ValueError, match=rf"mesh is data=2,model={needed // 2}; expected at most {needed // 2} devices"
    ):
        sharding.make_mesh(f"data=2,model={needed // 2}")


def test_without_a_mesh_there_is_no_current_mesh():
    assert sharding.current_mesh() is None
    with sharding.use_mesh(None):
        assert sharding.current_mesh() is None
    with sharding.use_mesh(sharding.make_mesh("data=1")):
        assert dict(sharding.current_mesh().shape) == {"data": 1, "model": 1}
    assert sharding.current_mesh() is None


@pytest.mark.parametrize("marked", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "file",
    [
        "on_eight_devices.py",
        *(pytest.param(f"{name}_on_eight_devices.py", marks=pytest.mark.slow) for name in ("rows", "parts")),
    ],
)
def test_eight_devices(file, marked):
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", marked]
    command = [sys.executable, "-m", "pytest", *options, f"tests/helpers/{file}"]
    done = subprocess.run(
        command, cwd=paths.ROOT, env=processes.environment(8), capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("part", ["dense", "row_sparse"])
def test_two_processes(tmp_path, part):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    both = [
        subprocess.Popen(
            [
                sys.executable,
                str(paths.ROOT / "tests" / "helpers" / "two_processes.py"),
                part,
                str(number),
                port,
                str(tmp_path),
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    outputs = [process.communicate(timeout=1200)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], "\n".join(outputs)[-6000:]
    work = two_processes.PARTS[part]
    alone = work(None, None, max_steps=10)
    for number in range(2):
        with np.load(tmp_path / f"process_{number}.npz") as found:
            for name, expected in alone.items():
                if name in ("ranks", "drawn"):
                    np.testing.assert_array_equal(found[name], expected)
                else:
                    np.testing.assert_allclose(found[name], expected, atol=2e-5, err_msg=name)
    # The checkpoints of two processes are those of the finished training of one process.
    continued = work(None, tmp_path / "training", max_steps=10)
    for name, expected in continued.items():
        np.testing.assert_allclose(expected, alone[name], atol=2e-5, err_msg=name)


@pytest.mark.slow
def test_a_run_may_continue_on_another_mesh_with_similar_results(tmp_path):
    """The pipeline on four devices and then on one repeats no stage; on one device alone the results are similar."""
    options = ["--data", "synthetic", "--backbone", "fpmc", "--seeds", "2", "--max-steps", "20", "--teacher-dim", "12"]
    command = [sys.executable, "-m", "experiments.reproduce", *options, "--budget", "40", "--selection", "own"]
    common = {"cwd": paths.ROOT, "env": processes.environment(4), "capture_output": True, "text": True, "timeout": 1200}
    methods = ["--methods", "DE,DLLM2Rec,ALKDRec"]
    for out, mesh in (("many", ["--mesh", "data=2,model=2"]), ("many", []), ("one", [])):
        done = subprocess.run([*command, "--out", str(tmp_path / out), *methods, *mesh], **common)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        reused = done.stdout.count("reused from an earlier run")
        assert (reused == 0) == (mesh != [] or out == "one"), done.stdout
        assert not reused or not re.search(r"^\S+: \d+\.\d s$", done.stdout, re.MULTILINE), done.stdout
    many, one = (json.loads((tmp_path / out / "metrics.json").read_text())["methods"] for out in ("many", "one"))
    for name, columns in one.items():
        for metric, column in columns.items():
            np.testing.assert_allclose(many[name][metric]["values"], column["values"], atol=2e-3, err_msg=name)
