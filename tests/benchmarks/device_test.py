"""The checks and times on a device that is there: here on the CPU, at tiny sizes."""

import json
import subprocess
import sys

import pytest

from benchmarks import device, device_checks


@pytest.mark.slow
def test_everything_passes_on_the_cpu_and_the_file_holds_it(tmp_path):
    content = device.run(device.Device(tmp_path / "device.json", minutes=10, smoke=True))
    assert json.loads((tmp_path / "device.json").read_text()) == content
    assert content["left_out"] == []
    assert len(content["checks"]) >= 6
    assert [part["name"] for part in content["checks"] + content["programs"] if not part["passed"]] == []
    assert all(program["measured_us"] > 0 for program in content["programs"])


def test_wrong_results_and_errors_are_failures_that_do_not_end_the_run(tmp_path, monkeypatch):
    right_top_k = device_checks.scoring.top_k

    def wrong_top_k(vectors, table, k, *, exclude):
        scores, ids = right_top_k(vectors, table, k, exclude=exclude)
        return scores, ids[:, ::-1]

    monkeypatch.setattr(device_checks.scoring, "top_k", wrong_top_k)
    checks = {"wrong": lambda: device_checks.best_items(50, 3), "broken": lambda: 1 / 0, "right": lambda: {"a": 1.5}}
    monkeypatch.setattr(device_checks, "parts", lambda smoke: checks)
    monkeypatch.setattr(device.device_programs, "parts", lambda smoke: {})
    content = device.run(device.Device(tmp_path / "device.json", smoke=True))
    assert [check["passed"] for check in content["checks"]] == [False, False, True]
    assert "ZeroDivisionError" in content["checks"][1]["error"]
    with pytest.raises(SystemExit, match="1"):
        device.main(device.Device(tmp_path / "device.json", smoke=True))


def test_a_run_ends_at_its_time_and_leaves_what_it_found(tmp_path):
    code = (
        "import pathlib, time; from benchmarks import device\n"
        "parts = {'first': lambda: {}, 'hangs': lambda: time.sleep(300), 'never': dict}\n"
        "device.device_checks.parts = lambda smoke: parts\n"
        f"device.run(device.Device(pathlib.Path({str(tmp_path / 'd.json')!r}), minutes=0.02, smoke=True))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "d.json").read_text())
    assert [check["name"] for check in content["checks"]] == ["first"]
    assert {"hangs", "never"} < set(content["left_out"])
    assert "time is over" in done.stderr


def test_a_time_that_is_not_positive_is_refused(tmp_path):
    with pytest.raises(ValueError, match="minutes is 0"):
        device.run(device.Device(tmp_path / "d.json", minutes=0))
